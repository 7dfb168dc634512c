"""The selective scan for TPUs: one fused kernel forward and one backward.

A TPU core is one engine with wide vectors: there is nothing to gain from walking over several
chunks at once, as on a GPU. So the grid is (sequence, block of channels, chunk of tokens) and its
last axis is walked over in order, with the state in fast memory from one chunk to the next. The
state that enters each chunk is all that is kept for the backward pass, which computes the states
of a chunk again and then walks back over it.

This file brings the arrays into the kernels' shapes and back; the kernels are in `forward` and
`backward`, and what both are made of in `program`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.options import MosaicTPU, default_platform
from caduceus_jax.kernels.scan_inputs import (
    ScanInputs,
    check_fused_dtypes,
    once_differentiable,
    sum_groups,
)
from caduceus_jax.kernels.tpu.backward import backward
from caduceus_jax.kernels.tpu.forward import forward
from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES, Plan, default_block, default_chunk

_MOST_STATES = 40  # with more, a chunk does not fit in fast memory beside its states


def scan(
    inputs: ScanInputs, options: MosaicTPU, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs the scan; see `selective_scan` for the arrays.

    Returns:
        y (batch, length, channels) of the dtype of u, and the final state (batch, channels, state).

    Raises:
        NotImplementedError: a dtype or a number of states that the kernels do not have.
        ValueError: the block does not divide the channels.
    """
    check_fused_dtypes(u=inputs.u, delta=inputs.delta, z=inputs.z)
    _, length, channels = inputs.u.shape
    state = inputs.a.shape[-1]
    if state > _MOST_STATES:
        raise NotImplementedError(
            f"{state} states; supported: up to {_MOST_STATES}, or implementation='chunked'"
        )
    padded = _padded(inputs)
    block = options.block or default_block(padded.u.shape[-1])
    if padded.u.shape[-1] % block:
        raise ValueError(
            f"block is {block}; it must divide the channels, {padded.u.shape[-1]} when padded to "
            "whole lanes"
        )
    chunk = options.chunk_length or default_chunk(length, state)
    interpret = options.for_platform(default_platform()).interpret
    plan = Plan(block, chunk, length, delta_softplus, reverse, interpret)
    results: Any = _scan(plan, padded)
    y, final = results
    return y[..., :channels], jnp.swapaxes(final[:, :state, :channels], 1, 2)


def _padded(inputs: ScanInputs) -> ScanInputs:
    """Channels to whole lanes, states to whole sublanes: added ones have A, B, C and u of 0.

    Per-channel arrays become (groups, state, channels) and (groups, 1, channels), states (batch,
    state, channels): what is last fills lanes.
    """
    more_channels = -inputs.u.shape[-1] % LANES
    more_states = -inputs.a.shape[-1] % SUBLANES

    def pad(x):
        return jnp.pad(x, ((0, 0), (0, 0), (0, more_channels)))

    def pad_states(x):
        return jnp.pad(x.astype(jnp.float32), ((0, 0), (0, 0), (0, more_states)))

    def transpose(x):
        return pad(jnp.swapaxes(pad_states(x), 1, 2))

    optional = {
        "d_skip": lambda x: pad(x[:, None].astype(jnp.float32)),
        "delta_bias": lambda x: pad(x[:, None].astype(jnp.float32)),
        "z": pad,
        "initial_state": transpose,
    }
    found = {name: getattr(inputs, name) for name in optional}
    return ScanInputs(
        u=pad(inputs.u),
        delta=pad(inputs.delta),
        a=transpose(inputs.a),
        b=pad_states(inputs.b),
        c=pad_states(inputs.c),
        **{name: None if x is None else optional[name](x) for name, x in found.items()},
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    return forward(plan, inputs, keep=False)[0]


@once_differentiable
def _forward_with_residuals(plan: Plan, inputs: ScanInputs) -> Any:
    return forward(plan, inputs, keep=True)


def _scan_fwd(plan: Plan, inputs: ScanInputs):
    results, initial_states = _forward_with_residuals(plan, inputs)
    return results, (inputs, initial_states)


def _scan_bwd(plan: Plan, residuals, cotangents):
    return (_backward(plan, *residuals, *cotangents),)


_scan.defvjp(_scan_fwd, _scan_bwd)


@once_differentiable
def _backward(plan: Plan, inputs: ScanInputs, initial_states, grad_y, grad_final) -> ScanInputs:
    """Cotangents of the inputs, None where an input is None."""
    grads = backward(plan, inputs, initial_states, grad_y, grad_final)
    summed = grads | {
        "a": sum_groups(grads["a"], inputs.groups),
        "b": jnp.swapaxes(jnp.sum(grads["b"], axis=0), 1, 2),
        "c": jnp.swapaxes(jnp.sum(grads["c"], axis=0), 1, 2),
    }
    for name in ("d_skip", "delta_bias"):
        if name in grads:
            per_group = sum_groups(grads[name], inputs.groups)
            summed[name] = jnp.sum(per_group, axis=1, keepdims=True)
    return inputs.cotangents(summed)
