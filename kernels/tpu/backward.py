"""The backward kernel of the selective scan for TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels.scan_inputs import ScanInputs
from caduceus_jax.kernels.tpu.plan import LANES, Plan
from caduceus_jax.kernels.tpu.program import (
    LOG2_E,
    ROUND,
    KernelCall,
    TokenLoop,
    memory_per_round,
    prepared,
    sigmoid,
)
from caduceus_jax.kernels.tpu.sums import Sums, fold_lanes, sums_of

# Sums over states that a round of tokens needs.
_SUMS = ("sums_drive", "sums_decay", "sums_y")


def backward(
    plan: Plan,
    inputs: ScanInputs,
    initial_states: jax.Array,
    grad_y: jax.Array,
    grad_final: jax.Array,
) -> dict[str, jax.Array]:
    """Gradients by name; those of B and C for each block of channels, of A for each sequence,
    of D and the bias for each sequence and sublane.
    """
    extra = {"initial_states": initial_states, "grad_y": grad_y, "grad_final": grad_final}
    call = KernelCall(plan, inputs, backwards=True, **extra)
    optional = ("d_skip", "z", "delta_bias")
    names = ["u", "delta", "b", "c", "a", *(n for n in optional if n in call.arrays)]
    state = call.state
    scratch = prepared(plan, state) | {
        "states": pltpu.VMEM((plan.chunk + 2, state, plan.block), jnp.float32),
    }
    scratch |= memory_per_round(plan, grads=(ROUND, plan.block)) | sums_of(plan, *_SUMS)
    found = call(
        _backward,
        ("u", "delta", "a", "b", "c", "d_skip", "z", "delta_bias", "keeps", *extra),
        (*(f"grad_{name}" for name in names), "grad_initial_state"),
        scratch,
    )
    return {name.removeprefix("grad_"): x for name, x in found.items()}


def _backward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes gradients of a chunk; the initial state's gradient is the adjoint state."""
    loop = TokenLoop(plan, refs, backwards=True)
    totals = [n for n in ("grad_a", "grad_d_skip", "grad_delta_bias") if n in refs]

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        refs["grad_initial_state"][...] = refs["grad_final"][...]
        for name in totals:
            refs[name][...] = jnp.zeros_like(refs[name])

    _recompute(loop)
    zero = jnp.zeros((len(refs["grad_b"]), LANES), jnp.float32)
    carry = refs["grad_initial_state"][...], zero, zero

    def body(i, carry) -> Any:
        """Computes the gradients of one round of tokens."""
        return _round(loop, i, *carry)

    refs["grad_initial_state"][...] = loop.rounds(body, carry, backwards=True)[0]


def _recompute(loop: TokenLoop) -> None:
    """Recomputes the states of the chunk: entry t + 1 is the state after token t."""
    refs = loop.refs
    refs["states"][loop.plan.chunk + 1 if loop.plan.reverse else 0] = refs["initial_states"][...]

    def body(i, h) -> jax.Array:
        """Runs one round of tokens forward again and keeps its states."""
        loop.keep("grads", i, _ungated(loop, i)[0])

        def token(j, h) -> jax.Array:
            h, _ = loop.advance(i, j, h)
            refs["states"][i.number * ROUND + j + 1] = h
            return h

        return loop.tokens(token, h)

    loop.prepared_rounds(body, refs["initial_states"][...])


def _ungated(loop: TokenLoop, i) -> tuple[jax.Array, Any]:
    """Returns the cotangent of y before the gate, and the parts of the gate's gradient."""
    grad = loop.load("grad_y", i)
    if "z" not in loop.refs:
        return grad, None
    z = loop.load("z", i)
    gate = sigmoid(z, loop.plan.interpret)
    return grad * z * gate, grad * gate * (1 + z * (1 - gate))


def _round(
    loop: TokenLoop, i, adjoint: jax.Array, grad_b: jax.Array, grad_c: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes the gradients of a round of tokens, walking against the recurrence.

    Args:
        loop: walk of the program over its chunk.
        i: the round.
        adjoint: gradient with respect to the state after the round.
        grad_b: (state, 128), gradients of the rounds before this one, its neighbour's first.
        grad_c: (state, 128), the same for C.

    Returns:
        The adjoint before the round, and the gradients of B and C with this round's.
    """
    refs, before = loop.refs, 2 if loop.plan.reverse else 0
    sums = {name: Sums(loop, name, i) for name in _SUMS}
    lane = lax.broadcasted_iota(jnp.int32, grad_b.shape, 1)
    # What was found before moves on by a round; this one's takes the lanes that it leaves.
    shift, first = (LANES - ROUND, LANES - ROUND) if loop.plan.reverse else (ROUND, 0)
    grad_b, grad_c = (pltpu.roll(x, shift, 1) for x in (grad_b, grad_c))

    def token(j, carry) -> Any:
        adjoint, grad_a, grad_b, grad_c = carry
        t, a, delta = i.number * ROUND + j, refs["a"][...], loop.row("steps", i, j)
        grad, c = loop.row("grads", i, j), loop.column("c", i, j)
        h = refs["states"][t + 1]
        grad_c = jnp.where(lane == first + j, fold_lanes(h * grad), grad_c)
        # g is the gradient with respect to h_t, along every path through later states.
        g = adjoint + c * grad
        grad_b = jnp.where(lane == first + j, fold_lanes(g * loop.row("drives", i, j)), grad_b)
        sums["sums_drive"].put(j, g * loop.column("b", i, j))
        if "z" in refs:
            sums["sums_y"].put(j, h * c)
        adjoint = loop.restarted(i, j, jnp.exp2(delta * a)) * g
        through_decay = adjoint * refs["states"][t + before]
        sums["sums_decay"].put(j, through_decay * a)
        return adjoint, grad_a + through_decay * delta, grad_b, grad_c

    adjoint, grad_a, grad_b, grad_c = loop.tokens(
        token, (adjoint, refs["grad_a"][...], grad_b, grad_c), backwards=True
    )
    refs["grad_a"][...] = grad_a
    loop.store_columns("grad_b", i, grad_b)
    loop.store_columns("grad_c", i, grad_c)
    _store(loop, i, {name: x.take() for name, x in sums.items() if name != "sums_y" or "z" in refs})
    return adjoint, grad_b, grad_c


def _store(loop: TokenLoop, i, sums: dict[str, jax.Array]) -> None:
    """Writes the gradients of the sequences of a round, of which the sums over states are known."""
    refs, u, grad = loop.refs, loop.load("u", i), loop.kept("grads", i)
    if "z" in refs:
        y = sums["sums_y"]
        if "d_skip" in refs:
            y = y + refs["d_skip"][...] * u
        loop.store("grad_z", i, _ungated(loop, i)[1] * y)
    grad_u = sums["sums_drive"] * loop.kept("steps", i)
    if "d_skip" in refs:
        grad_u = grad_u + refs["d_skip"][...] * grad
        refs["grad_d_skip"][...] += grad * u
    loop.store("grad_u", i, grad_u)
    grad_delta = sums["sums_drive"] * u + sums["sums_decay"] * (1 / LOG2_E)
    if loop.plan.delta_softplus:
        grad_delta = grad_delta * sigmoid(loop.before_softplus(i), loop.plan.interpret)
    grad_delta = loop.mask(i, grad_delta)
    loop.store("grad_delta", i, grad_delta)
    if "delta_bias" in refs:
        refs["grad_delta_bias"][...] += grad_delta
