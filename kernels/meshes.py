"""Device meshes, as the types of arrays describe them, inside and outside `jax.shard_map`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# The axis of a mesh over which the scan and the convolution split their channels by themselves.
CHANNELS = "channels"


def varying_axes(x: jax.Array) -> frozenset[str]:
    """Returns the mesh axes over which an array varies inside `jax.shard_map`."""
    return getattr(jax.typeof(x).manual_axis_type, "varying", frozenset())


def vary_over(x: jax.Array, axes: frozenset[str]) -> jax.Array:
    """Casts an array to the type of one that varies over these mesh axes and its own."""
    missing = axes - varying_axes(x)
    return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x


def vary_alike(tree: Any) -> Any:
    """Returns arrays that all vary over the same mesh axes, as the carry of a loop has to.

    The gradient of an array that did not vary is summed over the axes.
    """
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: vary_over(x, axes), tree)


def shape_like(shape: tuple[int, ...], dtype: Any, x: jax.Array) -> jax.ShapeDtypeStruct:
    """Returns the type of a kernel's result that varies over the mesh as x does."""
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def partitioned(
    function: Callable[[Any], Any],
    arrays: Any,
    results: Callable[[Any], Any],
    like: jax.Array,
    channels: Any,
) -> Any:
    """Returns `function(arrays)`, split over the mesh where the compiler cannot split it.

    XLA runs a loop whole on every device. Within a mesh (`jax.set_mesh`) that has an axis called
    "channels", of type Auto, each device of that axis walks over its own channels. On a mesh with
    axes of type Explicit, where every operation has to know how its result is sharded, those axes
    are of type Auto within the function, and its loops are left to XLA's partitioner.

    Args:
        function: takes a tree of arrays.
        arrays: the tree.
        results: called with the partition of `like`, a name of an axis or None for each dimension;
            returns a tree of `PartitionSpec` for what the function returns.
        like: an array, (batch, length, channels).
        channels: a tree like `arrays`: the dimension of the channels of each, -1 where an array
            has none.
    """
    if _splits_channels(like.shape[-1]):
        specs = jax.tree.map(
            lambda x, axis: None if x is None else _split_along(axis, x.ndim),
            arrays,
            channels,
            is_leaf=lambda x: x is None,
        )
        return jax.shard_map(
            function,
            in_specs=(specs,),
            out_specs=results((None, None, CHANNELS)),
            axis_names={CHANNELS},
            check_vma=False,
        )(arrays)
    types = [jax.typeof(x).sharding for x in jax.tree.leaves(arrays)]
    mesh = next((x.mesh for x in types if x.mesh.explicit_axes), None)
    if mesh is None:
        return function(arrays)
    sharding = jax.typeof(like).sharding
    spec = sharding.spec if sharding.mesh.explicit_axes else PartitionSpec()
    spec = (*spec, *(None,) * (like.ndim - len(spec)))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        results(spec),
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.sharding.auto_axes(function, out_sharding=shardings)(arrays)


def _split_along(axis: int, ndim: int) -> PartitionSpec:
    return PartitionSpec(*(CHANNELS if i == axis else None for i in range(ndim)))


def _splits_channels(channels: Any) -> bool:
    """Returns whether the mesh at hand has an axis for so many channels."""
    mesh = jax.sharding.get_abstract_mesh()
    if CHANNELS not in mesh.axis_names or CHANNELS in mesh.manual_axes:
        return False
    size, kind = mesh.shape[CHANNELS], mesh.axis_types[mesh.axis_names.index(CHANNELS)]
    return size > 1 and kind == AxisType.Auto and isinstance(channels, int) and channels % size == 0


def zeros(shape: tuple[Any, ...], dtype: Any, like: jax.Array) -> jax.Array:
    """Returns zeros that vary over the mesh as an array does."""
    return vary_over(jnp.zeros(shape, dtype), varying_axes(like))
