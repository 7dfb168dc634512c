"""The selective scan for TPUs: one fused kernel forward and one backward.

A TPU core is one engine with wide vectors: there is nothing to gain from walking over several
chunks at once, as on a GPU. So the grid is (sequence, block of channels, chunk of tokens) and its
last axis is walked over in order, with the state in fast memory from one chunk to the next. The
state that enters each chunk is all that is kept for the backward pass, which computes the states
of a chunk again and then walks back over it.

This file brings the arrays into the kernels' shapes and back; the kernels are in `mosaic_forward`
and `mosaic_backward`, and what both are made of in `mosaic_program`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.gpu.chunk_parallel import once_differentiable
from caduceus_jax.kernels.scan_inputs import ScanInputs

LANES, SUBLANES = 128, 8
# What the compiler's schedule is best with (python -m caduceus_jax.kernels.ahead_of_time.tpu).
_LARGEST_BLOCK, _CHUNK = 512, 256
_MOST_STATES = 40  # with more, a chunk does not fit in fast memory beside its states


@dataclasses.dataclass(frozen=True)
class MosaicTPU:
    """Options of `implementation="mosaic_tpu"`: TPUs, and interpreted anywhere for tests.

    Args:
        block: channels a program walks over, a multiple of 128; None takes the largest of 512,
            384, 256 and 128 that divides the channels.
        chunk_length: tokens a chunk, a multiple of 128; None takes 256, or 128 where the sequence
            is no longer than that.
        interpret: True runs on the backend at hand instead of compiling for a TPU, None does so on
            CPU; or `pltpu.InterpretParams`, which acts out a TPU memory by memory.
    """

    block: int | None = None
    chunk_length: int | None = None
    interpret: Any = None


class Plan(NamedTuple):
    """What is fixed when the call is traced."""

    block: int  # channels of a program
    chunk: int  # tokens of a chunk
    length: int  # tokens of a sequence; the last chunk may reach beyond it
    delta_softplus: bool
    reverse: bool
    interpret: Any


def scan(
    inputs: ScanInputs, options: MosaicTPU, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs the scan; see `selective_scan` for the arrays.

    Returns:
        y (batch, length, channels) of the dtype of u, and the final state (batch, channels, state).

    Raises:
        ValueError: a dtype, a number of states, a block or a chunk that the kernels do not have.
    """
    if inputs.u.dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"u is {inputs.u.dtype}; this implementation takes float32 or bfloat16")
    _, length, channels = inputs.u.shape
    state = inputs.a.shape[-1]
    if state > _MOST_STATES:
        raise ValueError(
            f"A has {state} states; this implementation takes at most {_MOST_STATES}: use 'chunked'"
        )
    padded = _padded(inputs)
    block = options.block or default_block(padded.u.shape[-1])
    if block % LANES or padded.u.shape[-1] % block:
        raise ValueError(
            f"block is {block}; it must be a multiple of 128 that divides the channels, "
            f"{padded.u.shape[-1]} when padded to whole lanes"
        )
    chunk = options.chunk_length or default_chunk(length)
    if chunk < 1 or chunk % LANES:
        raise ValueError(f"chunk_length is {chunk}; it must be a multiple of 128")
    interpret = options.interpret
    if interpret is None:
        interpret = jax.default_backend() == "cpu"
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


def default_block(channels: int) -> int:
    """The largest block that divides the channels, themselves a multiple of 128."""
    return next(n for n in range(_LARGEST_BLOCK, 0, -LANES) if channels % n == 0)


def default_chunk(length: int) -> int:
    """Tokens of a chunk; of a short sequence the whole, rounded up to whole lanes."""
    return min(_CHUNK, -(-length // LANES) * LANES)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    return _forward(plan, inputs, keep=False)[0]


@once_differentiable
def _forward_with_residuals(plan: Plan, inputs: ScanInputs) -> Any:
    return _forward(plan, inputs, keep=True)


def _scan_fwd(plan: Plan, inputs: ScanInputs):
    results, entering = _forward_with_residuals(plan, inputs)
    return results, (inputs, entering)


def _scan_bwd(plan: Plan, residuals, cotangents):
    return (_backward(plan, *residuals, *cotangents),)


_scan.defvjp(_scan_fwd, _scan_bwd)


def _forward(plan: Plan, inputs: ScanInputs, keep: bool):
    """(y, final state), and the states that enter the chunks where they are to be kept."""
    from caduceus_jax.kernels.tpu.forward import forward  # brings Pallas

    return forward(plan, inputs, keep)


@once_differentiable
def _backward(plan: Plan, inputs: ScanInputs, entering, grad_y, grad_final) -> ScanInputs:
    """Cotangents of the inputs, None where an input is None."""
    from caduceus_jax.kernels.tpu.backward import backward

    grads = backward(plan, inputs, entering, grad_y, grad_final)

    def per_group(x):  # (batch, ...) -> (groups, ...)
        return jnp.sum(x.reshape(-1, inputs.groups, *x.shape[1:]), axis=0)

    summed = grads | {
        "a": per_group(grads["a"]),
        "b": jnp.swapaxes(jnp.sum(grads["b"], axis=0), 1, 2),
        "c": jnp.swapaxes(jnp.sum(grads["c"], axis=0), 1, 2),
    }
    for name in ("d_skip", "delta_bias"):
        if name in grads:
            summed[name] = jnp.sum(per_group(grads[name]), axis=1, keepdims=True)
    cotangents: dict[str, Any] = {
        name: None if x is None else summed[name].astype(x.dtype)
        for name, x in inputs._asdict().items()
    }
    return ScanInputs(**cotangents)
