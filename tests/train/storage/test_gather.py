import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.train.storage import gather as module
from caduceus_jax.train.storage.gather import gather_on_first, on_host, spread_from_first


def state():
    """Arrays of several dtypes, divided among four devices in several ways."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
    weights = np.random.default_rng(0).normal(size=(5, 4, 6)).astype(np.float32)
    weights.ravel()[:3] = -0.0, np.nan, np.inf
    weights.view(np.uint32).ravel()[3] = 0x7FC01234  # a NaN of its own
    places = {
        "layers": (weights, P(None, "x", None)),
        "first axis": (weights[:4], P("y", None, "x")),
        "moments": (weights.astype(jnp.bfloat16), P(None, "x")),
        "whole": (weights, P()),
        "flags": (weights > 0, P(None, "x")),
        "count": (np.int32(7), P()),
        "empty": (np.zeros((0, 3), np.float32), P()),
    }
    return {
        name: jax.device_put(array, NamedSharding(mesh, place))
        for name, (array, place) in places.items()
    }


@pytest.mark.parametrize("own", [True, False], ids=["parts of process 0", "sent to all"])
@pytest.mark.parametrize("size", [1, 200, 1 << 28])
def test_every_bit_comes_and_goes(monkeypatch, own, size):
    monkeypatch.setattr(module, "PIECE_BYTES", size)
    if not own:
        monkeypatch.setattr(module, "_is_on_first", lambda leaf: not leaf.ndim)
    before, worked = state(), []
    found = gather_on_first(before, lambda: worked.append(1) or jax.named_scope("array"))
    assert len(worked) == len(before)
    again = spread_from_first(found, before)
    for name, leaf in before.items():
        for array in (found[name], again[name]):
            assert array.dtype == leaf.dtype and array.shape == leaf.shape, name
            assert np.asarray(array).tobytes() == np.asarray(leaf).tobytes(), name
        assert isinstance(found[name], np.ndarray)
        assert again[name].sharding == leaf.sharding


def test_other_processes_get_nothing_but_take_part(monkeypatch):
    monkeypatch.setattr(module.processes, "index", lambda: 1)
    monkeypatch.setattr(module, "_is_on_first", lambda leaf: False)
    sent = []
    sender = module._sender

    def noted(rows, everywhere):
        sent.append(rows)
        return sender(rows, everywhere)

    monkeypatch.setattr(module, "_sender", noted)
    assert gather_on_first({"a": state()["layers"]}) is None
    assert sent == [5]


def test_the_memory_to_read_into_has_the_form_of_the_state():
    like = state()
    for name, array in on_host(like).items():
        assert isinstance(array, np.ndarray)
        assert (array.shape, array.dtype) == (like[name].shape, like[name].dtype)
