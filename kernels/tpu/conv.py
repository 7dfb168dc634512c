"""The causal convolution for TPUs: one kernel forward and one backward.

XLA writes x padded, in float32, once per direction, and shifts it along sublanes again and again.
Here the grid is (sequence, block of channels, chunk of tokens), its last axis walked over in
order, and a chunk lies in fast memory beside the last tokens of its neighbour: a shifted token is
a load from another row. Forward, chunks are walked over in reading order. Backward, they are
walked over against it, with the gradients before SiLU in the place of x; what they are computed
from, the x of a few tokens before the chunk, is read again.

Tokens are counted in reading order: with `reverse` the token j before is at t + j.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels.meshes import shape_like
from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES, default_block, default_chunk
from caduceus_jax.kernels.tpu.program import VMEM_BYTES, sigmoid

# Rows of a neighbour's tokens: a register, so that the chunk beside them stays aligned. What is
# read again has twice as many, because a register holds so many tokens in bfloat16.
_HALO = SUBLANES
_READ_AGAIN = 2 * SUBLANES
_ROUND = 4 * SUBLANES  # tokens whose sums are computed side by side


class _Plan(NamedTuple):
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


def forward(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    *,
    reverse: bool,
    silu: bool,
    interpret: Any,
) -> jax.Array:
    """Runs `causal_conv1d`.

    Args:
        x: (batch, length, channels), float32 or bfloat16.
        weight: (groups, width, channels).
        bias: (groups, channels).
        reverse: walk right to left.
        silu: end with SiLU.
        interpret: run on the backend at hand instead of compiling for a TPU.

    Returns:
        (batch, length, channels) of the dtype of x.

    Raises:
        NotImplementedError: the filter is wider than the kernel's halo.
    """
    channels = x.shape[2]
    plan, x, weight, bias = _prepare(x, weight, bias, reverse, silu, interpret)
    at = _walking(plan, backwards=False)
    (y,) = _call(
        functools.partial(_forward, plan),
        plan,
        inputs={"x": (x, _tokens(plan, at)), **_filters(plan, weight, bias)},
        outputs=[(x.shape, x.dtype, _tokens(plan, at))],
        scratch=1,
    )
    return y[..., :channels]


def gradients(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    grad: jax.Array,
    *,
    reverse: bool,
    silu: bool,
    interpret: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of `causal_conv1d`.

    Args:
        x: (batch, length, channels), float32 or bfloat16.
        weight: (groups, width, channels).
        bias: (groups, channels).
        grad: cotangent of the result, (batch, length, channels).
        reverse: the convolution walks right to left.
        silu: the convolution ends with SiLU.
        interpret: run on the backend at hand instead of compiling for a TPU.

    Returns:
        Gradients of x (batch, length, channels) in its dtype, and in float32 of weight (batch,
        width, channels) and of bias (batch, channels), for each sequence.

    Raises:
        NotImplementedError: the filter is wider than the kernel's halo.
    """
    channels = x.shape[2]
    plan, x, weight, bias = _prepare(x, weight, bias, reverse, silu, interpret)
    (grad,) = _pad(grad, channels=plan.channels)
    at = _walking(plan, backwards=True)
    sums = (plan.batch, plan.width + 1, SUBLANES, plan.channels)
    per_sequence = pl.BlockSpec((None, *sums[1:3], plan.block), lambda r, i, k: (r, 0, 0, i))
    grad_x, summed = _call(
        functools.partial(_backward, plan),
        plan,
        inputs={
            "x": (x, _tokens(plan, at)),
            "before": (x, _before(plan, at)),
            **_filters(plan, weight, bias),
            "grad": (grad, _tokens(plan, at)),
        },
        outputs=[(x.shape, x.dtype, _tokens(plan, at)), (sums, jnp.float32, per_sequence)],
        scratch=2,
    )
    summed = jnp.sum(summed, axis=2)[..., :channels]
    return grad_x[..., :channels], summed[:, :-1], summed[:, -1]


def _prepare(x, weight, bias, reverse: bool, silu: bool, interpret: Any) -> tuple[Any, ...]:
    """Returns the plan, and the arrays with channels padded to whole lanes."""
    batch, length, channels = x.shape
    groups, width, _ = weight.shape
    if width > _HALO + 1:
        raise NotImplementedError(
            f"a filter of width {width}; supported: up to {_HALO + 1}, or implementation='chunked'"
        )
    whole = channels + -channels % LANES
    if bias is None:
        bias = jnp.zeros((groups, channels), jnp.float32)
    plan = _Plan(
        *(batch, length, whole, groups, width),
        block=default_block(whole),
        chunk=default_chunk(length),
        reverse=reverse,
        silu=silu,
        interpret=interpret,
    )
    weight, bias = (array.astype(jnp.float32) for array in (weight, bias[:, None]))
    return plan, *_pad(x, weight, bias, channels=whole)


