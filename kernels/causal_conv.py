"""Causal depthwise convolution, in either reading direction or both at once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from caduceus_jax.kernels import fused
from caduceus_jax.kernels.arithmetic import sum_length
from caduceus_jax.kernels.derivatives import differentiable
from caduceus_jax.kernels.meshes import partitioned, vary_alike
from caduceus_jax.kernels.options import Implementation, default_platform, load, resolve
from caduceus_jax.kernels.scan_inputs import (
    checked_array,
    is_known,
    segment_starts,
    sum_groups,
    widened,
)


def causal_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "*groups width channels"],
    bias: Float[Array, "*groups channels"] | None = None,
    *,
    reverse: bool = False,
    silu: bool = True,
    segment_ids: Int[Array, "batch length"] | None = None,
    initial_state: Float[Array, "batch halo channels"] | None = None,
    implementation: Implementation = None,
) -> Float[Array, "batch length channels"]:
    """Convolves each channel with its own short filter, then applies SiLU.

    Left to right, `y[t] = bias + sum_k weight[width - 1 - k] * x[t - k]`: the last row of `weight`
    meets the current token, and tokens before the first count as zero (Gu & Dao 2023, figure 3).

    Args:
        x: (batch, length, channels).
        weight: (width, channels), or (groups, width, channels): sequence i of the batch is then
            read with filter i % groups.
        bias: (channels,), or (groups, channels).
        reverse: walk right to left: `x[t + k]` in place of `x[t - k]`. Nothing is flipped.
        silu: apply `y * sigmoid(y)`.
        segment_ids: (batch, length) integers for packed sequences: where the number changes from
            one token to the next, another sequence begins, and tokens of one do not reach the
            other. None is one sequence per row.
        initial_state: the width - 1 tokens beyond the edge where the walk begins, (batch,
            width - 1, channels), in the order of the sequence: those to the left of x, or to the
            right of it with `reverse`. They belong to the segment of the token beside them. Zeros
            by default.
        implementation: name or options, as for `selective_scan`. With "triton" the backward pass is
            one kernel for NVIDIA GPUs, which reads and writes every array once; with "mosaic_tpu"
            both passes are kernels for TPUs; with every other one they are XLA's.

    Returns:
        (batch, length, channels) of the dtype of `x`; summed in at least float32.

    Raises:
        ValueError: a dtype is not a real floating-point one, or shapes do not fit; the message
            names the argument.
        NotImplementedError: the implementation has no kernel for the dtype of x.
    """
    inputs, length = _inputs(x, weight, bias, segment_ids, initial_state, reverse)
    (y,) = _run(inputs, (reverse,), silu, implementation)
    return _cut(y, length, reverse)


def causal_conv1d_with_state(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "*groups width channels"],
    bias: Float[Array, "*groups channels"] | None = None,
    *,
    reverse: bool = False,
    silu: bool = True,
    segment_ids: Int[Array, "batch length"] | None = None,
    initial_state: Float[Array, "batch halo channels"] | None = None,
    implementation: Implementation = None,
) -> tuple[Float[Array, "batch length channels"], Float[Array, "batch halo channels"]]:
    """Runs `causal_conv1d`, and returns what the next piece of a long sequence needs too.

    A sequence that is convolved piece by piece, each with the final state of the one walked over
    before it as its initial state, gives the numbers of one call. All arguments are those of
    `causal_conv1d`.

    Returns:
        y (batch, length, channels) of the dtype of `x`, and the final state (batch, width - 1,
        channels) of that dtype: the last tokens walked over, in the order of the sequence, zero
        where they belong to an earlier segment than the last of them.
    """
    inputs, length = _inputs(x, weight, bias, segment_ids, initial_state, reverse)
    (y,) = _run(inputs, (reverse,), silu, implementation)
    return _cut(y, length, reverse), _final_state(inputs, reverse)


def bidirectional_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "2 *groups width channels"],
    bias: Float[Array, "2 *groups channels"] | None = None,
    *,
    silu: bool = True,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> tuple[Float[Array, "batch length channels"], Float[Array, "batch length channels"]]:
    """Runs `causal_conv1d` on the same x in both reading directions, each with its own filters.

    The results are those of two calls. Backward, the gradient of x is that of both: where the
    convolution has a kernel, one walk reads x once and adds both directions up in registers.

    Args:
        x: (batch, length, channels).
        weight: (2, width, channels), or (2, groups, width, channels): the filters that walk left
            to right, then those that walk right to left.
        bias: (2, channels), or (2, groups, channels).
        silu: apply `y * sigmoid(y)`.
        segment_ids: (batch, length) integers for packed sequences, as for `causal_conv1d`.
        implementation: name or options, as for `causal_conv1d`.

    Returns:
        y of the walk left to right, and of the walk right to left: each (batch, length, channels)
        of the dtype of `x`.

    Raises:
        ValueError: a dtype is not a real floating-point one, or shapes do not fit; the message
            names the argument.
        NotImplementedError: the implementation has no kernel for the dtype of x.
    """
    for name, array in {"weight": weight, "bias": bias}.items():
        if array is not None and jnp.shape(array)[:1] != (2,):
            raise ValueError(
                f"{name} has shape {jnp.shape(array)}; its first axis is the 2 directions"
            )
    biases = (None, None) if bias is None else bias
    one, other = (_inputs(x, *each, segment_ids)[0] for each in zip(weight, biases, strict=True))
    inputs = jax.tree.map(lambda *both: jnp.concatenate(both, axis=1), one, other)
    return _run(inputs._replace(x=one.x, runs=one.runs), (False, True), silu, implementation)


class _Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    reverse: tuple[bool, ...]  # for each direction
    silu: bool
    kernels: str | None  # the module of the fused kernels; None: both passes are XLA's
    interpret: Any  # of the fused kernels


class _Inputs(NamedTuple):
    x: jax.Array  # (batch, length, channels)
    weight: jax.Array  # (groups, directions, width, channels)
    bias: jax.Array | None  # (groups, directions, channels)
    runs: jax.Array | None  # (batch, length): number of the segment in walking order


# The dimension of the channels of each array.
_CHANNEL_AXES = _Inputs(x=2, weight=3, bias=2, runs=-1)


def _inputs(
    x, weight, bias, segment_ids, initial_state=None, reverse: bool = False
) -> tuple[_Inputs, Any]:
    """Returns what to convolve, the initial state joined to x; and the length of x alone."""
    x, weight, bias, initial_state = check(x, weight, bias, initial_state)
    length, runs = x.shape[1], None
    if segment_ids is not None:
        starts = segment_starts(segment_ids, x.shape[:2], reverse)
        runs = lax.cumsum(starts.astype(jnp.int32), axis=1, reverse=reverse)
    if initial_state is not None:
        x = jnp.concatenate([x, initial_state] if reverse else [initial_state, x], axis=1)
        # The initial state belongs to the first segment, number 0.
        runs = None if runs is None else _pad(runs, weight.shape[1] - 1, reverse)
    bias = None if bias is None else bias[:, None]
    return _Inputs(x, weight[:, None], bias, runs), length


def _run(
    inputs: _Inputs, reverse: tuple[bool, ...], silu: bool, implementation: Implementation
) -> tuple[jax.Array, ...]:
    """Returns the result of every direction."""
    options = resolve(implementation, inputs.x).for_platform(default_platform())
    # Without an element there is nothing for a kernel to do.
    kernels = options.convolution if 0 not in inputs.x.shape else None
    interpret = getattr(options, "interpret", None)
    if kernels is not None:
        try:
            fused.check(interpret, x=inputs.x)
        except NotImplementedError:
            # What is chosen by default may have no kernel for this input.
            if implementation is not None:
                raise
            kernels = None
    convolve = _conv if kernels is None else _fused_conv
    run = functools.partial(convolve, _Plan(reverse, silu, kernels, interpret))

    def results(spec) -> tuple[PartitionSpec, ...]:
        return (PartitionSpec(*spec),) * len(reverse)

    return partitioned(run, inputs, results, inputs.x, _CHANNEL_AXES)


def _final_state(inputs: _Inputs, reverse: bool) -> jax.Array:
    """Returns the last tokens walked over that are of the last segment, and zeros for others."""
    x, weight, _, runs = inputs
    halo = weight.shape[2] - 1
    last = _cut(_pad(x, halo, reverse), halo, reverse)
    if runs is None or 0 in x.shape:
        return last
    ours = _cut(_pad(runs, halo, reverse), halo, reverse) == jnp.max(runs, axis=1)[:, None]
    return jnp.where(ours[..., None], last, 0)


def _pad(x: jax.Array, halo: int, reverse: bool) -> jax.Array:
    """Adds zeros where the walk begins."""
    return jnp.pad(x, ((0, 0), (0, halo) if reverse else (halo, 0), *((0, 0),) * (x.ndim - 2)))


def _cut(x: jax.Array, length: Any, reverse: bool) -> jax.Array:
    """Returns the last tokens walked over, so many of them."""
    if is_known(length) and x.shape[1] == length:
        return x
    first = 0 if reverse else x.shape[1] - length
    return lax.slice_in_dim(x, first, first + length, axis=1)


def check(
    x: Any, weight: Any, bias: Any, initial_state: Any = None
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """Returns the arguments of `causal_conv1d`, with an axis of groups where there was none.

    Raises:
        ValueError: a dtype is not a real floating-point one, or shapes do not fit; the message
            names the argument.
    """
    x, weight = checked_array("x", x), checked_array("weight", weight)
    bias = None if bias is None else checked_array("bias", bias)
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; it is (batch, length, channels)")
    channels = x.shape[2]
    if weight.ndim not in (2, 3) or weight.shape[-1] != channels or weight.shape[-2] < 1:
        raise ValueError(
            f"weight has shape {weight.shape}, which does not fit x {x.shape}: it is (width, "
            f"channels) with x's {channels} channels, or (groups, width, channels)"
        )
    *groups, _, _ = weight.shape
    if groups and (groups[0] < 1 or (is_known(x.shape[0]) and x.shape[0] % groups[0])):
        raise ValueError(
            f"weight has shape {weight.shape}, which does not fit x {x.shape}: its {groups[0]} "
            f"groups do not divide the batch of {x.shape[0]}"
        )
    if bias is not None and bias.shape != (*groups, channels):
        raise ValueError(
            f"bias has shape {bias.shape}; with this weight it is {(*groups, channels)}"
        )
    if initial_state is not None:
        initial_state = checked_array("initial_state", initial_state).astype(x.dtype)
        expected = (x.shape[0], weight.shape[-2] - 1, channels)
        if initial_state.shape != expected:
            raise ValueError(
                f"initial_state has shape {initial_state.shape}; with this x and weight it is "
                f"{expected}: (batch, width - 1, channels)"
            )
    if not groups:
        weight, bias = weight[None], None if bias is None else bias[None]
    return vary_alike((x, weight, bias, initial_state))


def _forward(plan: _Plan, inputs: _Inputs, keep: bool) -> tuple[tuple[jax.Array, ...], None]:
    found = (_before_silu(plan, inputs, d) for d in range(len(plan.reverse)))
    return tuple((jax.nn.silu(y) if plan.silu else y).astype(inputs.x.dtype) for y in found), None


def _backward(
    plan: _Plan, inputs: _Inputs, residuals: None, grads: tuple[jax.Array, ...]
) -> _Inputs:
    grad_x, *sums = zip(*(_gradients(plan, inputs, d, g) for d, g in enumerate(grads)), strict=True)
    # Added up before they are rounded.
    return _cotangents(inputs, sum(grad_x[1:], grad_x[0]), *(jnp.stack(x, axis=1) for x in sums))


def _fused_forward(
    plan: _Plan, inputs: _Inputs, known: None, keep: bool
) -> tuple[tuple[jax.Array, ...], None]:
    kernel = _kernel(plan, inputs, "forward")
    if kernel is None:
        return _forward(plan, inputs, keep)
    return kernel(inputs.x, inputs.weight, inputs.bias), None


def _fused_backward(
    plan: _Plan, inputs: _Inputs, known: None, residuals: None, grads: tuple[jax.Array, ...]
) -> _Inputs:
    kernel = _kernel(plan, inputs, "gradients")
    if kernel is None:
        return _backward(plan, inputs, residuals, grads)
    return _cotangents(inputs, *kernel(inputs.x, inputs.weight, inputs.bias, grads))


def _kernel(plan: _Plan, inputs: _Inputs, name: str) -> Callable[..., Any] | None:
    """Returns a kernel of the plan's module, called with arrays; None where it has none."""
    # Imported when it is used: it brings Pallas or Triton.
    kernel = getattr(load(plan.kernels), name, None)
    if kernel is None:
        return None
    how = {"reverse": plan.reverse, "silu": plan.silu, "interpret": plan.interpret}
    return functools.partial(kernel, reach=_reach(plan, inputs), **how)


