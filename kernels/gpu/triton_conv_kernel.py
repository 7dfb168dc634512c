"""The Triton kernel of the causal convolution's gradients.

A program walks over some tokens of one sequence against the reading direction, with x and the
gradients before SiLU of the last few tokens in registers: x and the cotangent are read once, and
nothing but the results is written.

Tokens are counted in reading order: the one read before s is s - 1. `p` is the `Program` of
`triton_conv`, known when the kernel is compiled. Offsets are 64 bits wide. `no_type_check` keeps
checkers of annotations off functions that Triton reads as text.
"""

from typing import NamedTuple, no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from caduceus_jax.kernels.gpu import triton_math


class _Place(NamedTuple):
    """Says where a program is."""

    sequence: tl.tensor
    part: tl.tensor  # counted over all sequences
    channel: tl.tensor  # (channels,)
    inside: tl.tensor  # (channels,): which of them exist


@triton.jit
@no_type_check
def _load(array, s, at, p: tl.constexpr):
    """Loads (channels,) float32 of token s; 0 outside the sequence."""
    return tl.load(*_at(array, s, at, p), other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _at(array, s, at, p: tl.constexpr):
    """Returns pointers to (channels,) of token s, and which of them exist."""
    if p.reverse:
        t = p.length - 1 - s
    else:
        t = s
    exists = at.inside & (s >= 0) & (s < p.length)
    return array + (at.sequence * p.length + t) * p.channels + at.channel, exists


@triton.jit
@no_type_check
def _reach_of(reach, s, at, p: tl.constexpr):
    """Loads how many tokens before s are of its segment; without segments a number not used."""
    far = 0
    if p.has_segments:
        if p.reverse:
            t = p.length - 1 - s
        else:
            t = s
        exists = (s >= 0) & (s < p.length)
        far = tl.load(reach + at.sequence * p.length + t, mask=exists, other=0)
    return far


@triton.jit
@no_type_check
def _within(x, k: tl.constexpr, far, p: tl.constexpr):
    """Returns x, which is of two tokens k apart, or 0 if only fewer of a segment are before one."""
    if p.has_segments and k > 0:
        x = tl.where(far >= k, x, 0.0)
    return x


@triton.jit
@no_type_check
def _before_silu(grad, s, taps, far, filters, bias, at, p: tl.constexpr):
    """Returns the gradient of the convolution's sum; taps[k] is x of the token k before s."""
    outer = _load(grad, s, at, p)
    if p.silu:
        y = bias
        for k in tl.static_range(p.width):
            y += filters[k] * _within(taps[k], k, far, p)
        sigmoid = triton_math.sigmoid(y, p)
        outer *= y * sigmoid * (1 - sigmoid) + sigmoid
    return outer


@triton.jit
@no_type_check
def causal_conv_gradients(
    x, weight, bias, grad, reach, grad_x, grad_weight, grad_bias, p: tl.constexpr
):
    """Computes all gradients of a part of a sequence."""
    program = tl.program_id(0).to(tl.int64)
    part, block = program // p.blocks, program % p.blocks
    channel = block * p.block + tl.arange(0, p.block)
    at = _Place(part // p.parts, part, channel, channel < p.channels)
    group = at.sequence % p.groups
    filters = ()  # filters[k] meets the token k before
    for k in tl.static_range(p.width):
        row = weight + (group * p.width + p.width - 1 - k) * p.channels + channel
        filters += (tl.load(row, mask=at.inside, other=0.0).to(tl.float32),)
    offset = tl.zeros((p.block,), tl.float32)
    if p.has_bias:
        offset += tl.load(bias + group * p.channels + channel, mask=at.inside, other=0.0)

    first = part % p.parts * p.tokens
    last = first + p.tokens + p.width - 2  # the farthest token whose gradient reaches this part
    # x of the last tokens; gradients of those after them, and how far before them segments begin
    taps, later, reaches = (), (), ()
    for k in tl.static_range(p.width - 1):
        taps += (_load(x, last - k, at, p),)
    for k in tl.static_range(p.width - 1):
        taps += (_load(x, last - k - (p.width - 1), at, p),)
        far = _reach_of(reach, last - k, at, p)
        later = (_before_silu(grad, last - k, taps, far, filters, offset, at, p),) + later
        reaches = (far,) + reaches
        taps = taps[1:]
    sums, total = (), tl.zeros((p.block,), tl.float32)
    for _ in tl.static_range(p.width):
        sums += (tl.zeros((p.block,), tl.float32),)

    for i in range(p.tokens // p.unroll):
        for j in tl.static_range(p.unroll):
            s = first + p.tokens - 1 - (i * p.unroll + j)
            taps += (_load(x, s - (p.width - 1), at, p),)
            far = _reach_of(reach, s, at, p)
            here = _before_silu(grad, s, taps, far, filters, offset, at, p)
            later, reaches = (here,) + later, (far,) + reaches
            out = filters[0] * here
            added = (sums[0] + here * taps[0],)
            for k in tl.static_range(1, p.width):
                out += filters[k] * _within(later[k], k, reaches[k], p)
                added += (sums[k] + here * _within(taps[k], k, far, p),)
            pointers, exists = _at(grad_x, s, at, p)
            tl.store(pointers, out.to(pointers.dtype.element_ty), mask=exists)
            sums, total = added, total + here
            taps, later = taps[1:], later[: p.width - 1]
            reaches = reaches[: p.width - 1]

    for k in tl.static_range(p.width):
        row = grad_weight + (part * p.width + p.width - 1 - k) * p.channels + channel
        tl.store(row, sums[k], mask=at.inside)
    tl.store(grad_bias + part * p.channels + channel, total, mask=at.inside)


# Arguments that the kernel writes, which are the last ones, in their order.
WRITES = {"causal_conv_gradients": ("grad_x", "grad_weight", "grad_bias")}
