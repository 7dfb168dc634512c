"""A chunk, token by token: a CPU has nothing to gain from more arithmetic.

Of the states, only those of a chunk's tokens ever leave a core's nearest cache, on the way back.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels.arithmetic import sum_channels, sum_leading, sum_states
from caduceus_jax.kernels.portable.chunk import Chunk, WalkedBack, by_group, decay


def walk(x: Chunk, a, state, *, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the last state visited, and C_t h_t (time, rows, channels)."""

    def step(h, token) -> tuple[jax.Array, jax.Array]:
        """Takes one token into the state and reads it out."""
        delta, drive, b, c, restart = token
        h = _taken(h, a, delta, drive, b, restart)
        return h, sum_states(h[None], c[None])[0]

    tokens = (x.delta, x.delta * x.u, x.b, x.c, x.restart)
    return lax.scan(step, state, tokens, reverse=reverse)


def walk_back(x: Chunk, a, state, grad, adjoint, *, reverse: bool) -> WalkedBack:
    """Walks forwards again for the states, and back with the adjoint.

    Args:
        x: the chunk.
        a: (groups, state, channels).
        state: (rows, state, channels), the state at the end where the recurrence enters the chunk.
        grad: gradient with respect to C_t h_t, (time, rows, channels).
        adjoint: gradient with respect to the state where the recurrence leaves the chunk.
        reverse: the recurrence runs from the last token to the first.
    """

    def forwards(h, token) -> tuple[jax.Array, Any]:
        delta, drive, b, c, restart, grad = token
        h = _taken(h, a, delta, drive, b, restart)
        y = None if x.z is None else sum_states(h[None], c[None])[0]
        return h, (h, y, sum_channels(h[None], grad[None])[0])

    # What several sums share is computed once, behind a barrier: XLA would do so for each.
    drive = x.delta * x.u
    tokens = (x.delta, drive, x.b, x.c, x.restart, grad)
    _, (h, y, grad_c) = lax.scan(forwards, state, tokens, reverse=reverse)

    def through_decay(h, adjoint, delta) -> tuple[jax.Array, jax.Array]:
        """Returns the gradients of delta and A that come through a token's decay.

        They need g_t decay_t h_{t-1}: what enters token t - 1 as its adjoint, times its state.
        """
        product = lax.optimization_barrier(h * adjoint)
        through_a = (by_group(a, product[None]) * a[None, None]).reshape(1, *product.shape)
        return sum_states(through_a, jnp.ones_like(x.b[:1]))[0], product * delta[:, None, :]

    def backwards(carry, token) -> tuple[Any, Any]:
        adjoint, grad_a = carry
        delta, drive, b, c, restart, grad, h, next_delta = token
        grad_delta, more = through_decay(h, adjoint, next_delta)
        g = lax.optimization_barrier(adjoint + c[..., None] * grad[:, None, :])
        results = sum_states(g[None], b[None])[0], sum_channels(g[None], drive[None])[0]
        return (decay(delta, a, restart) * g, grad_a + more), (*results, grad_delta)

    # The token after the last one has had its share, in the chunk that it belongs to.
    first, last = (-1, 0) if reverse else (0, -1)
    after = 1 if reverse else -1
    following = jnp.roll(x.delta, after, axis=0).at[last].set(0)
    (adjoint, grad_a), (grad_drive, grad_b, grad_delta) = lax.scan(
        backwards, (adjoint, jnp.zeros_like(adjoint)), (*tokens, h, following), reverse=not reverse
    )
    grad_first, more = through_decay(state, adjoint, x.delta[first])
    grad_delta = jnp.roll(grad_delta, -after, axis=0).at[first].set(grad_first)
    grad_a = sum_leading(by_group(a, (grad_a + more)[None]), 3)
    return WalkedBack(adjoint, y, grad_drive, grad_delta, grad_b, grad_c, grad_a)


def _taken(h: jax.Array, a: jax.Array, delta, drive, b, restart) -> jax.Array:
    """Takes one token into the state (rows, state, channels)."""
    return decay(delta, a, restart) * h + b[..., None] * drive[:, None, :]
