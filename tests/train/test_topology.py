import importlib.util

import jax
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.topology import GIB, find_topology


def test_cpu_devices_are_those_that_there_are():
    topology = find_topology("cpu:2")
    assert topology.devices == jax.devices()[:2]
    assert topology.platform == "cpu"
    assert topology.memory > GIB / 4
    with pytest.raises(UserError, match="topology is cpu:99, but JAX runs with 4 CPU devices"):
        find_topology("cpu:99")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v5:16x16", "v5e:16x16"),
        ("v5e:16x15", "v5e:16x16"),
        ("v5p:2x2", "v5p:2x2x"),
        ("h100:8", "h200:8"),
        ("cpu:0", "cpu:8"),
        ("v5e", "v5e:"),
    ],
)
def test_devices_that_do_not_exist_are_refused_with_a_near_match(name, near):
    with pytest.raises(UserError, match=f"topology '{name}' is not known; did you mean {near}"):
        find_topology(name)


def test_nothing_like_it_is_answered_with_examples():
    with pytest.raises(UserError, match="such as v5e:16x16, h200:8 or cpu:8"):
        find_topology("abacus")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("v5p:8x8x4", r"pip install 'jax\[tpu\]=="),
        ("h200:8", "pip install --no-deps jax-cuda13-plugin==.* jax-cuda13-pjrt=="),
    ],
)
def test_a_compiler_that_is_missing_is_named_with_how_to_install_it(monkeypatch, name, install):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"needs the .PU compiler: {install}"):
        find_topology(name)
