import contextlib
import dataclasses
import json

import jax
import pytest

from caduceus_jax import CaduceusConfig, UserError
from caduceus_jax.cli.main import main
from caduceus_jax.kernels import Chunked, MosaicTPU, PallasTriton, Triton
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.planning import plan as module
from caduceus_jax.train.planning.bounds import Peaks
from caduceus_jax.train.planning.collectives import Collective
from caduceus_jax.train.planning.plan import Attempt, PlanConfig, implementation_for, plan
from caduceus_jax.train.planning.step_costs import step_costs
from caduceus_jax.train.planning.topology import find_topology

CONFIG = PlanConfig(
    model=CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=True),
    batch_size=4,
    max_length=16,
    sequence=2,
    topology="cpu:4",
)


def test_a_plan_says_what_was_compiled_counted_and_sent(capsys):
    """In JSON, from the command line."""
    words = "plan --topology cpu:4 --model.d_model 8 --model.n_layer 2 --model.d_state 4".split()
    assert main([*words, "--batch_size=4", "--max_length=16", "--sequence=2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["mesh"] == {"data": 2, "fsdp": 1, "sequence": 2, "tensor": 1}
    assert (report["devices"], report["windows"], report["windows_per_group"]) == (4, 4, 2)
    assert report["fits"]
    memory = report["memory"]
    # Half of two windows of three arrays, and the state, whose place the new one takes.
    assert memory["arguments"] - 2 * 8 * 3 * 4 == memory["reused"] <= memory["outputs"]
    kept = memory["arguments"] + memory["outputs"] - memory["reused"]
    assert report["needed_bytes"] == kept + memory["temporaries"] + memory["program"]
    # Two layers, two directions.
    gathers = [row for row in report["collectives"] if row["kind"] == "all-gather"]
    assert sorted(row["count"] for row in gathers) == [4, 4]
    whole = step_costs(CONFIG)
    assert report["per_device"]["scans"]["flops"] == whole["scans"].flops // 4
    assert report["lower_seconds"] > 0
    assert report["compile_seconds"] > 0
    assert report["host_bytes"] > 2**26
    assert report["largest_windows_per_group"] is None
    assert report["predicted"] is None, "nobody publishes what a CPU can do"


@pytest.mark.parametrize(("largest", "tried"), [(5, [2, 4, 8, 6, 5]), (1, [2, 1]), (0, [2, 1])])
def test_the_largest_batch_is_found_by_doubling_and_bisecting(monkeypatch, capsys, largest, tried):
    def compiled(config, topology, mesh, windows):
        attempt = Attempt(windows, windows <= largest, windows * 2**30, 0.0, 1.0)
        return module.Compiled(attempt, None, [])

    monkeypatch.setattr(module, "_compile", compiled)
    refused = pytest.raises(UserError) if largest < 2 else contextlib.nullcontext()
    with refused as error:
        plan(dataclasses.replace(CONFIG, search=True, json=True))
    report = json.loads(capsys.readouterr().out)
    assert [attempt["windows"] for attempt in report["tried"]] == tried
    assert report["largest_windows_per_group"] == largest
    if error is not None:
        hint = "at most 1 window per group of 2 devices" if largest else "use remat blocks"
        assert hint in str(error.value)
    with refused:
        plan(dataclasses.replace(CONFIG, search=True))
    text = capsys.readouterr().out
    assert text.endswith(
        f"largest that fits: {largest} window{'s' * (largest != 1)} per group of 2 devices\n"
    )
    assert "| 2 | yes | 2.00 | 1 |" in text if largest >= 2 else "| 2 | no | 2.00 | 1 |" in text


def test_a_search_has_whole_windows_in_every_microbatch(monkeypatch, capsys):
    def compiled(config, topology, mesh, windows):
        return module.Compiled(Attempt(windows, windows <= 8, 2**30, 0.0, 1.0), None, [])

    monkeypatch.setattr(module, "_compile", compiled)
    plan(dataclasses.replace(CONFIG, batch_size=12, microbatches=3, search=True, json=True))
    report = json.loads(capsys.readouterr().out)
    assert [attempt["windows"] for attempt in report["tried"]] == [6, 12, 9]
    assert report["largest_windows_per_group"] == 6


def test_what_the_compiler_refuses_does_not_fit(monkeypatch, capsys):
    """The sentence is libtpu's; a launcher reads the status."""

    def refuse(self):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.50G of 15.75G hbm."
        )

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    words = "plan --topology cpu:4 --model.d_model 8 --model.n_layer 1 --model.d_state 4".split()
    assert main([*words, "--batch_size=4", "--max_length=16"]) == 1
    out, error = capsys.readouterr()
    assert "does not fit: 25.50 of" in out
    assert error.startswith(
        "caduceus-jax plan: --batch-size 4 does not fit cpu:4: it needs 25.50 GiB of "
    )
    assert error.count("\n") == 1


def test_predictions_are_printed_as_what_they_are(monkeypatch, capsys):
    """On devices that do 10^12 of everything."""
    peaks = Peaks(1e12, 1e12, 1e12, 1e12)
    topology = find_topology("cpu:4")._replace(peaks=peaks)
    monkeypatch.setattr(module, "find_topology", lambda name: topology)

    def compiled(config, topology, mesh, windows):
        sent = [Collective("all-reduce", "f32[5]", "forward psum", 1, 5 * 10**10)]
        return module.Compiled(Attempt(windows, True, 2**30, 0.0, 1.0), None, sent)

    monkeypatch.setattr(module, "_compile", compiled)
    plan(CONFIG)
    text = capsys.readouterr().out
    assert "| between devices |  |  |  | 100 | 100 |" in text
    assert "predicted, not measured: a step takes at least 0.1 s" in text


def test_a_plan_without_devices_or_with_others_than_the_batch_divides_by_is_refused():
    with pytest.raises(UserError, match="--topology is missing"):
        plan(dataclasses.replace(CONFIG, topology=""))
    with pytest.raises(UserError, match="batch_size is 3, which 2 groups of 2 devices"):
        plan(dataclasses.replace(CONFIG, batch_size=3))


def test_the_scan_is_that_of_the_platform_and_not_of_this_machine():
    assert implementation_for("auto", "tpu") == MosaicTPU(interpret=False)
    assert implementation_for("chunked", "tpu") == Chunked(256, "associative")
    assert implementation_for("chunked", "gpu") == Chunked(128, "associative")
    assert implementation_for("auto", "cpu") == Chunked(32, "sequential")
    assert implementation_for("pallas_triton", "gpu") == PallasTriton(interpret=False)
    assert implementation_for("mosaic_tpu", "tpu") == MosaicTPU(interpret=False)
    assert implementation_for("triton", "cpu") == Triton(interpret=True)
    with pytest.raises(UserError, match="scan is mosaic_tpu, which is for TPUs: use auto"):
        implementation_for("mosaic_tpu", "gpu")


def test_every_setting_of_a_run_is_one_of_a_plan():
    recipe = {field.name for field in dataclasses.fields(PretrainConfig)}
    assert recipe < {field.name for field in dataclasses.fields(PlanConfig)}
