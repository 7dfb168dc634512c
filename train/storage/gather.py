"""Brings the state of a run to process 0, which alone writes it, and from there to all devices.

Arrays travel one after the other, in pieces, so that a device needs little more memory than it has
in use. Floats travel as integers of the same size: an addition to zero, by which a collective may
move them, would turn -0.0 into 0.0.
"""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.train import processes

T = TypeVar("T")
Working = Callable[[], AbstractContextManager[Any]]

PIECE_BYTES = 1 << 28


def gather_on_first(state: T, working: Working = contextlib.nullcontext) -> T | None:
    """Copies a state into the memory of process 0; all processes call it together.

    An array of which process 0 has every part on its own devices is read from there. Any other is
    sent to all devices, `PIECE_BYTES` at a time.

    Args:
        state: arrays on the devices of all processes.
        working: opened around each array, as a sign of progress.

    Returns:
        NumPy arrays in process 0, None in the others.
    """
    leaves, form = jax.tree.flatten(state)
    first = processes.index() == 0
    for leaf in leaves if first else ():
        if _is_on_first(leaf):
            for shard in _distinct(leaf):
                shard.data.copy_to_host_async()
    arrays = []
    for leaf in leaves:
        with working():
            arrays.append(_gathered(leaf))
    return jax.tree.unflatten(form, arrays) if first else None


def spread_from_first(state: T | None, like: T, working: Working = contextlib.nullcontext) -> T:
    """Puts a state that process 0 has in memory on the devices of all; the reverse of gathering.

    Args:
        state: NumPy arrays in process 0, None in the others.
        like: shapes, dtypes and shardings of the arrays.
        working: opened around each array, as a sign of progress.

    Returns:
        The state with the values of process 0 and the shardings of `like`.
    """
    wanted, form = jax.tree.flatten(like)
    found = [None] * len(wanted) if state is None else jax.tree.leaves(state)
    arrays = []
    for array, leaf in zip(found, wanted, strict=True):
        with working():
            whole = _received(array, leaf)
            arrays.append(
                jax.make_array_from_callback(leaf.shape, leaf.sharding, whole.__getitem__)
            )
    return jax.tree.unflatten(form, arrays)


def on_host(like: T) -> T:
    """Returns NumPy arrays of the shapes and dtypes of a state; their memory is not yet in use."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)


def _is_on_first(leaf: jax.Array) -> bool:
    """Tells whether process 0 has every part of an array; all processes find the same."""
    places = leaf.sharding.devices_indices_map(leaf.shape)
    own = {str(place) for device, place in places.items() if device.process_index == 0}
    return own == set(map(str, places.values()))


def _distinct(leaf: jax.Array) -> list[Any]:
    """Returns one shard for each part of an array that this process has."""
    return list({str(shard.index): shard for shard in leaf.addressable_shards}.values())


def _gathered(leaf: jax.Array) -> np.ndarray | None:
    """Returns an array in process 0, and None in the others."""
    first, result = processes.index() == 0, None
    if first:
        result = np.empty(leaf.shape, leaf.dtype)
    if _is_on_first(leaf):
        if result is not None:
            for shard in _distinct(leaf):
                result[shard.index] = shard.data
        return result
    mesh: Any = leaf.sharding
    rows = _rows(leaf)
    send = _sender(rows, NamedSharding(mesh.mesh, P()))
    for start in _starts(leaf, rows):
        piece = send(leaf, start).block_until_ready()
        if result is not None:
            part = np.asarray(piece.addressable_data(0))
            result[start : start + rows] = part.view(leaf.dtype)
    return result


def _received(array: Any, leaf: Any) -> np.ndarray:
    """Returns in every process the array that process 0 has."""
    first = array is not None
    result = np.asarray(array) if first else np.empty(leaf.shape, leaf.dtype)
    flat = np.ascontiguousarray(result.reshape(-1) if not leaf.ndim else result)
    rows = _rows(flat)
    for start in _starts(flat, rows):
        part = flat[start : start + rows]
        bits = part.view(_bits(part.dtype))
        came = multihost_utils.broadcast_one_to_all(bits, is_source=first)
        if not first:
            part[...] = np.asarray(came).view(part.dtype)
    return result


def _rows(array: Any) -> int:
    """Returns how many rows of an array are a piece."""
    length = max(array.shape[0], 1)
    row = array.size * array.dtype.itemsize // length
    return min(length, max(PIECE_BYTES // max(row, 1), 1))


def _starts(array: Any, rows: int) -> list[int]:
    """Returns where the pieces begin; all have the same size, so the last two may overlap."""
    length = array.shape[0]
    if not length:
        return []
    return [min(start, length - rows) for start in range(0, length, rows)]


@functools.cache
def _sender(rows: int, everywhere: NamedSharding) -> Callable[[jax.Array, int], jax.Array]:
    """Returns the program that sends so many rows of an array to all devices."""

    def send(leaf: jax.Array, start: jax.Array) -> jax.Array:
        piece = lax.dynamic_slice_in_dim(leaf, start, rows)
        return lax.bitcast_convert_type(piece, _bits(leaf.dtype))

    return jax.jit(send, out_shardings=everywhere)


def _bits(dtype: Any) -> Any:
    """Returns the dtype in which values travel."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return np.dtype(np.bool_)
    return np.dtype(f"uint{8 * np.dtype(dtype).itemsize}")
