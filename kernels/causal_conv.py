"""Causal depthwise convolution, in either reading direction."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from caduceus_jax.kernels.options import Implementation, default_platform, load, resolve
from caduceus_jax.kernels.scan_inputs import (
    check_fused_dtypes,
    checked_array,
    once_differentiable,
    sum_groups,
)
from caduceus_jax.kernels.sums import sum_length


def causal_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "*groups width channels"],
    bias: Float[Array, "*groups channels"] | None = None,
    *,
    reverse: bool = False,
    silu: bool = True,
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
        implementation: that of the selective scan beside it. With "pallas_triton" and "triton" the
            backward pass is one kernel for NVIDIA GPUs, which reads and writes every array once;
            with "mosaic_tpu" both passes are kernels for TPUs; with every other one they are XLA's.

    Returns:
        (batch, length, channels) of the dtype of `x`; summed in at least float32.

    Raises:
        ValueError: a dtype is not a real floating-point one, or shapes do not fit; the message
            names the argument.
        NotImplementedError: the implementation has no kernel for the dtype of x.
    """
    x, weight, bias = check(x, weight, bias)
    options = resolve(implementation, x).for_platform(default_platform())
    kernels = options.convolution if x.size else None  # there is nothing for a kernel to do
    if kernels is not None:
        try:
            check_fused_dtypes(x=x)
        except NotImplementedError:
            # What is chosen by default may have no kernel for this input.
            if implementation is not None:
                raise
            kernels = None
    interpret = getattr(options, "interpret", None)
    return _conv(_Plan(reverse, silu, kernels, interpret), x, weight, bias)


def check(x: Any, weight: Any, bias: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
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
    if groups and (groups[0] < 1 or x.shape[0] % groups[0]):
        raise ValueError(
            f"weight has shape {weight.shape}, which does not fit x {x.shape}: its {groups[0]} "
            f"groups do not divide the batch of {x.shape[0]}"
        )
    if bias is not None and bias.shape != (*groups, channels):
        raise ValueError(
            f"bias has shape {bias.shape}; with this weight it is {(*groups, channels)}"
        )
    if groups:
        return x, weight, bias
    return x, weight[None], None if bias is None else bias[None]


class _Plan(NamedTuple):
    """What is fixed when the call is traced."""

    reverse: bool
    silu: bool
    kernels: str | None  # the module of the fused kernels; None: both passes are XLA's
    interpret: Any  # of the fused kernels


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(plan: _Plan, x, weight, bias):
    if fused := _fused(plan, "forward"):
        return fused(plan, x, weight, bias)
    y = _convolve(x, weight, bias, plan.reverse)
    return (jax.nn.silu(y) if plan.silu else y).astype(x.dtype)


def _conv_fwd(plan: _Plan, x, weight, bias):
    return _conv(plan, x, weight, bias), (x, weight, bias)


def _conv_bwd(plan: _Plan, residuals, grad):
    x, weight, bias = residuals
    gradients = _fused(plan, "gradients") or _gradients
    grad_x, per_row, bias_per_row = gradients(plan, x, weight, bias, grad)
    grad_weight = sum_groups(per_row, weight.shape[0]).astype(weight.dtype)
    if bias is None:
        return grad_x, grad_weight, None
    return grad_x, grad_weight, sum_groups(bias_per_row, weight.shape[0]).astype(bias.dtype)


_conv.defvjp(_conv_fwd, _conv_bwd)


def _fused(plan: _Plan, name: str) -> Callable[..., Any] | None:
    """A kernel of the plan's module, called with the plan and arrays; None where it has none."""
    if plan.kernels is None:
        return None
    # Imported when it is used: it brings Pallas or Triton.
    module = load(plan.kernels)
    if not hasattr(module, name):
        return None

    def run(plan: _Plan, *arrays):
        how = {"reverse": plan.reverse, "silu": plan.silu, "interpret": plan.interpret}
        return getattr(module, name)(*arrays, **how)

    return once_differentiable(run)


def _gradients(plan: _Plan, x, weight, bias, grad):
    """Gradients of x, and for each sequence those of weight and bias."""
    grad = grad.astype(_compute_dtype(x))
    if plan.silu:
        y = _convolve(x, weight, bias, plan.reverse)
        sigmoid = jax.nn.sigmoid(y)
        # Five sums read this: without the barrier XLA computes it five times.
        grad = lax.optimization_barrier(grad * sigmoid * (1 + y * (1 - sigmoid)))
    # The transpose of walking one way is walking the other way.
    grad_x = _convolve(grad, weight, None, not plan.reverse).astype(x.dtype)
    taps = _taps(x, weight.shape[1], plan.reverse)
    per_row = jnp.stack([sum_length(grad * tap) for tap in taps], axis=1)
    return grad_x, per_row, sum_length(grad)


def _convolve(x, weight, bias, reverse: bool):
    """The convolution in at least float32; weight (groups, width, channels)."""
    dtype = _compute_dtype(x)
    groups, width, channels = weight.shape
    shape = (x.shape[0] // groups, groups, *x.shape[1:])
    y = jnp.zeros((1, 1, 1, 1), dtype) if bias is None else bias.astype(dtype)[None, :, None]
    rows = weight.astype(dtype)[None, :, :, None]  # (1, groups, width, 1, channels)
    for k, tap in enumerate(_taps(x, width, reverse)):
        y = y + rows[:, :, k] * tap.reshape(shape)
    return y.reshape(x.shape)


def _taps(x, width: int, reverse: bool) -> list[jax.Array]:
    """What each row of a filter meets: x shifted by width - 1 ... 0 tokens."""
    halo = (0, width - 1) if reverse else (width - 1, 0)
    padded = jnp.pad(x, ((0, 0), halo, (0, 0))).astype(_compute_dtype(x))
    starts = range(width - 1, -1, -1) if reverse else range(width)
    return [lax.slice_in_dim(padded, s, s + x.shape[1], axis=1) for s in starts]


def _compute_dtype(x):
    return jnp.promote_types(x.dtype, jnp.float32)
