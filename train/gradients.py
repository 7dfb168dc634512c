"""Gradients of a batch that is cut: over devices, and into pieces that are computed in turn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from caduceus_jax.train.sharding import BATCH, ROWS, fsdp_spec, manual_axes

Sums = Any  # a tree of arrays, which add up over the parts of a batch


def summed(
    function: Callable[[Any, Any], Sums], mesh: Mesh | None = None
) -> Callable[[Any, Any], Sums]:
    """Makes a function of a batch from one that gives sums over some of its rows and tokens.

    Every device computes its own part, and the parts are added up once, at the end. Parameters
    that `fsdp` splits are split inside too: the model gathers them layer by layer.

    Args:
        function: (params, batch) -> a tree of sums.
        mesh: the devices; by default one.
    """
    return _on_devices(function, mesh, lambda sums, specs, axes: lax.psum(sums, axes), None)


def summed_gradients(
    function: Callable[[Any, Any], tuple[jax.Array, Sums]],
    mesh: Mesh | None = None,
    microbatches: int = 1,
) -> Callable[[Any, Any], tuple[tuple[jax.Array, Sums], Any]]:
    """Makes what `jax.value_and_grad(function, has_aux=True)` gives for a whole batch.

    A device computes its rows in as many pieces as there are microbatches, with the memory of
    one. Gradients of parameters that `fsdp` splits are added up over it layer by layer, each
    device keeping its share; all others, and all over the other axes, once at the end. They have
    the dtype of the parameters, whatever that of the products is.

    Args:
        function: (params, batch) -> (the sum to differentiate, further sums).
        mesh: the devices; by default one.
        microbatches: pieces of a device's rows, which they divide.

    Returns:
        (params, batch) -> ((the sum, further sums), gradients of the sum).
    """
    of_piece = jax.value_and_grad(function, has_aux=True)

    def of_rows(params: Any, batch: Any) -> Any:
        """Adds up over microbatches."""

        def add(sums: Any, piece: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, of_piece(params, piece)), None

        pieces = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
        shapes = jax.eval_shape(of_piece, params, jax.tree.map(lambda x: x[0], pieces))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.scan(add, zeros, pieces)[0]

    def add_up(found: Any, specs: Any, axes: list[str]) -> Any:
        """Adds up over the devices that share a gradient."""
        sums, grads = found

        def of(grad: jax.Array, spec: P) -> jax.Array:
            left = [axis for axis in axes if axis not in spec]
            return lax.psum(grad, left) if left else grad

        # What is added up over the same axes is one collective.
        return lax.psum(sums, axes), jax.tree.map(of, grads, specs)

    return _on_devices(
        of_piece if microbatches == 1 else of_rows, mesh, add_up, lambda specs: (P(), specs)
    )


def _on_devices(
    function: Callable[[Any, Any], Any],
    mesh: Mesh | None,
    add_up: Callable[[Any, Any, list[str]], Any],
    outputs: Callable[[Any], Any] | None,
) -> Callable[[Any, Any], Any]:
    """Runs a function on each device's own rows, tokens and shares of parameters.

    Args:
        function: (params, batch) -> sums.
        mesh: the devices.
        add_up: (sums, how the parameters are split, axes) -> sums over these axes.
        outputs: (how the parameters are split) -> how the results are split; None does not split
            them.
    """
    if mesh is None:
        return function
    cut = [name for name in (*ROWS, "sequence") if mesh.shape[name] > 1]
    if not cut:
        return function

    def call(params: Any, batch: Any) -> Any:
        """Runs the function on each device's part of the batch."""
        specs = jax.tree_util.tree_map_with_path(
            lambda path, leaf: fsdp_spec(path, leaf.shape, mesh), params
        )

        def of_device(params: Any, batch: Any) -> Any:
            return add_up(function(params, batch), specs, cut)

        return jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(specs, BATCH),
            out_specs=P() if outputs is None else outputs(specs),
            axis_names=manual_axes(mesh),
            check_vma=False,
        )(params, batch)

    return call
