import json
import sys

import pytest

from caduceus_jax import UserError
from caduceus_jax.bench import measure, scan


def test_the_report_is_json_with_times_counts_and_floors(capsys, monkeypatch):
    rates = {"bytes": 1e9, "exponentials": 2e9}
    monkeypatch.setattr(measure, "rates", lambda: rates)
    sizes = {"batch": 2, "length": 64, "channels": 8, "state": 4}
    scan.scan(**sizes, repeats=3, chunk_length=16, inner="sequential")
    report = json.loads(capsys.readouterr().out)
    assert report["suite"] == "scan" and report["platform"] == "cpu"
    assert report["implementation"] == "Chunked(chunk_length=16, inner='sequential')"
    assert report["shape"] == sizes
    for name in ("forward", "forward_backward"):
        row = report[name]
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["floor_share"] == pytest.approx(row["floor_ms"] / row["median_ms"])
        assert row["times_faster"] == pytest.approx(row["reference_ms"] / row["median_ms"])
    # u, delta, z read and y written, B and C read; float32. One exponential a state and token,
    # three per channel and token.
    assert report["forward"]["bytes"] == 4 * (4 * 2 * 64 * 8 + 2 * 2 * 64 * 4)
    assert report["forward"]["exponentials"] == 2 * 64 * 8 * (4 + 3)
    assert report["forward"]["floor_ms"] == pytest.approx(1e3 * 20_480 / 1e9)
    assert (report["copy_bytes_per_s"], report["exponentials_per_s"]) == (1e9, 2e9)


def test_options_of_another_implementation_are_refused():
    with pytest.raises(UserError, match="--chunk-length is not an option of reference"):
        scan.scan(implementation="reference", chunk_length=8)
    with pytest.raises(UserError, match="--inner is not an option of pallas_triton"):
        scan.scan(implementation="pallas_triton", inner="sequential")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", 2),
        ("length", 4096),
        ("dtype", "bfloat16"),
        ("repeats", 3),
        ("channels", 64),
        ("state", 8),
        ("implementation", "reference"),
        ("chunk_length", 8),
        ("inner", "sequential"),
        ("skip_reference", True),
        ("forward_only", True),
    ],
)
def test_a_suite_ignores_no_option(name, value):
    with pytest.raises(UserError, match=f"`{name}` is not read with `suite`"):
        scan.scan(suite="smoke", **{name: value})


@pytest.mark.parametrize(("name", "value"), [("out", "x"), ("minutes", 1.0), ("seed", 1)])
def test_one_shape_ignores_no_option(name, value):
    with pytest.raises(UserError, match=f"`{name}` is read only with `suite`"):
        scan.scan(**{name: value})


def test_the_suite_of_gpus_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(UserError, match="--suite gpu needs an NVIDIA GPU, and JAX computes on cpu"):
        scan.scan(suite="gpu", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_suite_without_matplotlib_is_refused(monkeypatch):
    # As if nothing had been imported before: neither here nor as an attribute of the package.
    monkeypatch.delitem(sys.modules, "caduceus_jax.bench.suites", raising=False)
    monkeypatch.delitem(sys.modules, "caduceus_jax.bench.roofline", raising=False)
    monkeypatch.delattr("caduceus_jax.bench.roofline", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"needs matplotlib: pip install 'caduceus-jax\[train\]'"):
        scan.scan(suite="smoke")
