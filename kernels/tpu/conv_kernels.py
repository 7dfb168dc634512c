"""The two kernels of the causal convolution for TPUs, each for one chunk of a sequence."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES
from caduceus_jax.kernels.tpu.program import sigmoid

# Rows of a neighbour's tokens: a register, so that the chunk beside them stays aligned. What is
# read again has twice as many, because a register holds so many tokens in bfloat16.
HALO = SUBLANES
READ_AGAIN = 2 * SUBLANES
_ROUND = 4 * SUBLANES  # tokens whose sums are computed side by side


class Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    batch: int
    length: int
    channels: int  # a multiple of 128
    groups: int
    width: int
    block: int  # channels of a program
    chunk: int  # tokens
    reverse: bool
    silu: bool
    interpret: Any

    @property
    def chunks(self) -> int:
        """Chunks of a sequence; the last may reach beyond it."""
        return -(-self.length // self.chunk)


def walking(plan: Plan, *, backwards: bool) -> Callable[[Any], Any]:
    """Returns the chunk that is the k-th to be walked over."""
    descending = plan.reverse != backwards
    return lambda k: plan.chunks - 1 - k if descending else k


class _Tile:
    """A chunk in fast memory, in float32, beside a few tokens of its neighbour.

    Args:
        ref: (chunk + 8, channels).
        low: the neighbour's tokens come before the chunk's by position; otherwise after them.
    """

    def __init__(self, ref: Any, *, low: bool):
        self.ref, self.low = ref, low
        self.chunk = ref.shape[0] - HALO

    def put(self, first: int, x: jax.Array) -> None:
        """Writes tokens of the chunk from `first` on."""
        self.ref[pl.ds(first + (HALO if self.low else 0), x.shape[0]), :] = x

    def put_neighbour(self, x: jax.Array) -> None:
        """Writes the neighbour's tokens."""
        self.ref[pl.ds(0 if self.low else self.chunk, HALO), :] = x

    def move_on(self) -> None:
        """Makes the chunk's nearest tokens the neighbour of the chunk that comes next."""
        near = self.chunk if self.low else 0
        self.put_neighbour(self.ref[pl.ds(near, HALO), :])

    def get(self, first: int, j: int) -> jax.Array:
        """Returns a round of tokens from `first` on, or those j steps closer to the neighbour."""
        start = first + HALO - j if self.low else first + j
        return self.ref[pl.ds(start, _ROUND), :]


def forward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes y of a chunk."""
    x, at = _Tile(refs["x_tile"], low=not plan.reverse), _here(plan, backwards=False)
    _begin(x)
    x.put(0, _real(plan, refs["x"][...], at * plan.chunk))
    for first in range(0, plan.chunk, _ROUND):
        reach = None
        if "reach" in refs:
            reach = refs["reach"][pl.ds(first, _ROUND), :].astype(jnp.float32)
        taps = [_within(x.get(first, j), j, reach) for j in range(plan.width)]
        y = _convolved(plan, refs["weight"], refs["bias"], taps)
        y = y * sigmoid(y, plan.interpret) if plan.silu else y
        refs["y"][pl.ds(first, _ROUND), :] = y.astype(refs["y"].dtype)


def backward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes gradients of a chunk: the last of `sums` is the bias's, the others the filter's."""
    at = _here(plan, backwards=True)
    x, g = _Tile(refs["x_tile"], low=not plan.reverse), _Tile(refs["grad_tile"], low=plan.reverse)
    _begin(g)
    reaches = None
    if "reach" in refs:
        reaches = _Tile(refs["reach_tile"], low=plan.reverse)
        _begin(reaches)
        reaches.put(0, refs["reach"][...].astype(jnp.float32))

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        refs["sums"][...] = jnp.zeros_like(refs["sums"])

    x.put(0, _real(plan, refs["x"][...], at * plan.chunk))
    x.put_neighbour(_nearest(plan, refs["before"], at))
    sums = [jnp.zeros((SUBLANES, plan.block), jnp.float32)] * (plan.width + 1)
    rounds = range(0, plan.chunk, _ROUND)
    for first in rounds if plan.reverse else reversed(rounds):
        reach = [None if reaches is None else reaches.get(first, j) for j in range(plan.width)]
        taps = [_within(x.get(first, j), j, reach[0]) for j in range(plan.width)]
        here = refs["grad"][pl.ds(first, _ROUND), :]
        here = _real(plan, here, at * plan.chunk + first)
        if plan.silu:
            y = _convolved(plan, refs["weight"], refs["bias"], taps)
            slope = sigmoid(y, plan.interpret)
            here = here * (slope + y * slope * (1 - slope))
        g.put(first, here)
        grad_x = jnp.zeros_like(here)
        for j, tap in enumerate(taps):
            row = plan.width - 1 - j
            later = _within(g.get(first, j) if j else here, j, reach[j])
            grad_x = grad_x + refs["weight"][pl.ds(row, 1), :] * later
            sums[row] = sums[row] + _fold_tokens(here * tap)
        sums[-1] = sums[-1] + _fold_tokens(here)
        refs["grad_x"][pl.ds(first, _ROUND), :] = grad_x.astype(refs["grad_x"].dtype)
    for row, total in enumerate(sums):
        refs["sums"][row] += total


