"""Shared parts of the fused kernels of every platform: refusals, derivatives, and `jax.vmap`.

A kernel has a backward kernel and no other derivative; forward mode and second derivatives go
through the portable scan. Under `jax.vmap` all examples are one batch, in one launch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from caduceus_jax.kernels import chunked
from caduceus_jax.kernels.derivatives import differentiable
from caduceus_jax.kernels.meshes import varying_axes
from caduceus_jax.kernels.options import Chunked
from caduceus_jax.kernels.scan_inputs import BETWEEN_CHUNKS, PER_GROUP, ScanInputs, is_known

# What the kernels read and write; the recurrence is float32 in all of them.
_DTYPES = (jnp.float32, jnp.bfloat16)
Inputs = TypeVar("Inputs", bound=NamedTuple)
Forward = Callable[[Any, Any, Any, bool], tuple[Any, Any]]
Backward = Callable[[Any, Any, Any, Any, Any], Any]
Prepare = Callable[[Any, Any], Any]
Operation = Callable[[Any, Any], Any]  # called with the plan and the inputs


class _Prepared(NamedTuple):
    """Holds the inputs of an operation, and what was computed from them beforehand."""

    inputs: Any
    known: Any


def check(interpret: Any, **sequences: jax.Array | None) -> None:
    """Refuses sequences, given by name, that the fused kernels do not read.

    Args:
        interpret: the options' `interpret`.
        sequences: (batch, length, channels).

    Raises:
        NotImplementedError: a dtype is neither float32 nor bfloat16, a size is a symbol, or
            kernels are interpreted where the types of arrays follow the mesh.
    """
    for name, x in sequences.items():
        if x is None:
            continue
        if x.dtype not in _DTYPES:
            raise NotImplementedError(
                f"{name} in {x.dtype}; supported: float32 and bfloat16, or implementation='chunked'"
            )
        if not all(map(is_known, x.shape)):
            raise NotImplementedError(
                f"{name} of shape {x.shape}; supported: sizes that are numbers, or "
                "implementation='chunked'"
            )
        if interpret and varying_axes(x):
            raise NotImplementedError(
                "interpreted kernels inside jax.shard_map with check_vma=True; supported: "
                "check_vma=False, or implementation='chunked'"
            )


def check_scan(inputs: ScanInputs, interpret: Any) -> None:
    """Refuses a scan that the fused kernels do not have.

    Args:
        inputs: the scan's inputs.
        interpret: the options' `interpret`.

    Raises:
        NotImplementedError: a dtype, a size or a mesh as in `check`.
    """
    check(interpret, u=inputs.u, delta=inputs.delta, z=inputs.z)


def fused_scan(forward: Forward, backward: Backward, prepare: Prepare | None = None) -> Operation:
    """Returns the scan that kernels make, differentiable in every way and batched as one.

    Args:
        forward: forward pass for `fused_operation`, called with a plan that has `delta_softplus`
            and `reverse`.
        backward: backward pass for `fused_operation`.
        prepare: conversion of the inputs for `fused_operation`.
    """

    def portable(plan: Any, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
        how = {"delta_softplus": plan.delta_softplus, "reverse": plan.reverse}
        return chunked.scan(inputs, Chunked(), **how)

    return fused_operation(forward, backward, PER_GROUP, portable, prepare)


def fused_operation(
    forward: Forward,
    backward: Backward,
    per_group: tuple[str, ...],
    portable: Operation,
    prepare: Prepare | None = None,
) -> Operation:
    """Returns an operation whose kernels run once for all examples of `jax.vmap`.

    Args:
        forward: called with the plan, the inputs, which are a NamedTuple, what `prepare` returned,
            and whether to return residuals. The first axis of its outputs and residuals is the
            batch.
        backward: called with the plan, the inputs, what `prepare` returned, the residuals and
            cotangents of the outputs; returns cotangents of the inputs.
        per_group: fields of the inputs that have a row for each group instead of each sequence,
            where sequence i is read with row i % groups.
        portable: computes the same outputs by operations that JAX can differentiate.
        prepare: called with the plan and the inputs; returns a tree of arrays whose first axis is
            the batch. They are small: where `jax.checkpoint` keeps them, by the name
            BETWEEN_CHUNKS, this does not run again.
    """

    def folded_forward(plan, prepared, keep):
        def run(inputs, known):
            return forward(plan, inputs, known, keep), None

        return _fold(run, per_group)(*prepared)[0]

    def folded_backward(plan, prepared, residuals, cotangents):
        def run(inputs, rows):
            return None, backward(plan, inputs, *rows)

        rows = prepared.known, residuals, cotangents
        gradients = _fold(run, per_group)(prepared.inputs, rows)[1]
        return _Prepared(gradients, jax.tree.map(lambda _: None, prepared.known))

    def portable_of_prepared(plan: Any, prepared: _Prepared) -> Any:
        return portable(plan, prepared.inputs)

    differentiated = differentiable(folded_forward, folded_backward, portable_of_prepared)

    def operation(plan, inputs):
        if prepare is None:
            return differentiated(plan, _Prepared(inputs, None))
        first = prepare

        def run(inputs, _):
            return first(plan, inputs), None

        # How this depends on the inputs is part of the operation's own derivative.
        known = _fold(run, per_group)(jax.lax.stop_gradient(inputs), ())[0]
        known = checkpoint_name(known, BETWEEN_CHUNKS)
        return differentiated(plan, _Prepared(inputs, known))

    return operation


def _fold(function: Callable[[Inputs, Any], Any], per_group: tuple[str, ...]):
    """Folds `function(inputs, tree of rows) -> tree of rows, gradients of the inputs or None`."""
    folded = jax.custom_batching.custom_vmap(function)

    @folded.def_vmap
    def _(size, is_mapped, inputs, rows):
        inputs, rows = jax.tree.map(
            functools.partial(_mapped, size), (inputs, rows), tuple(is_mapped)
        )
        batch = next(x.shape[1] for name, x in inputs._asdict().items() if name not in per_group)
        groups = getattr(inputs, per_group[0]).shape[1]

        def fold(x):  # (size, batch, ...) -> (size * batch, ...)
            return x.reshape(size * batch, *x.shape[2:])

        def unfold(x):
            return x.reshape(size, batch, *x.shape[1:])

        # A group for each sequence, so that every example has gradients of its own.
        each_row = {
            name: jnp.tile(x, (1, batch // groups, *(1 for _ in x.shape[2:])))
            for name in per_group
            if (x := getattr(inputs, name)) is not None
        }
        whole = jax.tree.map(fold, inputs._replace(**each_row))
        found, gradients = _fold(function, per_group)(whole, jax.tree.map(fold, rows))
        if gradients is not None:
            gradients = jax.tree.map(unfold, gradients)
            summed = {
                name: jnp.sum(x.reshape(size, -1, groups, *x.shape[2:]), axis=1)
                for name in each_row
                if (x := getattr(gradients, name)) is not None
            }
            gradients = gradients._replace(**summed)
        result = jax.tree.map(unfold, found), gradients
        return result, jax.tree.map(lambda _: True, result)

    return folded


def _mapped(size: int, x: jax.Array, is_mapped: bool) -> jax.Array:
    return x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))
