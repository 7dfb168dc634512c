"""Gradients of a batch that is cut: over devices, and into pieces that are computed in turn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from caduceus_jax.train.sharding import BATCH, ROWS, manual_axes

Sums = Any  # a tree of arrays, which add up over the parts of a batch


def summed(
    function: Callable[[Any, Any], Sums], mesh: Mesh | None = None
) -> Callable[[Any, Any], Sums]:
    """A function of a batch, from one that gives sums over some of its rows and tokens.

    Every device computes its own part, and what all of them found is added up once, at the end.

    Args:
        function: (params, batch) -> a tree of sums.
        mesh: the devices; by default one.
    """
    if mesh is None:
        return function
    cut = [name for name in (*ROWS, "sequence") if mesh.shape[name] > 1]
    if not cut:
        return function

    def of_device(params, batch):
        return lax.psum(function(params, batch), cut)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(P(), BATCH),
        out_specs=P(),
        axis_names=manual_axes(mesh),
        check_vma=False,
    )


def summed_gradients(
    function: Callable[[Any, Any], tuple[jax.Array, Sums]],
    mesh: Mesh | None = None,
    microbatches: int = 1,
) -> Callable[[Any, Any], tuple[tuple[jax.Array, Sums], Any]]:
    """What `jax.value_and_grad(function, has_aux=True)` gives for a whole batch.

    A device computes its rows in as many pieces as there are microbatches, with the memory of
    one. Neither layers nor pieces send gradients of their own: devices add them up once, in the
    dtype of the parameters, whatever that of the products is.

    Args:
        function: (params, batch) -> (the sum to differentiate, further sums).
        mesh: the devices; by default one.
        microbatches: pieces of a device's rows, which they divide.

    Returns:
        (params, batch) -> ((the sum, further sums), gradients of the sum).
    """
    of_piece = jax.value_and_grad(function, has_aux=True)
    if microbatches == 1:
        return summed(of_piece, mesh)

    def of_rows(params, batch):
        def add(sums, piece):
            return jax.tree.map(jnp.add, sums, of_piece(params, piece)), None

        pieces = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
        shapes = jax.eval_shape(of_piece, params, jax.tree.map(lambda x: x[0], pieces))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.scan(add, zeros, pieces)[0]

    return summed(of_rows, mesh)
