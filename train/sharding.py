"""Where arrays live: one mesh, and one table that places every array by its name."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import causal_conv1d, selective_scan, sequence_parallel
from caduceus_jax.kernels.selective_scan import Implementation
from caduceus_jax.mamba import Conv, Scan

T = TypeVar("T")

# First match wins; names are paths such as "params/caduceus/layers/mixer/fwd/a_log". Models of
# this size fit every device, so all of the state is replicated and only the batch is split: its
# windows over `data`, their length over `sequence`.
RULES: tuple[tuple[str, P], ...] = ((r".*", P()),)
BATCH = P("data", "sequence")
# Arguments of the scan and the convolution in order, and where each lives.
_SCAN = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
_CONV = ("x", "weight", "bias")
_ARRAYS = (
    dict.fromkeys(("u", "delta", "B", "C", "z", "x"), BATCH)
    | dict.fromkeys(("A", "D", "delta_bias", "weight", "bias"), P())
    | {"initial_state": P("data")}
)


def make_mesh(devices: Sequence[Any] | None = None, *, sequence: int = 1) -> Mesh:
    """The devices along the axes `data` and `sequence`.

    Args:
        devices: by default all.
        sequence: how many share the length of each window; neighbours, which have the most to say
            to each other, lie next to each other.

    Raises:
        UserError: the devices do not form groups of that size.
    """
    devices = devices or jax.devices()
    if len(devices) % sequence:
        raise UserError(
            f"sequence is {sequence}, but {len(devices)} device{'s' * (len(devices) > 1)} cannot "
            f"form groups of {sequence}"
        )
    # Automatic axes: the compiler spreads the work, and model code names no device.
    return jax.make_mesh(
        (len(devices) // sequence, sequence),
        ("data", "sequence"),
        axis_types=(AxisType.Auto,) * 2,
        devices=devices,
    )


def sharded_scan(mesh: Mesh, implementation: Implementation = None) -> Scan:
    """The selective scan, each device on its own tokens; models take it as their `scan`.

    The compiler cannot split a loop or a kernel by itself. Rows never meet, so nothing is
    communicated between them; shards of a length exchange states (`sequence_parallel`). Gradients
    of the parameters that all share are summed over devices.

    Args:
        mesh: the devices.
        implementation: see `selective_scan`.
    """
    chosen = functools.partial(selective_scan, implementation=implementation)
    if mesh.size == 1:
        return chosen
    if mesh.shape["sequence"] > 1:
        chosen = functools.partial(
            sequence_parallel.selective_scan, implementation=implementation, axis_name="sequence"
        )
    return _sharded(mesh, chosen, _SCAN)


def sharded_conv(mesh: Mesh, implementation: Implementation = None) -> Conv:
    """The causal convolution, each device on its own tokens; models take it as their `conv`.

    Args:
        mesh: the devices.
        implementation: see `causal_conv1d`.
    """
    chosen = functools.partial(causal_conv1d, implementation=implementation)
    if mesh.size == 1:
        return chosen
    if mesh.shape["sequence"] > 1:
        chosen = functools.partial(
            sequence_parallel.causal_conv1d, implementation=implementation, axis_name="sequence"
        )
    return _sharded(mesh, chosen, _CONV)


def _sharded(mesh: Mesh, function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function` on shards of the arrays that its positional arguments are called by."""

    def call(*arrays, **options):
        arguments = dict(zip(names, arrays, strict=False)) | options
        present = {name: x for name, x in arguments.items() if x is not None}
        given = {name: present.pop(name) for name in _ARRAYS if name in present}
        return jax.shard_map(
            lambda given: function(**given, **present),
            mesh=mesh,
            in_specs=({name: _ARRAYS[name] for name in given},),
            out_specs=BATCH,
            check_vma=False,
        )(given)

    return call


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Makes sure that a batch splits evenly.

    Raises:
        UserError: it does not.
    """
    shares, sequence = mesh.shape["data"], mesh.shape["sequence"]
    if batch_size % shares:
        devices = f"{shares} devices" if sequence == 1 else f"{shares} groups of {sequence} devices"
        raise UserError(
            f"batch_size is {batch_size}, which {devices} cannot share evenly: "
            f"use {-(-batch_size // shares) * shares}"
        )


def share_of_rows(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """Which share of each batch's rows a process reads, and how many shares there are.

    Processes that hold parts of the same windows read the same rows.

    Args:
        mesh: the devices.
        process: by default this one.

    Raises:
        UserError: a process holds part of a window that it shares, and others that it does not.
    """
    process = jax.process_index() if process is None else process
    held: dict[int, set[int]] = {}
    for (row, _), device in np.ndenumerate(mesh.devices):
        held.setdefault(device.process_index, set()).add(row)
    shares = sorted({tuple(sorted(rows)) for rows in held.values()})
    if sum(map(len, shares)) != mesh.shape["data"]:
        raise UserError(
            f"sequence is {mesh.shape['sequence']}, with which processes share some windows and "
            f"not others: use a divisor or a multiple of the {len(mesh.local_devices)} devices "
            "of a process"
        )
    return shares.index(tuple(sorted(held[process]))), len(shares)


def path_name(path: tuple[Any, ...]) -> str:
    """("params", "caduceus", "embedding") of a tree path, joined with slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def abstract(init: Callable[[], T], mesh: Mesh) -> T:
    """Shape, type and sharding of every array that `init` would make; nothing is computed."""

    def place(path, leaf):
        name = path_name(path)
        spec = next(spec for rule, spec in RULES if re.fullmatch(rule, name))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(place, jax.eval_shape(init))


def init_sharded(init: Callable[[], T], mesh: Mesh) -> T:
    """Calls `init` so that each array is made where it will live, and nowhere else."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract(init, mesh))
    return jax.jit(init, out_shardings=places)()


def shard_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts this process's share of the rows, (rows, length), on its devices."""
    place = NamedSharding(mesh, BATCH)
    _, shares = share_of_rows(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            place, rows, (shares * len(rows), *rows.shape[1:])
        )
        for name, rows in batch.items()
    }
