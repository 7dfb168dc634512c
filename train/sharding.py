"""Sharding: one mesh, and one table that places every array by its name."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import selective_scan, sequence_parallel
from caduceus_jax.kernels.options import Implementation
from caduceus_jax.model.mamba import CONVOLUTION, Convolution, Scan

T = TypeVar("T")

# What a mesh is made of: `data` and `fsdp` split the windows of a batch, `sequence` their length,
# `tensor` the inner channels. Neighbours, which have the most to say to each other, come last.
AXES: tuple[str, ...] = ("data", "fsdp", "sequence", "tensor")
ROWS = ("data", "fsdp")
BATCH = P(ROWS, "sequence")
# Where parameters live, and what the optimizer keeps of each. First match wins; names are paths
# such as "params/caduceus/layers/mixer/fwd/a_log", whose first axis is the layer. `tensor` splits
# the inner channels, and `fsdp` what is left of a matrix; INNER are channels that `fsdp` splits
# where there is no `tensor`. What an axis does not divide stays whole.
INNER = "inner"
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r".*/in_proj/kernel", (None, "fsdp", "tensor")),
    (r".*/out_proj/kernel", (None, "tensor", "fsdp")),
    (r".*/(x_proj|a_log|d_skip|delta_bias|conv_bias)", (None, INNER)),
    (r".*/(dt_proj|conv_weight)", (None, None, INNER)),
    (r".*/layers/.*/scale", (None, "fsdp")),
    (r".*", ()),
)
# Arguments of the scan and the convolution in order, and where the last axes of each live.
_SCAN = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
_CONV = ("x", "weight", "bias")
_ARRAYS = (
    dict.fromkeys(("u", "delta", "z", "x"), (ROWS, "sequence", "tensor"))
    | dict.fromkeys(("B", "C"), (ROWS, "sequence", None))
    | dict.fromkeys(("D", "delta_bias", "bias"), ("tensor",))
    | {"A": ("tensor", None), "weight": (None, "tensor"), "initial_state": (ROWS, "tensor", None)}
)


def make_mesh(
    devices: Sequence[Any] | None = None, *, fsdp: int = 1, sequence: int = 1, tensor: int = 1
) -> Mesh:
    """Arranges devices along the axes `data`, `fsdp`, `sequence` and `tensor`.

    Devices of one slice (a TPU slice, the GPUs of one machine or NVLink domain, the CPUs of one
    machine) are connected faster than slices are with each other. So `data`, and then `fsdp`, run
    across slices, and `sequence` and `tensor` within them.

    Args:
        devices: the devices; by default all.
        fsdp: number of devices that share parameters and the optimizer's state.
        sequence: number of devices that share the length of each window.
        tensor: number of devices that share the inner channels.

    Returns:
        The mesh; `data` has what the other axes leave.

    Raises:
        UserError: the devices do not form groups of that size.
    """
    devices = list(devices or jax.devices())
    groups = {"fsdp": fsdp, "sequence": sequence, "tensor": tensor}
    size = math.prod(groups.values())
    if len(devices) % size:
        names = " x ".join(name for name, count in groups.items() if count > 1)
        raise UserError(
            f"{names} is {size}, but {len(devices)} device{'s' * (len(devices) > 1)} cannot "
            f"form groups of {size}"
        )
    shape = (len(devices) // size, *groups.values())
    # Automatic axes: the compiler spreads the work, and model code names no device.
    return Mesh(_arranged(devices, shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arranged(devices: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Orders devices for a mesh of this shape, so that its last axes stay within slices.

    Raises:
        UserError: slices are of different sizes.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    if len(slices) == 1:
        return _within_slice(devices, shape)
    parts = [slices[number] for number in sorted(slices)]
    if len({len(part) for part in parts}) > 1:
        sizes = ", ".join(str(len(part)) for part in parts)
        raise UserError(
            f"the machines or slices have {sizes} devices: start the run on machines with equal "
            "numbers of devices"
        )
    data, fsdp, *inner = shape
    across = math.gcd(data, len(parts)), len(parts) // math.gcd(data, len(parts))
    if fsdp % across[1]:
        # Windows or channels are shared by whole slices: neighbours in a slice stay neighbours.
        ordered = [d for part in parts for d in sorted(part, key=lambda d: (d.process_index, d.id))]
        return _objects(ordered).reshape(shape)
    within = (data // across[0], fsdp // across[1], *inner)
    arranged = np.stack([_within_slice(part, within) for part in parts])
    arranged = arranged.reshape(*across, *within)
    # (slices along data, slices along fsdp, data, fsdp, ...) -> each axis with its slices first
    return arranged.transpose(0, 2, 1, 3, *range(4, arranged.ndim)).reshape(shape)


def _within_slice(devices: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Arranges the devices of one slice along its links."""
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def _objects(devices: list[Any]) -> np.ndarray:
    array = np.empty(len(devices), object)
    array[:] = devices
    return array


