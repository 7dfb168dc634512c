"""The kernels of `chunk_parallel` in Pallas: the simple twins of those in Triton.

They are interpreted on any machine, where Triton's need torch, and run on NVIDIA GPUs without
jax-triton.

A program walks over one chunk of one sequence for a block of channels. Its state is a tile (state,
channels) in registers: with one warp a thread owns whole columns of it, so that sums over states
need no exchange between threads, and B and C are loaded once for all channels of the block.

Exponentials are powers of two of A log2(e). A chunk at the ragged end has decay 1 and input 0
past the last token: the time step is 0 after the softplus, not before.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels.gpu import chunk_parallel
from caduceus_jax.kernels.gpu.chunk_parallel import Gradients, Plan
from caduceus_jax.kernels.gpu.layout import KEPT_EVERY, LOG2_E, STATES_A_WARP
from caduceus_jax.kernels.gpu.pallas_program import KernelCall, TokenLoop
from caduceus_jax.kernels.options import PallasTriton
from caduceus_jax.kernels.scan_inputs import ScanInputs

# Channels of a program and tokens of an unrolled round: what fits in registers without spilling.
_FORWARD_BLOCK, _ADJOINT_BLOCK, _GRADIENT_BLOCK = 128, 64, 32
_FORWARD_UNROLL, _BACKWARD_UNROLL = 2, KEPT_EVERY
# Channels of a program and tokens of a round of its loop, for each kernel.
TILES = {
    "summaries": (_FORWARD_BLOCK, _FORWARD_UNROLL),
    "outputs": (_FORWARD_BLOCK, _FORWARD_UNROLL),
    "adjoints": (_ADJOINT_BLOCK, _BACKWARD_UNROLL),
    "gradients": (_GRADIENT_BLOCK, _BACKWARD_UNROLL),
}


def scan(
    inputs: ScanInputs, options: PallasTriton, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs `chunk_parallel.scan` with the kernels of this module."""
    lowering: Any = sys.modules[__name__]
    return chunk_parallel.scan(
        inputs, options, lowering, delta_softplus=delta_softplus, reverse=reverse
    )


