"""Sums written as matrix products.

XLA's CPU backend loses an order of magnitude on reductions of some shapes, and never on matrix
products; accelerators like either. So the sums on hot paths are products.
"""

import math

import jax
import jax.numpy as jnp


def sum_leading(x: jax.Array, keep: int) -> jax.Array:
    """Sums over all axes but the last `keep`."""
    rest = x.shape[x.ndim - keep :]
    flat = x.reshape(-1, math.prod(rest))
    return jnp.dot(jnp.ones(flat.shape[0], x.dtype), flat, precision="highest").reshape(rest)


def sum_length(x: jax.Array) -> jax.Array:
    """Sums over the length: (rows, length, channels) -> (rows, channels)."""
    ones = jnp.ones(x.shape[:2], x.dtype)
    return jnp.einsum("rlc,rl->rc", x, ones, precision="highest")


def sum_states(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Sums over states: (t, rows, state, channels), (t, rows, state) -> (t, rows, channels)."""
    return jnp.einsum("trnd,trn->trd", x, weight, precision="highest")


def sum_channels(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Sums over channels: (t, rows, state, channels), (t, rows, channels) -> (t, rows, state)."""
    return jnp.einsum("trnd,trd->trn", x, weight, precision="highest")
