"""Where arrays live: one mesh, and one table that places every array by its name."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import selective_scan
from caduceus_jax.kernels.selective_scan import Implementation
from caduceus_jax.mamba import Scan

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


def sharded_scan(mesh: Mesh, implementation: Implementation = None) -> Scan:
    """The selective scan, each device on its own rows; models take it as their `scan`.

    The compiler cannot split a loop or a kernel by itself. Rows never meet, so nothing is
    communicated; gradients of the parameters that all rows share are summed over devices.

    Args:
        mesh: the devices.
        implementation: see `selective_scan`.
    """
    chosen = functools.partial(selective_scan, implementation=implementation)
    if mesh.size == 1:
        return chosen

    def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, *, initial_state=None, **options):
        shared = {"A": A, "D": D, "delta_bias": delta_bias}
        rows = {"u": u, "delta": delta, "B": B, "C": C, "z": z, "initial_state": initial_state}
        given = {name: x for name, x in (shared | rows).items() if x is not None}
        return jax.shard_map(
            lambda given: chosen(**given, **options),
            mesh=mesh,
            in_specs=({name: P() if name in shared else BATCH for name in given},),
            out_specs=BATCH,
            check_vma=False,
        )(given)

    return scan


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