def manual_axes(mesh: Mesh) -> set[str]:
    """Returns the axes over which a step is cut by hand: all but that of the channels."""
    return {name for name in AXES if name != "tensor" or mesh.shape[name] == 1}


def sharded_scan(mesh: Mesh, implementation: Implementation = None) -> Scan:
    """Returns a selective scan, each device on its own tokens and channels: a model's `scan`.

    The compiler cannot split a loop or a kernel by itself. Rows never meet, so nothing is
    communicated between them, nor do channels; shards of a length exchange states
    (`sequence_parallel`). Gradients of what all share are summed over devices.

    Called where a step is cut by hand already (`gradients.summed`), it cuts what is left.

    Args:
        mesh: the devices.
        implementation: the one that each device runs, by name or as options; None is the default.
    """
    chosen = functools.partial(selective_scan, implementation=implementation)
    if mesh.size == 1:
        return chosen
    if mesh.shape["sequence"] > 1:
        chosen = functools.partial(
            sequence_parallel.selective_scan, implementation=implementation, axis_name="sequence"
        )
    return _sharded(mesh, chosen, _SCAN)


def sharded_conv(mesh: Mesh, implementation: Implementation = None) -> Convolution:
    """Returns a causal convolution, each device on its own tokens and channels: a model's `conv`.

    Args:
        mesh: the devices.
        implementation: the one that each device runs, by name or as options; None is the default.
    """
    chosen = CONVOLUTION
    if mesh.shape["sequence"] > 1:
        chosen = Convolution(
            sequence_parallel.causal_conv1d, sequence_parallel.bidirectional_conv1d
        ).bind(axis_name="sequence")
    chosen = chosen.bind(implementation=implementation)
    if mesh.size == 1:
        return chosen
    each = chosen.one_way, chosen.both_ways
    return Convolution(*(_sharded(mesh, function, _CONV) for function in each))