def _within(x: jax.Array, j: int, reach: jax.Array | None) -> jax.Array:
    """Returns a round of what joins tokens j apart, and 0 where they are of two segments.

    Args:
        x: (tokens, channels).
        j: distance of the tokens.
        reach: (tokens, 128), how many tokens before the later one are of its segment; None where
            the sequence is one segment.
    """
    if reach is None or j == 0:
        return x
    far = jnp.concatenate([reach] * (x.shape[1] // LANES), axis=1)
    return jnp.where(far >= j, x, 0.0)


def _nearest(plan: Plan, before_ref, at) -> jax.Array:
    """Returns the tokens just before chunk `at`; 0 where there are none."""
    before = before_ref[...].astype(jnp.float32)
    if plan.reverse:  # they come after the chunk by position
        before = _real(plan, before[:HALO], (at + 1) * plan.chunk)
        return jnp.where(at < plan.chunks - 1, before, 0.0)
    return jnp.where(at > 0, before[HALO:], 0.0)


def _here(plan: Plan, *, backwards: bool) -> Any:
    """Returns the chunk of the sequence that a program has."""
    return walking(plan, backwards=backwards)(pl.program_id(2))


def _begin(tile: _Tile) -> None:
    """Sets the neighbour of the next chunk: the chunk before it, or zeros where there is none."""

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        tile.put_neighbour(jnp.zeros((HALO, tile.ref.shape[1]), jnp.float32))

    @pl.when(pl.program_id(2) > 0)
    def _() -> None:
        tile.move_on()


def _real(plan: Plan, x: jax.Array, first: Any) -> jax.Array:
    """Returns the tokens from `first` on in float32, with 0 where there are none."""
    x = x.astype(jnp.float32)
    if plan.length % plan.chunk == 0:  # then all exist
        return x
    token = first + lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(token < plan.length, x, 0.0)


def _convolved(plan: Plan, weight_ref, bias_ref, taps: list[jax.Array]) -> jax.Array:
    """Computes the convolution of a round, before SiLU; taps[j] is the token j before."""
    y = jnp.broadcast_to(bias_ref[...], taps[0].shape)
    for j, tap in enumerate(taps):
        y = y + weight_ref[pl.ds(plan.width - 1 - j, 1), :] * tap
    return y


def _fold_tokens(x: jax.Array) -> jax.Array:
    """Adds up (tokens, channels) -> (8, channels), which still have to be summed."""
    return functools.reduce(jnp.add, [x[i : i + SUBLANES] for i in range(0, len(x), SUBLANES)])
