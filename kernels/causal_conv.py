"""Causal depthwise convolution, in either reading direction."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def causal_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "width channels"],
    bias: Float[Array, " channels"] | None = None,
    *,
    reverse: bool = False,
    silu: bool = True,
) -> Float[Array, "batch length channels"]:
    """Convolves each channel with its own short filter, then applies SiLU.

    Left to right, `y[t] = bias + sum_k weight[width - 1 - k] * x[t - k]`: the last row of `weight`
    meets the current token, and tokens before the first count as zero (Gu & Dao 2023, figure 3).

    Args:
        x: (batch, length, channels).
        weight: (width, channels).
        bias: (channels,).
        reverse: walk right to left: `x[t + k]` in place of `x[t - k]`. Nothing is flipped.
        silu: apply `y * sigmoid(y)`.

    Returns:
        (batch, length, channels) of the dtype of `x`; summed in at least float32.
    """
    width, length = weight.shape[0], x.shape[1]
    compute = jnp.promote_types(x.dtype, jnp.float32)
    halo = (0, width - 1) if reverse else (width - 1, 0)
    padded = jnp.pad(x, ((0, 0), halo, (0, 0)))
    y = jnp.zeros(x.shape, compute) if bias is None else bias.astype(compute)
    for k in range(width):
        start = k if reverse else width - 1 - k
        tap = jax.lax.slice_in_dim(padded, start, start + length, axis=1)
        y = y + weight[width - 1 - k].astype(compute) * tap.astype(compute)
    return (jax.nn.silu(y) if silu else y).astype(x.dtype)
