"""A training step on eight devices made of a CPU, in a process of their own."""

import itertools
import json
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import pytest

from tests.tolerances import SCAN_FP32, relative_error

ROOT = pathlib.Path(__file__).parents[2]
# Data takes what is left of the eight.
MIXED = {"fsdp": 2, "tensor": 2}
CHANNELS = {"tensor": 2, "sequence": 4}
PIECES = {"fsdp": 4, "sequence": 2, "microbatches": 4}
# As PIECES, but every device has all parameters.
WHOLE = {"sequence": 2, "microbatches": 4, "run": False}
ONE = {"devices": 1}


def run(cases):
    """Results and what is sent, of each case."""
    flags = "--xla_force_host_platform_device_count=8 " + os.getenv("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.eight_devices", json.dumps(cases)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


def worst_error(found, expected):
    """Over metrics, gradients and the changed parameters, with its name."""
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    errors = [
        (relative_error(other, one), jax.tree_util.keystr(path))
        for (path, one), other in zip(leaves, jax.tree.leaves(found), strict=True)
    ]
    return max(errors)


@pytest.fixture(scope="module")
def results():
    return run(
        {
            "one": ONE,
            "pieces": PIECES,
            "pieces, longer": PIECES | {"max_length": 64, "run": False},
            "whole": WHOLE,
            "whole, longer": WHOLE | {"max_length": 64},
        }
    )


@pytest.fixture(scope="module")
def divided(results):
    """The results, and those of divisions by the channels, too."""
    return results | run({"mixed": MIXED, "channels": CHANNELS})


@pytest.mark.parametrize(
    "split",
    ["pieces", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mixed", "channels"))],
)
def test_a_step_on_eight_devices_is_the_step_on_one(request, split):
    results = request.getfixturevalue("results" if split == "pieces" else "divided")
    expected = results["one"][0]
    assert expected["metrics"]["loss"] > 1
    assert all(abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected["moments"]))
    error, where = worst_error(results[split][0], expected)
    assert error < SCAN_FP32, where


def test_one_device_sends_nothing(results):
    assert results["one"][1] == []


def by_kind_and_origin(sent):
    return {(kind, origin): (count, size) for kind, _, origin, count, size in sent}


def test_what_parts_of_a_window_send_does_not_grow_with_the_length(results):
    sent = results["whole"][1]
    assert sent == results["whole, longer"][1]
    assert results["pieces"][1] == results["pieces, longer"][1]
    # Four pieces x two layers x two directions: what is computed again is not sent again.
    calls, rows, channels, state, shards, halo = 4 * 4, 2, 16, 4, 2, 3
    found = by_kind_and_origin(sent)
    states = shards * rows * channels * state * 4
    steps = shards * rows * channels * 4
    for origin, size in (("forward", states + steps), ("backward", states)):
        assert found["all-gather", f"{origin} all_gather"] == (calls, calls * size)
        edge = rows * halo * channels * 4
        assert found["collective-permute", f"{origin} ppermute"] == (calls, calls * edge)


def test_gradients_are_added_up_once_whatever_the_layers_and_pieces(results):
    """In float32; what every device has whole."""
    sent = results["whole"][1]
    sums = [(shape, count) for kind, shape, origin, count, _ in sent if origin == "forward psum"]
    assert [count for _, count in sums] == [1, 1]
    shapes = "".join(shape for shape, _ in sums)
    assert "f32[2,8,32]" in shapes, "in_proj of both layers"
    assert "f32[16,8]" in shapes, "embedding"


def test_a_layer_gathers_its_parameters_and_scatters_their_gradients(results):
    """Nothing whole is sent: four pieces x two layers, forward and once more for the gradient."""
    sent = results["pieces"][1]
    gathered = {}
    for kind, shape, _, count, _ in sent:
        if kind == "all-gather":
            gathered[shape] = gathered.get(shape, 0) + count
    # in_proj, out_proj and a_log of one layer; never of both.
    for shape, directions in (("f32[8,32]", 1), ("f32[16,8]", 1), ("f32[16,4]", 2)):
        assert gathered[shape] == 2 * 4 * 2 * directions, (shape, gathered)
    assert not [shape for shape in gathered if shape.startswith(("f32[2,8,32]", "f32[2,16,8]"))]
    scattered = {shape: count for kind, shape, _, count, _ in sent if kind == "reduce-scatter"}
    assert scattered["f32[2,32]"] == 4 * 2  # a quarter of in_proj
    whole = [row for row in sent if row[0] == "all-reduce" and row[1].startswith("f32[2,8,32]")]
    assert not whole


@pytest.mark.slow
def test_parts_of_the_channels_add_up_activations_and_exchange_none(divided):
    sent = divided["mixed"][1]
    # Rows x strands x tokens of a device; an activation is at least this times d_model numbers.
    tokens, layers, d_model, parameters = 4 * 2 * 32, 2, 8, 2 * 8 * 32
    unmoved = [size / count for kind, *_, count, size in sent if kind != "all-reduce"]
    assert max(unmoved) <= parameters * 4 < tokens * d_model * 4, "only parameters change hands"
    sums = [row for row in sent if row[0] == "all-reduce"]
    widths = {origin: size / count / tokens / 4 for _, _, origin, count, size in sums}
    # Two directions: rank and two states of each, and what out_proj and in_proj have in common.
    each = 1 + 2 * 4
    assert {count for *_, origin, count, _ in sums if "dot_general" in origin} == {layers}
    assert widths["recomputed dot_general"] == 2 * each
    assert widths["backward dot_general"] == d_model
    assert widths["backward psum"] == d_model + 2 * each


@pytest.mark.slow
def test_every_way_to_divide_eight_devices_is_one_device(capsys):
    """All ordered factorizations; and models that share less."""
    divisions = [
        dict(zip(("fsdp", "sequence", "tensor"), sizes, strict=True))
        for sizes in itertools.product((1, 2, 4, 8), repeat=3)
        if 8 % (sizes[0] * sizes[1] * sizes[2]) == 0
    ]
    assert len(divisions) == 20
    cases = [("ps", parts | {"microbatches": 2}) for parts in divisions]
    cases += [(model, parts) for model in ("untied", "ph") for parts in (MIXED, CHANNELS, PIECES)]
    found = run(
        {model: {"model": model, **ONE} for model in ("ps", "untied", "ph")}
        | {f"{model} {parts}": {"model": model, **parts} for model, parts in cases}
    )
    errors = {
        f"{model} {parts}": worst_error(found[f"{model} {parts}"][0], found[model][0])
        for model, parts in cases
    }
    worst = max(errors, key=errors.get)
    with capsys.disabled():
        print(f"\n{len(cases)} divisions of eight devices, worst: {worst} {errors[worst]}")
    assert errors[worst][0] < SCAN_FP32, worst