def summaries(plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    """Implements `chunk_parallel.Lowering.summaries`."""
    call = KernelCall(plan, inputs, _FORWARD_BLOCK)
    return call(_summaries, ("u", "delta", "b", "restart", "a", "delta_bias"), ("states", "steps"))


def outputs(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, keep_ungated: bool
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Implements `chunk_parallel.Lowering.outputs`."""
    call = KernelCall(plan, inputs, _FORWARD_BLOCK, initial_states=initial_states)
    keep = keep_ungated and inputs.z is not None
    y, final_states, *ungated = call(
        _outputs,
        ("u", "delta", "b", "c", "restart", "a", "d_skip", "z", "delta_bias", "initial_states"),
        ("y", "states", "ungated")[: 3 if keep else 2],
    )
    return y, final_states, ungated[0] if ungated else None


def adjoints(
    plan: Plan, inputs: ScanInputs, initial_states: jax.Array, grad_y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Implements `chunk_parallel.Lowering.adjoints`."""
    call = KernelCall(plan, inputs, _ADJOINT_BLOCK, initial_states=initial_states, grad_y=grad_y)
    return call(
        _adjoints,
        ("u", "delta", "b", "c", "restart", "a", "z", "delta_bias", "initial_states", "grad_y"),
        ("checkpointed_states", "states"),
    )


def gradients(
    plan: Plan,
    inputs: ScanInputs,
    checkpointed_states: jax.Array,
    ungated: jax.Array | None,
    grad_y: jax.Array,
    adjoint: jax.Array,
) -> Gradients:
    """Implements `chunk_parallel.Lowering.gradients`."""
    few = inputs.a.shape[-1] <= STATES_A_WARP
    extra = {
        "checkpointed_states": checkpointed_states,
        "ungated": ungated,
        "grad_y": grad_y,
        "adjoint": adjoint,
    }
    call = KernelCall(plan, inputs, _GRADIENT_BLOCK if few else _GRADIENT_BLOCK // 2, **extra)
    optional = {"z": inputs.z, "d_skip": inputs.d_skip, "delta_bias": inputs.delta_bias}
    names = [n for n in Gradients._fields if n not in optional or optional[n] is not None]
    found = call(
        _gradients,
        ("u", "delta", "b", "c", "restart", "a", "d_skip", "z", "delta_bias", *extra),
        tuple(f"grad_{name}" for name in names),
    )
    every: dict[str, Any] = dict.fromkeys(optional) | dict(zip(names, found, strict=True))
    return Gradients(**every)


def _summaries(loop: TokenLoop, refs: dict[str, Any]) -> None:
    """Computes what leaves the chunk from a zero state, and its summed time steps."""
    a = loop.tile(refs["a"]) * LOG2_E

    def body(i, carry):
        h, steps = carry
        for j in range(_FORWARD_UNROLL):
            t = loop.token(i * _FORWARD_UNROLL + j)
            h, _, delta, _, _ = loop.advance(refs, a, h, t)
            steps = steps + delta
        return h, steps

    start = jnp.zeros_like(a), loop.zeros()
    h, steps = lax.fori_loop(0, loop.chunk // _FORWARD_UNROLL, body, start)
    loop.put_tile(refs["states"], h)
    loop.put_channels_of(refs["steps"], steps)


def _outputs(loop: TokenLoop, refs: dict[str, Any]) -> None:
    """Computes y from the state that enters the chunk, and the state that leaves it."""
    a = loop.tile(refs["a"]) * LOG2_E
    d_skip = loop.channels_of(refs["d_skip"]) if "d_skip" in refs else None

    def token(h, t):
        h, _, _, _, u = loop.advance(refs, a, h, t)
        y = jnp.sum(h * loop.states_at(refs["c"], t)[:, None], axis=0)
        if d_skip is not None:
            y = loop.math.multiply_add(d_skip, u, y)
        if "ungated" in refs:
            loop.put_channels_at(refs["ungated"], t, y)
        if "z" in refs:
            z = loop.channels_at(refs["z"], t)
            y = y * z * loop.math.sigmoid(z)
        loop.put_channels_at(refs["y"], t, y)
        return h

    def body(i, h):
        for j in range(_FORWARD_UNROLL):
            h = token(h, loop.token(i * _FORWARD_UNROLL + j))
        return h

    h = loop.tile(refs["initial_states"])
    loop.put_tile(refs["states"], lax.fori_loop(0, loop.chunk // _FORWARD_UNROLL, body, h))


def _adjoints(loop: TokenLoop, refs: dict[str, Any]) -> None:
    """Computes states of every few tokens, and sum_t (prod_{s <= t} decay_s) C_t dy_t.

    The latter is the gradient with respect to the state that enters the chunk as far as it comes
    from the chunk's own outputs. It is summed in walking order, beside the states: each decay is
    computed once for both.
    """
    a = loop.tile(refs["a"]) * LOG2_E

    def body(i, carry):
        h, product, adjoint = carry
        loop.put_tile(refs["checkpointed_states"], h, i)
        for j in range(_BACKWARD_UNROLL):
            t = loop.token(i * _BACKWARD_UNROLL + j)
            h, decay, _, _, _ = loop.advance(refs, a, h, t)
            product = product * decay
            source = loop.states_at(refs["c"], t)[:, None] * _ungated(loop, refs, t)[0][None, :]
            adjoint = loop.math.multiply_add(product, source, adjoint)
        return h, product, adjoint

    start = loop.tile(refs["initial_states"]), jnp.ones_like(a), jnp.zeros_like(a)
    _, _, adjoint = lax.fori_loop(0, loop.chunk // _BACKWARD_UNROLL, body, start)
    loop.put_tile(refs["states"], adjoint)


def _ungated(loop: TokenLoop, refs: dict[str, Any], t):
    """Returns the cotangent of y before the gate, and the parts of the gate's gradient."""
    grad = loop.channels_at(refs["grad_y"], t)
    if "z" not in refs:
        return grad, None
    z = loop.channels_at(refs["z"], t)
    sigmoid = loop.math.sigmoid(z)
    silu = z * sigmoid
    return grad * silu, (grad, silu, sigmoid)


def _gradients(loop: TokenLoop, refs: dict[str, Any]) -> None:
    """Computes all gradients of the chunk, walking against the recurrence.

    A few tokens at a time: their states forward from the one that was kept, then back.
    """
    a = loop.tile(refs["a"]) * LOG2_E
    d_skip = loop.channels_of(refs["d_skip"]) if "d_skip" in refs else None
    steps = loop.chunk // _BACKWARD_UNROLL

    def body(i, carry):
        i = steps - 1 - i
        h, walked = loop.tile(refs["checkpointed_states"], i), []
        for j in range(_BACKWARD_UNROLL):
            t = loop.token(i * _BACKWARD_UNROLL + j)
            before = h
            h, decay, delta, slope, _ = loop.advance(refs, a, before, t)
            walked.append((t, before, h, delta, slope, decay))
        for token in reversed(walked):
            carry = _token_gradients(loop, refs, a, d_skip, *token, carry=carry)
        return carry

    zero = loop.zeros()
    start = loop.tile(refs["adjoint"]), jnp.zeros_like(a), zero, zero
    adjoint, grad_a, grad_skip, grad_bias = lax.fori_loop(0, steps, body, start)
    loop.put_tile(refs["grad_initial_states"], adjoint)
    loop.put_tile(refs["grad_a"], grad_a)
    if d_skip is not None:
        loop.put_channels_of(refs["grad_d_skip"], grad_skip)
    if "delta_bias" in refs:
        loop.put_channels_of(refs["grad_delta_bias"], grad_bias)


def _token_gradients(
    loop: TokenLoop, refs: dict[str, Any], a, d_skip, t, before, h, delta, slope, decay, carry
):
    """Returns the gradients of one token, which led from state `before` to `h`.

    `carry` is the adjoint beyond it, and the sums over tokens.
    """
    adjoint, grad_a, grad_skip, grad_bias = carry
    add = loop.math.multiply_add
    # Loaded again: as much as is kept of a token is what fits in registers.
    u = loop.channels_at(refs["u"], t)
    b, c = loop.states_at(refs["b"], t), loop.states_at(refs["c"], t)
    grad, gate = _ungated(loop, refs, t)
    if gate is not None:
        grad_y, silu, sigmoid = gate
        y = loop.channels_at(refs["ungated"], t)
        loop.put_channels_at(refs["grad_z"], t, grad_y * y * add(silu, 1 - sigmoid, sigmoid))
    loop.put_states_at(refs["grad_c"], t, jnp.sum(h * grad[None, :], axis=1))
    # g is the gradient with respect to h_t, along every path through later states.
    g = add(c[:, None], grad[None, :], adjoint)
    scaled = delta * u
    loop.put_states_at(refs["grad_b"], t, jnp.sum(g * scaled[None, :], axis=1))
    grad_drive = jnp.sum(g * b[:, None], axis=0)  # with respect to delta_t u_t
    earlier = decay * g
    through_decay = earlier * before
    grad_a = add(through_decay, delta[None, :], grad_a)
    through_a = jnp.sum(through_decay * a, axis=0) * (1 / LOG2_E)
    grad_delta = add(grad_drive, u, through_a)
    if slope is not None:
        grad_delta = grad_delta * slope
    real = loop.real(t)
    if real is not None:
        grad_delta = jnp.where(real, grad_delta, 0.0)
    grad_u = grad_drive * delta
    if d_skip is not None:
        grad_u, grad_skip = add(d_skip, grad, grad_u), add(grad, u, grad_skip)
    loop.put_channels_at(refs["grad_u"], t, grad_u)
    loop.put_channels_at(refs["grad_delta"], t, grad_delta)
    return earlier, grad_a, grad_skip, grad_bias + grad_delta