def _cotangents(inputs: _Inputs, grad_x, per_row, bias_per_row) -> _Inputs:
    x, weight, bias, _ = inputs
    grad_bias = None
    if bias is not None:
        grad_bias = sum_groups(bias_per_row, weight.shape[0]).astype(bias.dtype)
    grad_weight = sum_groups(per_row, weight.shape[0]).astype(weight.dtype)
    return _Inputs(grad_x.astype(x.dtype), grad_weight, grad_bias, None)


_conv = differentiable(_forward, _backward)
_fused_conv = fused.fused_operation(_fused_forward, _fused_backward, ("weight", "bias"), _conv)


def _before_silu(plan: _Plan, inputs: _Inputs, direction: int) -> jax.Array:
    """Computes the convolution in one direction, in at least float32."""
    x, weight, bias, runs = inputs
    bias = None if bias is None else bias[:, direction]
    return _convolve(x, weight[:, direction], bias, runs, plan.reverse[direction])


def _gradients(
    plan: _Plan, inputs: _Inputs, direction: int, grad: jax.Array
) -> tuple[jax.Array, ...]:
    """Returns the gradients of x, and for each sequence those of weight and bias."""
    x, weight, _, runs = inputs
    reverse = plan.reverse[direction]
    grad = grad.astype(widened(x.dtype))
    if plan.silu:
        y = _before_silu(plan, inputs, direction)
        sigmoid = jax.nn.sigmoid(y)
        # Five sums read this: without the barrier XLA computes it five times.
        grad = lax.optimization_barrier(grad * sigmoid * (1 + y * (1 - sigmoid)))
    # The transpose of walking one way is walking the other way.
    grad_x = _convolve(grad, weight[:, direction], None, runs, not reverse)
    taps = _taps(x, runs, weight.shape[2], reverse)
    per_row = jnp.stack([sum_length(grad * tap) for tap in taps], axis=1)
    return grad_x, per_row, sum_length(grad)


