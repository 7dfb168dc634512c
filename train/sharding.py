"""Where arrays live: one mesh, and one table that places every array by its name."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.errors import UserError

T = TypeVar("T")

# First match wins; names are paths such as "params/caduceus/layers/mixer/fwd/a_log". Models of
# this size fit every device, so all of the state is replicated and only the batch is split.
RULES: tuple[tuple[str, P], ...] = ((r".*", P()),)
BATCH = P("data")


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """The devices, by default all of them, along one axis called `data`."""
    devices = devices or jax.devices()
    # Automatic axes: the compiler spreads the work, and model code names no device.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Makes sure that a batch splits evenly.

    Raises:
        UserError: it does not.
    """
    devices = mesh.shape["data"]
    if batch_size % devices:
        raise UserError(
            f"batch_size is {batch_size}, which {devices} devices cannot share evenly: "
            f"use {-(-batch_size // devices) * devices}"
        )


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
    """Puts this process's rows of a batch on its devices."""
    place = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()
    }
