import dataclasses
import json

import jax
import numpy as np
import pytest

from caduceus_jax import CaduceusConfig, UserError
from caduceus_jax.bench import measure
from caduceus_jax.cli.main import main
from caduceus_jax.train.bench import step
from caduceus_jax.train.planning.topology import Topology
from caduceus_jax.train.sharding import make_mesh

TINY = dataclasses.replace(
    step.SUITES["smoke"].recipes["PS 8 x 1"],
    model=CaduceusConfig(d_model=4, n_layer=1, d_state=2, rcps=True),
    max_length=8,
)
PAD, MASK = 4, 3


def cells(page, model):
    """The row of a model in the table of a page."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {model} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_step_is_timed_and_written_down(tmp_path, monkeypatch, capsys):
    suite = dataclasses.replace(step.SUITES["smoke"], recipes={"tiny": TINY})
    monkeypatch.setitem(step.SUITES, "smoke", suite)
    assert main(["bench", "step", "--suite", "smoke", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "step_smoke.json").read_text())
    assert results["finished"] and results["suite"] == "smoke" and results["platform"] == "cpu"
    (row,) = results["cases"]
    assert (row["recipe"], row["length"], row["windows"]) == ("tiny", 8, 2)
    assert row["implementation"] == "chunked" and row["kernels"] == []
    assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
    assert row["tokens_per_s"] == pytest.approx(16e3 / row["median_ms"])
    assert row["min_tokens_per_s"] == pytest.approx(16e3 / row["max_ms"])
    assert row["max_tokens_per_s"] == pytest.approx(16e3 / row["min_ms"])
    # At least the parameters and the two means of the optimizer.
    assert row["needed_bytes"] > 4 * 3 * 16 * 4
    table = cells((tmp_path / "step_smoke.md").read_text(), "tiny")
    low, high = (f"{row[f'{end}_tokens_per_s']:,.0f}" for end in ("min", "max"))
    assert table[:5] == [
        "tiny",
        "8",
        "2",
        "chunked",
        f"{row['tokens_per_s']:,.0f} ({low} - {high})",
    ]
    assert f"{row['tokens_per_s']:,.0f} tokens/s, 2 windows" in capsys.readouterr().out


def test_the_recipes_are_those_of_a_pretraining():
    recipes = step.SUITES["gpu"].recipes
    sizes = {(r.model.d_model, r.model.n_layer, r.max_length) for r in recipes.values()}
    assert sizes == {(128, 4, 1024), (256, 16, 131_072)}
    for recipe in recipes.values():
        assert recipe.model.rcps and recipe.remat and recipe.dtype == "bfloat16"
        assert recipe.batch_size * recipe.max_length == 2**20


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    tried = []

    def timed(config, *_):
        tried.append(config.batch_size)
        if config.batch_size > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")
        return {"median_ms": 1.0}

    monkeypatch.setattr(step, "_timed", timed)
    config = dataclasses.replace(TINY, batch_size=8)
    found = step._largest(config, mesh=None, implementation="chunked", seconds=0.0)
    assert tried == [8, 4, 2] and found == {"windows": 2, "median_ms": 1.0}


@pytest.mark.parametrize(
    ("batch_size", "message"), [(8, "no such kernel"), (1, "RESOURCE_EXHAUST")]
)
def test_other_failures_are_not_a_matter_of_size(monkeypatch, batch_size, message):
    def timed(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(step, "_timed", timed)
    config = dataclasses.replace(TINY, batch_size=batch_size)
    with pytest.raises(RuntimeError, match=message):
        step._largest(config, mesh=None, implementation="chunked", seconds=0.0)


class _Compiled:
    """What a compiler returned that left the backward kernels out."""

    def as_text(self):
        return "selective_scan_outputs"

    def memory_analysis(self):
        return None


def test_a_step_without_its_kernels_has_status_1(tmp_path, monkeypatch, capsys):
    compiled, lowered_for = [], []

    def compile_for(step, arguments):
        lowered_for.extend(leaf.sharding.mesh.shape["data"] for leaf in jax.tree.leaves(arguments))
        compiled.append(arguments[1]["input_ids"].shape)
        return _Compiled(), {"compile_ms": 5.0, "temporary_bytes": 1}

    topology = Topology("h200:1", "gpu", jax.devices()[:1], 2**30, None)
    monkeypatch.setattr(step, "find_topology", lambda name: topology)
    monkeypatch.setattr(measure, "compile_for", compile_for)
    suite = step.Suite({"tiny": TINY}, ("pallas_triton", "chunked"), 0.0)
    monkeypatch.setitem(step.SUITES, "gpu", suite)
    words = ["bench", "step", "--compile-only", "h200", "--out", str(tmp_path)]
    assert main(words) == 1
    assert compiled == [(2, 8), (2, 8)] and set(lowered_for) == {1}
    without, chunked = json.loads((tmp_path / "step_h200.json").read_text())["cases"]
    # Windows of 8 tokens are one chunk: nothing is lacking but the backward pass.
    message = "compiled without selective_scan_adjoints, selective_scan_gradients"
    assert without["error"] == message and message in capsys.readouterr().out
    assert "error" not in chunked and chunked["compile_ms"] == 5.0


def test_windows_are_halved_until_they_fit_the_device_that_is_not_there(monkeypatch):
    tried = []

    def compiled(config, mesh, *_):
        tried.append(config.batch_size)
        if config.batch_size > 4 * mesh.size:
            raise RuntimeError("RESOURCE_EXHAUSTED: exceeded hbm capacity")
        needed = config.batch_size // mesh.size * 2**28
        return {"windows": config.batch_size, "needed_bytes": needed, "kernels": []}

    monkeypatch.setattr(step, "_compiled", compiled)
    config = dataclasses.replace(TINY, batch_size=8)
    mesh = make_mesh(jax.devices()[:2])
    topology = Topology("v5e:2x4", "tpu", jax.devices()[:2], 2**29, None)
    how = {"mesh": mesh, "topology": topology, "implementation": "chunked"}
    found = step._compiled_ahead(config, **how)
    assert tried == [16, 8, 4] and found["windows"] == 4 and "error" not in found
    small = step._compiled_ahead(config, **how | {"topology": topology._replace(memory=2**27)})
    assert small["windows"] == 2 and small["error"] == "needs more than the 0.12 GiB of the device"


def test_a_gpu_is_needed(tmp_path):
    with pytest.raises(UserError, match="needs an NVIDIA GPU, .* cpu here: --compile-only h200"):
        step.step(out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_batch_asks_for_what_is_hidden():
    batch = step._batch(dataclasses.replace(TINY, batch_size=20, max_length=500))
    hidden = batch["input_ids"] == MASK
    assert hidden.mean() == pytest.approx(0.15, abs=0.02)
    assert (batch["labels"][~hidden] == PAD).all()
    assert set(np.unique(batch["labels"][hidden])) == {7, 8, 9, 10}
    assert set(np.unique(batch["input_ids"][~hidden])) == {7, 8, 9, 10}
