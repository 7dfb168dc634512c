import json

import pytest

from caduceus_jax import UserError, bench


def test_the_report_is_json_with_times_counts_and_floors(capsys):
    sizes = {"batch": 2, "length": 64, "channels": 8, "state": 4}
    bench.bench("scan", **sizes, repeats=3, chunk_length=16, inner="associative")
    report = json.loads(capsys.readouterr().out)
    assert report["shape"] == sizes
    for name in ("forward", "forward_backward"):
        row = report[name]
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["floor_share"] == pytest.approx(row["floor_ms"] / row["median_ms"])
        assert row["times_faster"] == pytest.approx(row["reference_ms"] / row["median_ms"])
    # u, delta, z read and y written, B and C read; float32. One exponential a state and token,
    # three a channel and token.
    assert report["forward"]["bytes"] == 4 * (4 * 2 * 64 * 8 + 2 * 2 * 64 * 4)
    assert report["forward"]["exponentials"] == 2 * 64 * 8 * (4 + 3)
    assert report["exponentials_per_s"] > 0 and report["copy_bytes_per_s"] > 0


def test_a_model(capsys):
    bench.bench("model", length=32, d_model=8, n_layer=1, repeats=2, forward_only=True)
    report = json.loads(capsys.readouterr().out)
    assert report["shape"] == {"batch": 1, "length": 32, "d_model": 8, "n_layer": 1}
    row = report["forward"]
    assert row["tokens_per_s"] == pytest.approx(32e3 / row["median_ms"])
    assert "forward_backward" not in report
    assert 0.05 < report["peak_memory_gib"] < 100


def test_options_of_another_implementation_are_refused():
    with pytest.raises(UserError, match="--chunk-length is no option of reference"):
        bench.bench("scan", implementation="reference", chunk_length=8)
    with pytest.raises(UserError, match="--inner is an option of chunked, not of pallas_triton"):
        bench.bench("scan", implementation="pallas_triton", inner="sequential")
