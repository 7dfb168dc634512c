import os
import pathlib
import pickle
import subprocess
import sys

import jax
import pytest

from tests.tolerances import SCAN_FP32, relative_error

# One worker runs what the whole file waits for, once.
pytestmark = pytest.mark.xdist_group("eight devices")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.eight_devices"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


@pytest.mark.parametrize("split", ["2 x 4", "1 x 8"])
def test_a_step_on_eight_devices_is_the_step_on_one(results, split):
    """Loss, gradients and the changed parameters: groups of windows x devices of a window."""
    expected, found = results["one"][0], results[split][0]
    assert expected["metrics"]["loss"] > 1
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True
    ):
        assert abs(one).max() > 0, path
        assert relative_error(other, one) < SCAN_FP32, path


def test_one_device_sends_nothing(results):
    assert results["one"][1] == []


def test_what_is_sent_does_not_grow_with_the_length(results):
    sent = results["2 x 4"][1]
    assert sent == results["longer"]
    # Two layers x two directions, forward and backward: what is computed again is not sent again.
    rows, channels, state, shards, halo, calls = 2, 16, 4, 4, 3, 4
    found = {(kind, origin): (count, size) for kind, _, origin, count, size in sent}
    states = shards * rows * channels * state * 4
    steps = shards * rows * channels * 4
    for origin, size in (("forward", states + steps), ("backward", states)):
        assert found["all-gather", f"{origin} all_gather"] == (calls, calls * size)
        edge = rows * halo * channels * 4
        assert found["collective-permute", f"{origin} ppermute"] == (calls, calls * edge)
    # Beyond these, devices only add up gradients and metrics.
    others = {kind for kind, *_ in sent} - {"all-gather", "collective-permute"}
    assert others == {"all-reduce"}
    assert sum(kind != "all-reduce" for kind, *_ in sent) == 4