def _sharded(mesh: Mesh, function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns `function` on shards of its arrays; `names` are those of its positional arguments."""

    def call(*arrays, **options) -> Any:
        """Runs the operation on each device's part of the arrays."""
        arguments = dict(zip(names, arrays, strict=False)) | options
        present = {name: x for name, x in arguments.items() if x is not None}
        given = {name: present.pop(name) for name in _ARRAYS if name in present}
        done = jax.sharding.get_abstract_mesh().manual_axes
        left = set(AXES) - set(done)
        if not left:
            return function(**given, **present)
        return jax.shard_map(
            lambda given: function(**given, **present),
            mesh=None if done else mesh,
            in_specs=({name: _spec(_ARRAYS[name], x.ndim, left) for name, x in given.items()},),
            out_specs=_spec(_ARRAYS[names[0]], 3, left),
            axis_names=left,
            check_vma=False,
        )(given)

    return call


def _spec(last: Sequence[Any], ndim: int, axes: set[str]) -> P:
    """Returns the spec of an array's last axes, as far as they are divided over `axes`."""
    groups = [(name,) if isinstance(name, str) else name or () for name in last]
    cut = [tuple(name for name in group if name in axes) or None for group in groups]
    return P(*[None] * (ndim - len(last)), *cut)


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Makes sure that a batch splits evenly.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    shares, size = row_shares(mesh), mesh.size // row_shares(mesh)
    if batch_size % (shares * microbatches):
        devices = f"{shares} devices" if size == 1 else f"{shares} groups of {size} devices"
        pieces = f" in {microbatches} microbatches" if microbatches > 1 else ""
        whole = shares * microbatches
        raise UserError(
            f"batch_size is {batch_size}, which {devices} cannot share evenly{pieces}: "
            f"use {-(-batch_size // whole) * whole}"
        )


def share_of_rows(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """Returns the share of each batch's rows that a process reads, and how many shares there are.

    Processes that hold parts of the same windows read the same rows.

    Args:
        mesh: the devices.
        process: number of the process; by default this one.

    Raises:
        UserError: a process holds part of a window that it shares, and others that it does not.
    """
    process = jax.process_index() if process is None else process
    groups = mesh.devices.reshape(row_shares(mesh), -1)
    held: dict[int, set[int]] = {}
    for (row, _), device in np.ndenumerate(groups):
        held.setdefault(device.process_index, set()).add(row)
    shares = sorted({tuple(sorted(rows)) for rows in held.values()})
    if sum(map(len, shares)) != len(groups):
        raise UserError(
            f"sequence x tensor is {groups.shape[1]}, with which processes share some windows and "
            f"not others: use a divisor or a multiple of the {len(mesh.local_devices)} devices "
            "of a process"
        )
    return shares.index(tuple(sorted(held[process]))), len(shares)


def row_shares(mesh: Mesh) -> int:
    """Returns over how many devices, or groups of them, the windows of a batch are spread."""
    return math.prod(mesh.shape[name] for name in ROWS)


def path_name(path: tuple[Any, ...]) -> str:
    """Joins a tree path with slashes: "params/caduceus/embedding"."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def abstract(init: Callable[[], T], mesh: Mesh) -> T:
    """Returns shape, type and sharding of every array that `init` would make; computes nothing."""

    def place(path, leaf) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_place(path, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(place, jax.eval_shape(init))


def abstract_batch(batch_size: int, max_length: int, mesh: Mesh) -> dict[str, Any]:
    """Returns shape, type and sharding of the arrays of a batch.

    Args:
        batch_size: rows, over all devices.
        max_length: tokens per row.
        mesh: the devices.
    """
    kinds = {"input_ids": np.int32, "labels": np.int32, "weights": np.float32}
    place = NamedSharding(mesh, BATCH)
    return {
        name: jax.ShapeDtypeStruct((batch_size, max_length), kind, sharding=place)
        for name, kind in kinds.items()
    }


def keep_places(state: T, mesh: Mesh | None) -> T:
    """Keeps, within a compiled step, the returned state sharded as the one it was given."""
    if mesh is None or mesh.size == 1:
        return state
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: lax.with_sharding_constraint(leaf, _place(path, leaf.shape, mesh)), state
    )


def spec_of(name: str, shape: Sequence[int], mesh: Mesh) -> P:
    """Returns the axes of the mesh along which an array is split.

    Args:
        name: path of the array in the training state.
        shape: its whole shape.
        mesh: the devices.
    """
    axes = next(axes for rule, axes in RULES if re.fullmatch(rule, name))
    split: list[str | None] = []
    for axis, size in zip(axes, shape, strict=False):
        if axis == INNER:
            axis = "tensor" if mesh.shape["tensor"] > 1 else "fsdp"
        split.append(None if axis and size % mesh.shape[axis] else axis)
    while split and split[-1] is None:
        split.pop()
    return P(*split)


def fsdp_spec(path: tuple[Any, ...], shape: Sequence[int], mesh: Mesh) -> P:
    """Returns the part of a parameter's `spec_of` that is the axis `fsdp`.

    Args:
        path: the path of the parameter in the model.
        shape: its whole shape.
        mesh: the devices.
    """
    spec = spec_of(f"params/{path_name(path)}", shape, mesh)
    if mesh.shape["fsdp"] == 1:
        return P()
    return P(*(axis if axis == "fsdp" else None for axis in spec))


def gather_layers(params: Any, mesh: Mesh, dtype: Any) -> Callable[[T], T] | None:
    """Makes the function with which a layer gathers its parameters, inside the scan over layers.

    Each device keeps its share of every layer; the whole of one layer is there only while it is
    computed. Matrices are sent in the dtype in which they are multiplied. Their gradients are
    added up and scattered in float32.

    Args:
        params: the parameters of the model, or their shapes.
        mesh: the devices.
        dtype: type of matrix products.

    Returns:
        A function of the parameters of one layer; None if nothing is split.
    """
    axes: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        spec = fsdp_spec(path, leaf.shape, mesh)
        _, found, name = path_name(path).partition("layers/")
        if found and "fsdp" in spec:
            axes[name] = spec.index("fsdp") - 1  # without the axis of the layers
    if not axes:
        return None

    def gather(layer: T) -> T:
        """Gathers the parameters of one layer."""

        def whole(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            name = path_name(path)
            if name not in axes:
                return leaf
            sent = dtype if name.endswith(("kernel", "_proj")) else leaf.dtype
            return _gather(leaf, axes[name], jnp.dtype(sent).name)

        return jax.tree_util.tree_map_with_path(whole, layer)

    return gather


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(shard: jax.Array, axis: int, dtype: str) -> jax.Array:
    """Gathers the shards of an array along one of its axes."""
    return lax.all_gather(shard.astype(dtype), "fsdp", axis=axis, tiled=True)


def _gather_forward(shard: jax.Array, axis: int, dtype: str) -> tuple[jax.Array, None]:
    return _gather(shard, axis, dtype), None


def _gather_backward(axis: int, dtype: str, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    summed = lax.psum_scatter(
        gradient.astype(jnp.float32), "fsdp", scatter_dimension=axis, tiled=True
    )
    return (summed,)


_gather.defvjp(_gather_forward, _gather_backward)


def _place(path: tuple[Any, ...], shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, spec_of(path_name(path), shape, mesh))


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
