"""The causal convolution for TPUs: one kernel forward and one backward.

XLA writes x padded, in float32, once per direction, and shifts it along sublanes again and again.
Here the grid is (sequence, block of channels, chunk of tokens), its last axis walked over in
order, and a chunk lies in fast memory beside the last tokens of its neighbour: a shifted token is
a load from another row. Forward, chunks are walked over in reading order. Backward, they are
walked over against it, with the gradients before SiLU in the place of x; what they are computed
from, the x of a few tokens before the chunk, is read again.

Tokens are counted in reading order: with `reverse` the token j before is at t + j.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from caduceus_jax.kernels.meshes import shape_like
from caduceus_jax.kernels.tpu import conv_kernels
from caduceus_jax.kernels.tpu.conv_kernels import HALO, READ_AGAIN, Plan, walking
from caduceus_jax.kernels.tpu.plan import LANES, SUBLANES, default_block, default_chunk
from caduceus_jax.kernels.tpu.program import VMEM_BYTES


def forward(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    *,
    reach: Sequence[jax.Array] | None,
    reverse: Sequence[bool],
    silu: bool,
    interpret: Any,
) -> tuple[jax.Array, ...]:
    """Runs `causal_conv1d` or `bidirectional_conv1d`.

    Args:
        x: (batch, length, channels), float32 or bfloat16.
        weight: (groups, directions, width, channels).
        bias: (groups, directions, channels).
        reach: number of tokens before each one that are of its segment and met by the filter,
            (batch, length) int32 for each direction; None where sequences are not packed.
        reverse: whether each direction is right to left.
        silu: end with SiLU.
        interpret: run on the backend at hand instead of compiling for a TPU.

    Returns:
        The result of each direction, (batch, length, channels) of the dtype of x.

    Raises:
        NotImplementedError: the filter is wider than the kernel's halo.
    """
    found = []
    for d, backwards in enumerate(reverse):
        each = slice(d, d + 1)
        of_bias, of_reach = bias if bias is None else bias[:, each], reach and reach[d]
        found.append(_forward(x, weight[:, each], of_bias, of_reach, (backwards,), silu, interpret))
    return tuple(found)


def _forward(x, weight, bias, reach, reverse, silu: bool, interpret: Any) -> jax.Array:
    channels = x.shape[2]
    plan, x, weight, bias = _prepare(x, weight, bias, reverse, silu, interpret)
    at = walking(plan, backwards=False)
    found = _call(
        conv_kernels.forward,
        plan,
        inputs={
            "x": (x, _tokens(plan, at)),
            **_filters(plan, weight, bias),
            **_reaches(plan, reach, at),
        },
        outputs={"y": (x.shape, x.dtype, _tokens(plan, at))},
        scratch={"x_tile": plan.block},
    )
    return found["y"][..., :channels]


def gradients(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    grads: Sequence[jax.Array],
    *,
    reach: Sequence[jax.Array] | None,
    reverse: Sequence[bool],
    silu: bool,
    interpret: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of `causal_conv1d` or `bidirectional_conv1d`.

    Args:
        x: (batch, length, channels), float32 or bfloat16.
        weight: (groups, directions, width, channels).
        bias: (groups, directions, channels).
        grads: cotangent of the result of each direction, (batch, length, channels).
        reach: number of tokens before each one that are of its segment and met by the filter,
            (batch, length) int32 for each direction; None where sequences are not packed.
        reverse: whether each direction is right to left.
        silu: the convolution ends with SiLU.
        interpret: run on the backend at hand instead of compiling for a TPU.

    Returns:
        Gradients of x (batch, length, channels) in its dtype, and in float32 of weight (batch,
        directions, width, channels) and of bias (batch, directions, channels), for each sequence.

    Raises:
        NotImplementedError: the filter is wider than the kernel's halo.
    """
    width, channels = weight.shape[2], x.shape[2]
    plan, x, weight, bias = _prepare(x, weight, bias, reverse, silu, interpret)
    given = dict(zip(("grad", "other"), _pad(*grads, channels=plan.channels), strict=False))
    at = walking(plan, backwards=True)
    sums = (plan.batch, plan.directions * (width + 1), SUBLANES, plan.channels)
    per_sequence = pl.BlockSpec((None, *sums[1:3], plan.block), lambda r, i, k: (r, 0, 0, i))
    inputs = {
        "x": (x, _tokens(plan, at)),
        "x_before": (x, _before(plan, at)),
        **_filters(plan, weight, bias),
        **{f"{name}_given": (grad, _tokens(plan, at)) for name, grad in given.items()},
        **_reaches(plan, None if reach is None else reach[0], at),
    }
    if plan.both:
        inputs["other_before"] = (given["other"], _before(plan, at))
        if reach is not None:
            spread, _ = inputs["reach"]
            inputs["reach_before"] = (spread, _before(plan, at, LANES))
    found = _call(
        conv_kernels.backward,
        plan,
        inputs=inputs,
        outputs={
            "grad_x": (x.shape, x.dtype, _tokens(plan, at)),
            "sums": (sums, jnp.float32, per_sequence),
        },
        scratch={"x_tile": plan.block}
        | {f"{name}_tile": plan.block for name in given}
        | ({} if reach is None else {"reach_tile": LANES}),
    )
    summed = jnp.sum(found["sums"], axis=2)[..., :channels]
    summed = summed.reshape(plan.batch, plan.directions, width + 1, channels)
    return found["grad_x"][..., :channels], summed[:, :, :-1], summed[:, :, -1]


