"""The selective scan for TPUs: one fused kernel forward and one backward.

A TPU core is one engine with wide vectors: there is nothing to gain from walking over several
chunks at once, as on a GPU. So the grid is (sequence, block of channels, chunk of tokens) and its
last axis is walked over in order, with the state in fast memory from one chunk to the next. The
state that enters each chunk is all that is kept for the backward pass, which computes the states
of a chunk again and then walks back over it.

This file brings the arrays into the kernels' shapes and back; the kernels are in `forward` and
`backward`, and what both are made of in `program`.
"""

import jax
import jax.numpy as jnp

from caduceus_jax.kernels import fused
from caduceus_jax.kernels.options import MosaicTPU, default_platform
from caduceus_jax.kernels.scan_inputs import ScanInputs, sum_groups
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
    interpret = options.for_platform(default_platform()).interpret
    fused.check_scan(inputs, interpret)
    _, length, channels = inputs.u.shape
    state = inputs.a.shape[-1]
    if state > _MOST_STATES:
        raise NotImplementedError(
            f"{state} states; supported: up to {_MOST_STATES}, or implementation='chunked'"
        )
    whole = channels + -channels % LANES
    block = options.block or default_block(whole)
    if whole % block:
        raise ValueError(
            f"block is {block}; it must divide the channels, {whole} when padded to whole lanes"
        )
    chunk = options.chunk_length or default_chunk(length, state)
    return _scan(Plan(block, chunk, length, delta_softplus, reverse, interpret), inputs)


def _padded(inputs: ScanInputs) -> ScanInputs:
    """Pads channels to whole lanes, states to whole sublanes: A, B, C and u are 0 there.

    Per-channel arrays become (groups, state, channels) and (groups, 1, channels), states (batch,
    state, channels): what is last fills lanes.
    """
    more_channels = -inputs.u.shape[-1] % LANES
    more_states = -inputs.a.shape[-1] % SUBLANES

    def pad(x) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, more_channels)))

    def pad_states(x) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, more_states)))

    def transpose(x) -> jax.Array:
        return pad(jnp.swapaxes(pad_states(x.astype(jnp.float32)), 1, 2))

    def narrow(x):  # as kernels read it
        return x if x.dtype == jnp.bfloat16 else x.astype(jnp.float32)

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
        b=pad_states(narrow(inputs.b)),
        c=pad_states(narrow(inputs.c)),
        **{name: None if x is None else optional[name](x) for name, x in found.items()},
        restart=inputs.restart,
    )


def _forward(plan: Plan, inputs: ScanInputs, known: None, keep: bool):
    """Returns (y, final state), and the initial states of the chunks where they are kept."""
    _, channels, state = inputs.a.shape
    (y, final), initial_states = forward(plan, _padded(inputs), keep)
    return (y[..., :channels], jnp.swapaxes(final[:, :state, :channels], 1, 2)), initial_states


def _backward(plan: Plan, inputs: ScanInputs, known, initial_states, cotangents) -> ScanInputs:
    """Returns the gradients of the inputs, None where an input is None."""
    padded, unpad = jax.vjp(_padded, inputs._replace(restart=None))
    grad_y, grad_final = cotangents
    channels, state = padded.a.shape[2] - inputs.a.shape[1], padded.a.shape[1] - inputs.a.shape[2]
    grad_y = jnp.pad(grad_y, ((0, 0), (0, 0), (0, channels)))
    grad_final = jnp.pad(jnp.swapaxes(grad_final, 1, 2), ((0, 0), (0, state), (0, channels)))
    grads = backward(
        plan, padded._replace(restart=inputs.restart), initial_states, grad_y, grad_final
    )
    summed = grads | {
        "a": sum_groups(grads["a"], inputs.groups),
        "b": jnp.swapaxes(jnp.sum(grads["b"], axis=0), 1, 2),
        "c": jnp.swapaxes(jnp.sum(grads["c"], axis=0), 1, 2),
    }
    for name in ("d_skip", "delta_bias"):
        if name in grads:
            per_group = sum_groups(grads[name], inputs.groups)
            summed[name] = jnp.sum(per_group, axis=1, keepdims=True)
    return unpad(padded.cotangents(summed))[0]


_scan = fused.fused_scan(_forward, _backward)
