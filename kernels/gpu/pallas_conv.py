"""Gradients of the causal convolution in one pass over memory: NVIDIA GPUs.

Forward XLA makes one loop of it, which reads x and writes y once. Backward it makes several, and
keeps the gradient before SiLU in memory between them. Here a program walks over some tokens of a
sequence for a block of channels, against the reading direction, with the last few tokens' x and
gradients in registers: x and the cotangent are read once, and nothing but the results is written.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from caduceus_jax.kernels.gpu.pallas_program import EXACT, FAST, launch, load, store
from caduceus_jax.kernels.meshes import shape_like

_TOKENS, _CHANNELS = 128, 128  # of a program
_UNROLL = 4


def gradients(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    grad: jax.Array,
    *,
    reverse: bool,
    silu: bool,
    interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `causal_conv1d`.

    Args:
        x: (batch, length, channels).
        weight: (groups, width, channels).
        bias: (groups, channels).
        grad: with respect to the result, (batch, length, channels).
        reverse: the convolution walks right to left.
        silu: it ends with SiLU.
        interpret: run on the backend at hand.

    Returns:
        Those of x (batch, length, channels) in its dtype, and in float32 of weight (batch, width,
        channels) and of bias (batch, channels), for each sequence.
    """
    batch, length, channels = x.shape
    groups, width, _ = weight.shape
    block = min(_CHANNELS, max(1 << (channels - 1).bit_length(), 16))
    parts = -(-length // _TOKENS)
    if bias is None:
        bias = jnp.zeros((groups, channels), jnp.float32)
    sequence = pl.BlockSpec((None, length, block), lambda p, i: (p // parts, 0, i))
    body = functools.partial(
        _kernel, parts=parts, channels=channels, reverse=reverse, silu=silu, interpret=interpret
    )
    grad_x, grad_weight, grad_bias = launch(
        body,
        [x, weight, bias, grad],
        name="causal_conv_gradients",
        grid=(batch * parts, -(-channels // block)),
        in_specs=[
            sequence,
            pl.BlockSpec((None, width, block), lambda p, i: (p // parts % groups, 0, i)),
            pl.BlockSpec((None, block), lambda p, i: (p // parts % groups, i)),
            sequence,
        ],
        out_specs=[
            sequence,
            pl.BlockSpec((None, None, width, block), lambda p, i: (p // parts, p % parts, 0, i)),
            pl.BlockSpec((None, None, block), lambda p, i: (p // parts, p % parts, i)),
        ],
        out_shape=[
            shape_like(x.shape, x.dtype, x),
            shape_like((batch, parts, width, channels), jnp.float32, x),
            shape_like((batch, parts, channels), jnp.float32, x),
        ],
        interpret=interpret,
    )
    return grad_x, jnp.sum(grad_weight, axis=1), jnp.sum(grad_bias, axis=1)


def _kernel(
    x_ref,
    weight_ref,
    bias_ref,
    grad_ref,
    grad_x_ref,
    grad_weight_ref,
    grad_bias_ref,
    *,
    parts: int,
    channels: int,
    reverse: bool,
    silu: bool,
    interpret: bool,
) -> None:
    """One program. Tokens are counted in reading order: the one read before s is s - 1."""
    length, block = x_ref.shape
    width = weight_ref.shape[0]
    math = EXACT if interpret else FAST
    first = pl.program_id(0) % parts * _TOKENS
    inside = None
    if channels % block:
        inside = jnp.arange(block) < channels - pl.program_id(1) * block

    def at(ref, s):
        """(channels,) of token s and which of them exist; tokens outside the sequence are 0."""
        mask = jnp.full((block,), (s >= 0) & (s < length))
        t = jnp.clip(length - 1 - s if reverse else s, 0, length - 1)
        return ref.at[t, :], mask if inside is None else mask & inside

    # Row k of the filter meets the token width - 1 - k before; its index is not a Python number,
    # which interpretation does not take.
    rows = [jnp.int32(width - 1 - k) for k in range(width)]
    filters = [load(weight_ref.at[row, :], inside) for row in rows]
    bias = load(bias_ref.at[:], inside)

    def before_silu(s, taps):
        """The gradient with respect to the convolution's sum; taps[k] is the token k before."""
        grad = load(*at(grad_ref, s))
        if not silu:
            return grad
        y = bias
        for tap, factor in zip(taps, filters, strict=True):
            y = math.multiply_add(factor, tap, y)
        sigmoid = math.sigmoid(y)
        return grad * math.multiply_add(y * sigmoid, 1 - sigmoid, sigmoid)

    def step(s, taps, later):
        """taps[k] is x k before s, for k < width - 1; later[k] the gradient k + 1 after it."""
        taps = (*taps, load(*at(x_ref, s - (width - 1))))
        later = (before_silu(s, taps), *later)
        return taps, later

    def walk(i, carry):
        taps, later, grad_weight, grad_bias = carry
        for j in range(_UNROLL):
            s = first + _TOKENS - 1 - (i * _UNROLL + j)
            taps, later = step(s, taps, later)
            grad_x = functools.reduce(
                lambda total, pair: math.multiply_add(*pair, total),
                zip(filters, later, strict=True),
                jnp.zeros((block,), jnp.float32),
            )
            target, mask = at(grad_x_ref, s)
            store(target, grad_x, mask, grad_x_ref.dtype)
            grad_weight = tuple(
                math.multiply_add(later[0], tap, total)
                for tap, total in zip(taps, grad_weight, strict=True)
            )
            grad_bias = grad_bias + later[0]
            taps, later = taps[1:], later[:-1]
        return taps, later, grad_weight, grad_bias

    last = first + _TOKENS + width - 2  # the farthest token whose gradient reaches this part
    taps = tuple(load(*at(x_ref, last - k)) for k in range(width - 1))
    later: tuple[jax.Array, ...] = ()
    for k in range(width - 1):
        taps, later = step(last - k, taps, later)
        taps = taps[1:]
    zero = jnp.zeros((block,), jnp.float32)
    carry = taps, later, (zero,) * width, zero
    *_, grad_weight, grad_bias = lax.fori_loop(0, _TOKENS // _UNROLL, walk, carry)
    for row, value in zip(rows, grad_weight, strict=True):
        store(grad_weight_ref.at[row, :], value, inside, grad_weight_ref.dtype)
    store(grad_bias_ref.at[:], grad_bias, inside, grad_bias_ref.dtype)
