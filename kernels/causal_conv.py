"""Causal depthwise convolution, in either reading direction."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from caduceus_jax.kernels.sums import sum_length


def causal_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "*groups width channels"],
    bias: Float[Array, "*groups channels"] | None = None,
    *,
    reverse: bool = False,
    silu: bool = True,
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

    Returns:
        (batch, length, channels) of the dtype of `x`; summed in at least float32.

    Raises:
        ValueError: channels or groups do not fit.
    """
    if weight.ndim == 2:
        weight, bias = weight[None], None if bias is None else bias[None]
    groups, _, channels = weight.shape
    if channels != x.shape[2] or x.shape[0] % groups:
        raise ValueError(f"weight has shape {weight.shape}, which does not fit x {x.shape}")
    return _conv(reverse, silu, x, weight, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv(reverse: bool, silu: bool, x, weight, bias):
    y = _convolve(x, weight, bias, reverse)
    return (jax.nn.silu(y) if silu else y).astype(x.dtype)


def _conv_fwd(reverse: bool, silu: bool, x, weight, bias):
    return _conv(reverse, silu, x, weight, bias), (x, weight, bias)


def _conv_bwd(reverse: bool, silu: bool, residuals, grad):
    x, weight, bias = residuals
    groups, width, _ = weight.shape
    grad = grad.astype(_compute_dtype(x))
    if silu:
        y = _convolve(x, weight, bias, reverse)
        sigmoid = jax.nn.sigmoid(y)
        # Five sums read this: without the barrier XLA computes it five times.
        grad = lax.optimization_barrier(grad * sigmoid * (1 + y * (1 - sigmoid)))
    # The transpose of walking one way is walking the other way.
    grad_x = _convolve(grad, weight, None, not reverse).astype(x.dtype)
    per_row = [sum_length(grad * tap) for tap in _taps(x, width, reverse)]
    grad_weight = _sum_groups(jnp.stack(per_row, axis=1), groups).astype(weight.dtype)
    grad_bias = None
    if bias is not None:
        grad_bias = _sum_groups(sum_length(grad), groups).astype(bias.dtype)
    return grad_x, grad_weight, grad_bias


_conv.defvjp(_conv_fwd, _conv_bwd)


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


def _sum_groups(x, groups: int):
    """(batch, ...) -> (groups, ...): sums what was read with the same filter."""
    return jnp.sum(x.reshape(-1, groups, *x.shape[1:]), axis=0)


def _compute_dtype(x):
    return jnp.promote_types(x.dtype, jnp.float32)
