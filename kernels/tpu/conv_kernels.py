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
    reverse: bool  # where it walks over one direction, from left to right
    both: bool
    silu: bool
    interpret: Any

    @property
    def directions(self) -> int:
        """Reading directions of the convolution."""
        return 1 + self.both

    @property
    def chunks(self) -> int:
        """Chunks of a sequence; the last may reach beyond it."""
        return -(-self.length // self.chunk)


def walking(plan: Plan, *, backwards: bool) -> Callable[[Any], Any]:
    """Returns the chunk that is the k-th to be walked over."""
    descending = plan.reverse != backwards
    return lambda k: plan.chunks - 1 - k if descending else k


class _Tile:
    """A chunk in fast memory, in float32, beside a few tokens before and after it.

    Args:
        ref: (8 + chunk + 8, channels).
        reverse: the reading direction in which tokens are before others.
    """

    def __init__(self, ref: Any, reverse: bool):
        self.ref, self.reverse = ref, reverse
        self.end = ref.shape[0] - HALO

    def put(self, first: int, x: jax.Array) -> None:
        """Writes tokens of the chunk from `first` on."""
        self.ref[pl.ds(HALO + first, x.shape[0]), :] = x

    def put_before(self, x: jax.Array) -> None:
        """Writes the tokens just before the chunk."""
        self.ref[pl.ds(self.end if self.reverse else 0, HALO), :] = x

    def begin(self, *, backwards: bool) -> None:
        """Keeps what is beside the next chunk of the chunk walked over last; zeros if none was."""
        low = self.reverse == backwards
        beside = pl.ds(0 if low else self.end, HALO)

        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            self.ref[beside, :] = jnp.zeros((HALO, self.ref.shape[1]), jnp.float32)

        @pl.when(pl.program_id(2) > 0)
        def _() -> None:
            self.ref[beside, :] = self.ref[pl.ds(self.end - HALO if low else HALO, HALO), :]

    def get(self, first: int, before: int, size: int = _ROUND) -> jax.Array:
        """Returns tokens from `first` on, or those so many tokens before them."""
        start = HALO + first + (before if self.reverse else -before)
        return self.ref[pl.ds(start, size), :]


def forward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes y of a chunk."""
    x, at = _Tile(refs["x_tile"], plan.reverse), _here(plan, backwards=False)
    x.begin(backwards=False)
    x.put(0, _real(plan, refs["x"][...], at * plan.chunk))
    for first in range(0, plan.chunk, _ROUND):
        reach = None
        if "reach" in refs:
            reach = refs["reach"][pl.ds(first, _ROUND), :].astype(jnp.float32)
        taps = [_within(x.get(first, j), j, reach) for j in range(plan.width)]
        y = _convolved(plan, refs, 0, taps)
        y = y * sigmoid(y, plan.interpret) if plan.silu else y
        refs["y"][pl.ds(first, _ROUND), :] = y.astype(refs["y"].dtype)


def backward(plan: Plan, refs: dict[str, Any]) -> None:
    """Computes gradients of a chunk.

    `sums` has rows of each direction: those of the filter, and the bias's.

    The other direction, where there is one, is read against the walk. What it meets after a chunk
    is in memory still; its gradients before SiLU of the tokens before a chunk are computed twice.
    """
    at = _here(plan, backwards=True)
    names = ("x", "grad", "other", "reach")
    tiles = {n: _Tile(refs[f"{n}_tile"], plan.reverse) for n in names if f"{n}_tile" in refs}
    x, reaches = tiles["x"], tiles.get("reach")
    for name, tile in tiles.items():
        if name != "other" and (plan.both or name != "x"):
            tile.begin(backwards=True)
    if reaches is not None:
        reaches.put(0, refs["reach"][...].astype(jnp.float32))
        if plan.both:
            reaches.put_before(_nearest(plan, refs["reach_before"], at))

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        refs["sums"][...] = jnp.zeros_like(refs["sums"])

    x.put(0, _real(plan, refs["x"][...], at * plan.chunk))
    x.put_before(_nearest(plan, refs["x_before"], at))

    def far(first: int, before: int, size: int) -> jax.Array | None:
        """Returns the reach of tokens, or of those before them."""
        return None if reaches is None else reaches.get(first, before, size)

    def before_silu(
        direction: int, first: int, grad: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        """Returns what a direction's filter meets from `first` on, and gradients of the sums."""
        taps, size = [], grad.shape[0]
        for j in range(plan.width):
            # Of two tokens it is the later one that tells whether they are of one segment.
            away, later = (-j, -j) if direction else (j, 0)
            taps.append(_within(x.get(first, away, size), j, far(first, later, size)))
        if plan.silu:
            y = _convolved(plan, refs, direction, taps)
            slope = sigmoid(y, plan.interpret)
            grad = grad * (slope + y * slope * (1 - slope))
        return taps, grad

    rows = plan.width + 1
    sums = [jnp.zeros((SUBLANES, plan.block), jnp.float32)] * (plan.directions * rows)

    def chunk_gradient(direction: int, name: str, first: int) -> jax.Array:
        """Keeps gradients before SiLU of a round, and adds to the sums over tokens."""
        grad = refs[f"{name}_given"][pl.ds(first, _ROUND), :]
        grad = _real(plan, grad, at * plan.chunk + first)
        taps, grad = before_silu(direction, first, grad)
        tiles[name].put(first, grad)
        for row, tap in enumerate(reversed(taps), direction * rows):
            sums[row] = sums[row] + _fold_tokens(grad * tap)
        sums[direction * rows + plan.width] += _fold_tokens(grad)
        return grad

    rounds = range(0, plan.chunk, _ROUND)
    if plan.both:
        given = _nearest(plan, refs["other_before"], at)
        tiles["other"].put_before(before_silu(1, -HALO, given)[1])
        for first in rounds:
            chunk_gradient(1, "other", first)
    for first in rounds if plan.reverse else reversed(rounds):
        here = chunk_gradient(0, "grad", first)
        grad_x = jnp.zeros_like(here)
        for j in range(plan.width):
            after = tiles["grad"].get(first, -j) if j else here
            grad_x = grad_x + _row(plan, refs, 0, j) * _within(after, j, far(first, -j, _ROUND))
            if plan.both:
                other = _within(tiles["other"].get(first, j), j, far(first, 0, _ROUND))
                grad_x = grad_x + _row(plan, refs, 1, j) * other
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


def _real(plan: Plan, x: jax.Array, first: Any) -> jax.Array:
    """Returns the tokens from `first` on in float32, with 0 where there are none."""
    x = x.astype(jnp.float32)
    if plan.length % plan.chunk == 0:  # then all exist
        return x
    token = first + lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(token < plan.length, x, 0.0)


def _convolved(plan: Plan, refs: dict[str, Any], direction: int, taps: list[Any]) -> jax.Array:
    """Computes the convolution of tokens, before SiLU; taps[j] is j tokens away."""
    y = jnp.broadcast_to(refs["bias"][direction], taps[0].shape)
    for j, tap in enumerate(taps):
        y = y + _row(plan, refs, direction, j) * tap
    return y


def _row(plan: Plan, refs: dict[str, Any], direction: int, j: int) -> jax.Array:
    """Returns what a filter has for the token j away, (1, channels)."""
    return refs["weight"][direction, pl.ds(plan.width - 1 - j, 1), :]


def _fold_tokens(x: jax.Array) -> jax.Array:
    """Adds up (tokens, channels) -> (8, channels), which still have to be summed."""
    return functools.reduce(jnp.add, [x[i : i + SUBLANES] for i in range(0, len(x), SUBLANES)])
