"""Sums over the states or the channels of a tile, on a TPU."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES, Plan
from caduceus_jax.kernels.tpu.program import ROUND, Round, TokenLoop, slots


def fold_states(x: jax.Array) -> jax.Array:
    """Adds up (state, channels) -> (8, channels), which still have to be summed."""
    parts = [x[i : i + SUBLANES] for i in range(0, len(x), SUBLANES)]
    return functools.reduce(jnp.add, parts)


def fold_lanes(x: jax.Array) -> jax.Array:
    """Sums over channels: (state, channels) -> (state, 1)."""
    parts = [x[:, i : i + LANES] for i in range(0, x.shape[1], LANES)]
    return jnp.sum(functools.reduce(jnp.add, parts), axis=1, keepdims=True)


def sums_of(plan: Plan, *names: str) -> dict[str, Any]:
    """Returns the memory that `Sums` need, by name."""
    memory = pltpu.VMEM((plan.block // LANES, ROUND * SUBLANES, LANES), jnp.float32)
    return {f"{name}{slot}": memory for name in names for slot in range(slots(plan))}


class Sums:
    """Sums over states of a round of tokens.

    A token's eight sublanes are written one below another and read back with a stride, so that
    a register holds one sublane of every token: seven additions are the sums of eight tokens.
    """

    def __init__(self, loop: TokenLoop, name: str, i: Round):
        # (blocks of 128 channels, ROUND x 8, 128): strides need whole lanes.
        self.ref = loop.refs[f"{name}{i.slot}"]

    def put(self, j, x: jax.Array) -> None:
        """Writes (state, channels) of token j of the round."""
        x = fold_states(x)
        for k in range(self.ref.shape[0]):
            lanes = slice(k * LANES, (k + 1) * LANES)
            self.ref[k, pl.ds(j * SUBLANES, SUBLANES), :] = x[:, lanes]

    def take(self) -> jax.Array:
        """Returns the sums, (ROUND, channels)."""
        return jnp.concatenate([self._take(k) for k in range(self.ref.shape[0])], axis=1)

    def _take(self, k: int) -> jax.Array:
        rows = [self.ref.at[k][pl.ds(i, ROUND, stride=SUBLANES), :] for i in range(SUBLANES)]
        return functools.reduce(jnp.add, rows)
