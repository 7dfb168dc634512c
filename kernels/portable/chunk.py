"""A chunk of tokens of the portable scan, and what walking over it finds.

Arrays are time-major with channels last, (time, rows, state, channels): channels fill vector lanes,
and every sum over channels or states is a product of small matrices. A row is a sequence of the
batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.arithmetic import exp_of_product


class Chunk(NamedTuple):
    """One chunk of the inputs, time-major, in the dtype of the recurrence."""

    u: jax.Array  # (time, rows, channels)
    pre_delta: jax.Array  # (time, rows, channels): delta + bias, before softplus
    delta: jax.Array  # (time, rows, channels): 0 on padding, so that the state passes unchanged
    b: jax.Array  # (time, rows, state)
    c: jax.Array  # (time, rows, state)
    z: jax.Array | None  # (time, rows, channels)
    real: jax.Array | None  # (time, 1, 1) bool, False on padding; None where there is none
    restart: jax.Array | None  # (time, rows): see `ScanInputs`


class WalkedBack(NamedTuple):
    """What a walk back over one chunk finds; g_t is the gradient with respect to the state h_t."""

    adjoint: jax.Array  # (rows, state, channels): g decay, where the recurrence enters the chunk
    y: jax.Array | None  # (time, rows, channels): C_t h_t, where there is a gate
    drive: jax.Array  # (time, rows, channels): gradient with respect to delta_t u_t
    delta: jax.Array  # (time, rows, channels): gradient with respect to delta_t, through the decay
    b: jax.Array  # (time, rows, state)
    c: jax.Array  # (time, rows, state)
    a: jax.Array  # (groups, state, channels), summed over the chunk


def decay(delta: jax.Array, a: jax.Array, restart: jax.Array | None) -> jax.Array:
    """Returns exp(delta A + restart): (..., rows, channels) times (groups, state, channels)."""
    *lead, rows, channels = delta.shape
    groups, state, _ = a.shape
    by_row = (*lead, rows // groups, groups, 1)
    found = exp_of_product(
        delta.reshape(*by_row, channels),
        jnp.expand_dims(a, range(delta.ndim + 2 - a.ndim)),
        None if restart is None else restart.reshape(*by_row, 1),
    )
    return found.reshape(*lead, rows, state, channels)


def by_group(a: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes (time, rows, ...) to (time, rows / groups, groups, ...)."""
    groups = a.shape[0]
    return x.reshape(x.shape[0], x.shape[1] // groups, groups, *x.shape[2:])