def _convolve(x, weight, bias, runs, reverse: bool) -> jax.Array:
    """Computes the convolution in at least float32; weight (groups, width, channels)."""
    dtype = widened(x.dtype)
    groups, width, channels = weight.shape
    shape = (x.shape[0] // groups, groups, *x.shape[1:])
    y = jnp.zeros((1, 1, 1, 1), dtype) if bias is None else bias.astype(dtype)[None, :, None]
    rows = weight.astype(dtype)[None, :, :, None]  # (1, groups, width, 1, channels)
    for k, tap in enumerate(_taps(x, runs, width, reverse)):
        y = y + rows[:, :, k] * tap.reshape(shape)
    return y.reshape(x.shape)


def _taps(x, runs, width: int, reverse: bool) -> list[jax.Array]:
    """Returns what each row of a filter meets: x shifted by width - 1 ... 0 tokens.

    Tokens of another segment count as zero.
    """

    taps = _shifted(x.astype(widened(x.dtype)), width, reverse)
    if runs is None:
        return taps
    return [
        jnp.where((run == runs)[..., None], tap, 0)
        for tap, run in zip(taps, _shifted(runs, width, reverse), strict=True)
    ]


def _shifted(x: jax.Array, width: int, reverse: bool) -> list[jax.Array]:
    """Returns x as it was width - 1 ... 0 tokens before; 0 before the first one."""
    padded = _pad(x, width - 1, reverse)
    starts = range(width - 1, -1, -1) if reverse else range(width)
    return [lax.slice_in_dim(padded, s, s + x.shape[1], axis=1) for s in starts]


def _reach(plan: _Plan, inputs: _Inputs) -> tuple[jax.Array, ...] | None:
    """Counts for each token the ones before it that a filter meets in its segment.

    (batch, length) int32 for each direction, at most width - 1; None without segments.
    """
    runs, width = inputs.runs, inputs.weight.shape[2]
    if runs is None:
        return None
    return tuple(
        sum((run == runs).astype(jnp.int32) for run in _shifted(runs, width, reverse)) - 1
        for reverse in plan.reverse
    )
