"""A chunk at once, by associative scans of logarithmic depth (Blelloch 1990).

This is for machines with more lanes than a row has channels.
"""

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels.arithmetic import sum_channels, sum_leading, sum_states
from caduceus_jax.kernels.portable.chunk import Chunk, WalkedBack, by_group, decay


def walk(x: Chunk, a, state, *, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the last state visited, and C_t h_t (time, rows, channels)."""
    h, last = _recurrence(*_discretise(x, a), state, reverse)
    return last, sum_states(h, x.c)


def walk_back(x: Chunk, a, state, grad, adjoint, *, reverse: bool) -> WalkedBack:
    """Computes all states of the chunk, and all adjoints.

    Args:
        x: the chunk.
        a: (groups, state, channels).
        state: (rows, state, channels), the state at the end where the recurrence enters the chunk.
        grad: gradient with respect to C_t h_t, (time, rows, channels).
        adjoint: gradient with respect to the state where the recurrence leaves the chunk.
        reverse: the recurrence runs from the last token to the first.
    """
    decays, drive = _discretise(x, a)
    h, _ = _recurrence(decays, drive, state, reverse)
    g, adjoint = _adjoints(decays, x.c[..., None] * grad[..., None, :], adjoint, reverse)
    through_decay = g * (h - drive)  # g_t decay_t h_{t-1}
    through_a = (by_group(a, through_decay) * a[None, None]).reshape(h.shape)
    return WalkedBack(
        adjoint,
        y=None if x.z is None else sum_states(h, x.c),
        drive=sum_states(g, x.b),
        delta=sum_states(through_a, jnp.ones_like(x.b)),
        b=sum_channels(g, x.delta * x.u),
        c=sum_channels(h, grad),
        a=sum_leading(by_group(a, through_decay * x.delta[..., None, :]), 3),
    )


def _discretise(x: Chunk, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns decay and drive (time, rows, state, channels): zero-order hold for A, Euler for B.

    Gu & Dao 2023, equation 4 and section 3.5.1. `a` is (groups, state, channels).
    """
    return decay(x.delta, a, x.restart), x.b[..., None] * (x.delta * x.u)[..., None, :]


def _recurrence(decays, drive, state, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Runs h_t = decay_t h_{t-1} + drive_t from `state`: all h (time, ...), and the last one."""
    decays, local = lax.associative_scan(_compose, (decays, drive), reverse=reverse)
    h = decays * state[None] + local
    return h, h[0 if reverse else -1]


def _adjoints(decays, source, adjoint, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Runs g_t = source_t + decay_{t+1} g_{t+1}, against the direction of the recurrence.

    `adjoint` is decay_{t+1} g_{t+1} as it enters the chunk; it is returned as it leaves it.
    """
    decays, local = lax.associative_scan(_compose, (decays, decays * source), reverse=not reverse)
    after = decays * adjoint[None] + local
    before = (
        jnp.concatenate([adjoint[None], after[:-1]])
        if reverse
        else jnp.concatenate([after[1:], adjoint[None]])
    )
    return source + before, after[-1 if reverse else 0]


def _compose(first, second) -> tuple[jax.Array, jax.Array]:
    """Composes two affine maps h -> decay h + drive, the first one applied first."""
    return first[0] * second[0], second[0] * first[1] + second[1]
