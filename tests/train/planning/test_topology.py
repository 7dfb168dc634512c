import importlib.util

import jax
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.planning import topology
from caduceus_jax.train.planning.topology import GIB, find_topology


def test_cpu_devices_are_those_that_there_are():
    found = find_topology("cpu:2")
    assert found.devices == jax.devices()[:2]
    assert found.platform == "cpu"
    assert found.memory > GIB / 4
    with pytest.raises(UserError, match="topology is cpu:99, but JAX runs with 4 CPU devices"):
        find_topology("cpu:99")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v5:16x16", "v5e:16x16"),
        ("v5e:16x15", "v5e:16x16"),
        ("v5p:2x2", "v5p:2x2x"),
        ("h300:8", "h200:8"),
        ("cpu:0", "cpu:8"),
        ("v5e", "v5e:"),
    ],
)
def test_devices_that_do_not_exist_are_refused_with_a_near_match(name, near):
    with pytest.raises(UserError, match=f"topology '{name}' is not known; did you mean {near}"):
        find_topology(name)


@pytest.mark.parametrize(
    ("ordered", "shape"),
    [
        ("v5e-256", "v5e:16x16"),
        ("v5e-8", "v5e:2x4"),
        ("v6e-64", "v6e:8x8"),
        # TensorCores, of which a chip has two.
        ("v5p-128", "v5p:4x4x4"),
        ("v5p-8", "v5p:2x2x1"),
        ("v4-16", "v4:2x2x2"),
    ],
)
def test_slices_have_the_names_that_they_are_ordered_by(monkeypatch, ordered, shape):
    monkeypatch.setattr(topology, "_tpus", lambda name, slices: [name] * slices)
    found = find_topology(ordered)
    assert (found.name, found.devices) == (shape, [shape])
    assert found.peaks == topology.PEAKS[shape.partition(":")[0]]
    several = find_topology(f"2x{ordered}")
    assert (several.name, several.devices) == (f"2x{shape}", [shape] * 2)


@pytest.mark.parametrize("name", topology.GPUS)
def test_every_gpu_in_one_machine_and_in_several(monkeypatch, name):
    monkeypatch.setattr(topology, "_gpus", lambda *asked: [asked])
    found = find_topology(f"{name}:8")
    assert found.devices == [(name, 8, 1)] and found.platform == "gpu"
    assert found.memory == topology.GPUS[name].memory * 3 // 4
    assert find_topology(f"4x{name}-8").devices == [(name, 8, 4)]


def test_an_ironwood_has_its_own_name_in_the_compiler(monkeypatch):
    monkeypatch.setattr(topology, "_tpus", lambda name, slices: [name])
    assert find_topology("7x:2x2x1").devices == ["tpu7x:2x2x1"]


def test_counted_devices_too():
    assert find_topology("cpu-2").name == "cpu:2"
    with pytest.raises(UserError, match="topology 'v5e-7' is not known"):
        find_topology("v5e-7")


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