def _pad(*arrays: jax.Array, channels: int) -> list[jax.Array]:
    """Pads the last axis of arrays of three axes to so many channels."""
    return [jnp.pad(x, ((0, 0), (0, 0), (0, channels - x.shape[2]))) for x in arrays]


def _call(
    kernel: Any, plan: _Plan, inputs: dict[str, Any], outputs: list[Any], scratch: int
) -> Any:
    """Runs a kernel on every (sequence, block of channels, chunk)."""
    name = kernel.func.__name__
    neighbour = pltpu.VMEM((plan.chunk + _HALO, plan.block), jnp.float32)
    x, _ = inputs["x"]
    call = pl.pallas_call(
        kernel,
        grid=(plan.batch, plan.channels // plan.block, plan.chunks),
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[spec for *_, spec in outputs],
        out_shape=[shape_like(shape, dtype, x) for shape, dtype, _ in outputs],
        scratch_shapes=[neighbour] * scratch,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        interpret=plan.interpret,
        name=f"causal_conv{name}",
    )
    # A TPU's indices have 32 bits, whatever the program around the kernel computes with.
    with jax.enable_x64(False):
        return call(*(array for array, _ in inputs.values()))


def _walking(plan: _Plan, *, backwards: bool) -> Callable[[Any], Any]:
    """Returns the chunk that is the k-th to be walked over."""
    descending = plan.reverse != backwards
    return lambda k: plan.chunks - 1 - k if descending else k


def _tokens(plan: _Plan, at: Callable[[Any], Any]) -> pl.BlockSpec:
    """Returns the tokens and channels of a program."""
    return pl.BlockSpec((None, plan.chunk, plan.block), lambda r, i, k: (r, at(k), i))


def _before(plan: _Plan, at: Callable[[Any], Any]) -> pl.BlockSpec:
    """Returns the few tokens before those of `_tokens`; where there are none, others."""
    parts = plan.chunk // _READ_AGAIN
    last = -(-plan.length // _READ_AGAIN) - 1

    def index(r, i, k) -> tuple[Any, Any, Any]:
        part = (at(k) + 1) * parts if plan.reverse else at(k) * parts - 1
        return r, jnp.clip(part, 0, last), i

    return pl.BlockSpec((None, _READ_AGAIN, plan.block), index)


def _filters(plan: _Plan, weight: Any, bias: Any) -> dict[str, Any]:
    """Returns the filters of a program, each with the array it is in."""

    def at(rows: int) -> pl.BlockSpec:
        """Returns the block of an array with so many rows per group."""
        return pl.BlockSpec((None, rows, plan.block), lambda r, i, k: (r % plan.groups, 0, i))

    return {"weight": (weight, at(plan.width)), "bias": (bias, at(1))}


class _Tile:
    """A chunk in fast memory, in float32, beside a few tokens of its neighbour.

    Args:
        ref: (chunk + 8, channels).
        low: the neighbour's tokens come before the chunk's by position; otherwise after them.
    """

    def __init__(self, ref: Any, *, low: bool):
        self.ref, self.low = ref, low
        self.chunk = ref.shape[0] - _HALO

    def put(self, first: int, x: jax.Array) -> None:
        """Writes tokens of the chunk from `first` on."""
        self.ref[pl.ds(first + (_HALO if self.low else 0), x.shape[0]), :] = x

    def put_neighbour(self, x: jax.Array) -> None:
        """Writes the neighbour's tokens."""
        self.ref[pl.ds(0 if self.low else self.chunk, _HALO), :] = x

    def move_on(self) -> None:
        """Makes the chunk's nearest tokens the neighbour of the chunk that comes next."""
        near = self.chunk if self.low else 0
        self.put_neighbour(self.ref[pl.ds(near, _HALO), :])

    def get(self, first: int, j: int) -> jax.Array:
        """Returns a round of tokens from `first` on, or those j steps closer to the neighbour."""
        start = first + _HALO - j if self.low else first + j
        return self.ref[pl.ds(start, _ROUND), :]


def _forward(plan: _Plan, x_ref, weight_ref, bias_ref, y_ref, scratch) -> None:
    """Computes y of a chunk."""
    x, at = _Tile(scratch, low=not plan.reverse), _here(plan, backwards=False)
    _begin(x)
    x.put(0, _real(plan, x_ref[...], at * plan.chunk))
    for first in range(0, plan.chunk, _ROUND):
        taps = [x.get(first, j) for j in range(plan.width)]
        y = _convolved(plan, weight_ref, bias_ref, taps)
        y = y * sigmoid(y, plan.interpret) if plan.silu else y
        y_ref[pl.ds(first, _ROUND), :] = y.astype(y_ref.dtype)


def _backward(
    plan: _Plan,
    x_ref,
    before_ref,
    weight_ref,
    bias_ref,
    grad_ref,
    grad_x_ref,
    sums_ref,
    x_scratch,
    grad_scratch,
) -> None:
    """Computes gradients of a chunk: the last of `sums` is the bias's, the others the filter's."""
    at = _here(plan, backwards=True)
    x, g = _Tile(x_scratch, low=not plan.reverse), _Tile(grad_scratch, low=plan.reverse)
    _begin(g)

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        sums_ref[...] = jnp.zeros_like(sums_ref)

    x.put(0, _real(plan, x_ref[...], at * plan.chunk))
    x.put_neighbour(_nearest(plan, before_ref, at))
    sums = [jnp.zeros((SUBLANES, plan.block), jnp.float32)] * (plan.width + 1)
    rounds = range(0, plan.chunk, _ROUND)
    for first in rounds if plan.reverse else reversed(rounds):
        taps = [x.get(first, j) for j in range(plan.width)]
        here = grad_ref[pl.ds(first, _ROUND), :]
        here = _real(plan, here, at * plan.chunk + first)
        if plan.silu:
            y = _convolved(plan, weight_ref, bias_ref, taps)
            slope = sigmoid(y, plan.interpret)
            here = here * (slope + y * slope * (1 - slope))
        g.put(first, here)
        grad_x = jnp.zeros_like(here)
        for j, tap in enumerate(taps):
            row = plan.width - 1 - j
            grad_x = grad_x + weight_ref[pl.ds(row, 1), :] * (g.get(first, j) if j else here)
            sums[row] = sums[row] + _fold_tokens(here * tap)
        sums[-1] = sums[-1] + _fold_tokens(here)
        grad_x_ref[pl.ds(first, _ROUND), :] = grad_x.astype(grad_x_ref.dtype)
    for row, total in enumerate(sums):
        sums_ref[row] += total


def _nearest(plan: _Plan, before_ref, at) -> jax.Array:
    """Returns the tokens just before chunk `at`; 0 where there are none."""
    before = before_ref[...].astype(jnp.float32)
    if plan.reverse:  # they come after the chunk by position
        before = _real(plan, before[:_HALO], (at + 1) * plan.chunk)
        return jnp.where(at < plan.chunks - 1, before, 0.0)
    return jnp.where(at > 0, before[_HALO:], 0.0)


def _here(plan: _Plan, *, backwards: bool) -> Any:
    """Returns the chunk of the sequence that a program has."""
    return _walking(plan, backwards=backwards)(pl.program_id(2))


def _begin(tile: _Tile) -> None:
    """Sets the neighbour of the next chunk: the chunk before it, or zeros where there is none."""

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        tile.put_neighbour(jnp.zeros((_HALO, tile.ref.shape[1]), jnp.float32))

    @pl.when(pl.program_id(2) > 0)
    def _() -> None:
        tile.move_on()


def _real(plan: _Plan, x: jax.Array, first: Any) -> jax.Array:
    """Returns the tokens from `first` on in float32, with 0 where there are none."""
    x = x.astype(jnp.float32)
    if plan.length % plan.chunk == 0:  # then all exist
        return x
    token = first + lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(token < plan.length, x, 0.0)


def _convolved(plan: _Plan, weight_ref, bias_ref, taps: list[jax.Array]) -> jax.Array:
    """Computes the convolution of a round, before SiLU; taps[j] is the token j before."""
    y = jnp.broadcast_to(bias_ref[...], taps[0].shape)
    for j, tap in enumerate(taps):
        y = y + weight_ref[pl.ds(plan.width - 1 - j, 1), :] * tap
    return y


def _fold_tokens(x: jax.Array) -> jax.Array:
    """Adds up (tokens, channels) -> (8, channels), which still have to be summed."""
    return functools.reduce(jnp.add, [x[i : i + SUBLANES] for i in range(0, len(x), SUBLANES)])