def _prepare(x, weight, bias, reverse, silu: bool, interpret: Any) -> tuple[Any, ...]:
    """Returns the plan, and the arrays with channels padded to whole lanes."""
    batch, length, channels = x.shape
    groups, directions, width, _ = weight.shape
    if width > HALO + 1:
        raise NotImplementedError(
            f"a filter of width {width}; supported: up to {HALO + 1}, or implementation='chunked'"
        )
    whole = channels + -channels % LANES
    if bias is None:
        bias = jnp.zeros((groups, directions, channels), jnp.float32)
    plan = Plan(
        *(batch, length, whole, groups, width),
        block=default_block(whole),
        chunk=default_chunk(length),
        reverse=reverse[0],
        both=directions == 2,
        silu=silu,
        interpret=interpret,
    )
    weight, bias = (array.astype(jnp.float32) for array in (weight, bias[:, :, None]))
    return plan, *_pad(x, weight, bias, channels=whole)


def _pad(*arrays: jax.Array, channels: int) -> list[jax.Array]:
    """Pads the last axis of arrays to so many channels."""
    return [jnp.pad(x, (*((0, 0),) * (x.ndim - 1), (0, channels - x.shape[-1]))) for x in arrays]


def _call(
    kernel: Callable[[Plan, dict[str, Any]], None],
    plan: Plan,
    inputs: dict[str, tuple[jax.Array, pl.BlockSpec]],
    outputs: dict[str, tuple[Any, Any, pl.BlockSpec]],
    scratch: dict[str, int],
) -> dict[str, jax.Array]:
    """Runs a kernel on every (sequence, block of channels, chunk).

    Args:
        kernel: called with the plan and the arrays by name.
        plan: sizes, fixed when the call is traced.
        inputs: arrays, each with the part of it that belongs to a program.
        outputs: shapes, dtypes and parts of what it writes.
        scratch: lanes of the memory of each `_Tile`.

    Returns:
        The arrays written, by name.
    """
    names = (*inputs, *outputs, *scratch)
    x, _ = inputs["x"]

    def body(*refs) -> None:
        """Gives the kernel its references by name."""
        kernel(plan, dict(zip(names, refs, strict=True)))

    call = pl.pallas_call(
        body,
        grid=(plan.batch, plan.channels // plan.block, plan.chunks),
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[spec for *_, spec in outputs.values()],
        out_shape=[shape_like(shape, dtype, x) for shape, dtype, _ in outputs.values()],
        scratch_shapes=[
            pltpu.VMEM((plan.chunk + 2 * HALO, lanes), jnp.float32) for lanes in scratch.values()
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_BYTES,
        ),
        interpret=plan.interpret,
        name=f"causal_conv_{kernel.__name__}",
    )
    # A TPU's indices have 32 bits, whatever the program around the kernel computes with.
    with jax.enable_x64(False):
        written = call(*(array for array, _ in inputs.values()))
    return dict(zip(outputs, written, strict=True))


def _tokens(plan: Plan, at: Callable[[Any], Any]) -> pl.BlockSpec:
    """Returns the tokens and channels of a program."""
    return pl.BlockSpec((None, plan.chunk, plan.block), lambda r, i, k: (r, at(k), i))


def _before(plan: Plan, at: Callable[[Any], Any], lanes: int | None = None) -> pl.BlockSpec:
    """Returns the few tokens before those of `_tokens`; where there are none, others."""
    parts = plan.chunk // READ_AGAIN
    last = -(-plan.length // READ_AGAIN) - 1

    def index(r, i, k) -> tuple[Any, Any, Any]:
        part = (at(k) + 1) * parts if plan.reverse else at(k) * parts - 1
        return r, jnp.clip(part, 0, last), 0 if lanes else i

    return pl.BlockSpec((None, READ_AGAIN, lanes or plan.block), index)


def _filters(plan: Plan, weight: Any, bias: Any) -> dict[str, Any]:
    """Returns the filters of a program, each with the array it is in."""

    def at(rows: int) -> pl.BlockSpec:
        """Returns the block of an array with so many rows per group."""
        shape = (None, plan.directions, rows, plan.block)
        return pl.BlockSpec(shape, lambda r, i, k: (r % plan.groups, 0, 0, i))

    return {"weight": (weight, at(plan.width)), "bias": (bias, at(1))}


def _reaches(plan: Plan, reach: jax.Array | None, at: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns `reach` alike in every lane, with the part of a program, where there are segments.

    In bfloat16, which has all numbers up to the width of a filter.
    """
    if reach is None:
        return {}
    spread = jnp.broadcast_to(reach.astype(jnp.bfloat16)[..., None], (*reach.shape, LANES))
    return {
        "reach": (spread, pl.BlockSpec((None, plan.chunk, LANES), lambda r, i, k: (r, at(k), 0)))
    }
