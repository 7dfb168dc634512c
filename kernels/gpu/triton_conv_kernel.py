"""The Triton kernel of the causal convolution's gradients.

A program walks over some tokens of one sequence against the reading direction, with x and the
gradients before SiLU of the last few tokens in registers: x and the cotangent are read once, and
nothing but the results is written.

With both directions (`p.both`) the walk is from right to left, and the other direction follows
width - 1 tokens behind in it, where it needs the same window of x: y there meets the tokens that y
here meets. Both are added up in the gradient of x.

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
def _before_silu(grad, s, taps, reaches, filters, bias, at, p: tl.constexpr):
    """Returns the gradient of the convolution's sum at s.

    filters[k] meets taps[k], where at least k tokens are within reaches[k].
    """
    outer = _load(grad, s, at, p)
    if p.silu:
        y = bias
        for k in tl.static_range(p.width):
            y += filters[k] * _within(taps[k], k, reaches[k], p)
        sigmoid = triton_math.sigmoid(y, p)
        outer *= y * sigmoid * (1 - sigmoid) + sigmoid
    return outer


@triton.jit
@no_type_check
def _add(sums, grad, taps, reaches, p: tl.constexpr):
    """Adds the gradients of a filter at one token, whose gradient before SiLU is given."""
    added = ()
    for k in tl.static_range(p.width):
        added += (sums[k] + grad * _within(taps[k], k, reaches[k], p),)
    return added


@triton.jit
@no_type_check
def _backwards(x, p: tl.constexpr):
    """Returns a window of p.width in the opposite order."""
    turned = ()
    for k in tl.static_range(p.width):
        turned += (x[p.width - 1 - k],)
    return turned


@triton.jit
@no_type_check
def _filters(weight, bias, direction: tl.constexpr, at, p: tl.constexpr):
    """Loads the filters of a direction, filters[k] for the token k before, and its bias."""
    row = at.sequence % p.groups * p.directions + direction
    filters, offset = (), tl.zeros((p.block,), tl.float32)
    for k in tl.static_range(p.width):
        place = weight + (row * p.width + p.width - 1 - k) * p.channels + at.channel
        filters += (tl.load(place, mask=at.inside, other=0.0).to(tl.float32),)
    if p.has_bias:
        offset += tl.load(bias + row * p.channels + at.channel, mask=at.inside, other=0.0)
    return filters, offset


@triton.jit
@no_type_check
def _store_sums(grad_weight, grad_bias, sums, total, direction: tl.constexpr, at, p: tl.constexpr):
    """Writes what a part adds to the gradients of a direction's filters and bias."""
    row = at.part * p.directions + direction
    for k in tl.static_range(p.width):
        place = grad_weight + (row * p.width + p.width - 1 - k) * p.channels + at.channel
        tl.store(place, sums[k], mask=at.inside)
    tl.store(grad_bias + row * p.channels + at.channel, total, mask=at.inside)


@triton.jit
@no_type_check
def causal_conv_gradients(
    x, weight, bias, grad, other_grad, reach, grad_x, grad_weight, grad_bias, p: tl.constexpr
):
    """Computes all gradients of a part of a sequence."""
    program = tl.program_id(0).to(tl.int64)
    part, block = program // p.blocks, program % p.blocks
    channel = block * p.block + tl.arange(0, p.block)
    at = _Place(part // p.parts, part, channel, channel < p.channels)
    filters, offset = _filters(weight, bias, 0, at, p)
    sums, total = (), tl.zeros((p.block,), tl.float32)
    for _ in tl.static_range(p.width):
        sums += (tl.zeros((p.block,), tl.float32),)
    other_filters, other_offset, other_sums, other_total = filters, offset, sums, total
    if p.both:
        other_filters, other_offset = _filters(weight, bias, 1, at, p)

    # Windows of the walk, each token before the one in front of it: x and the reach of segments;
    # in front of them gradients and their reach; and the gradients of the other direction.
    first = part % p.parts * p.tokens
    last = first + p.tokens + p.width - 2  # the farthest token whose gradient reaches this part
    taps, reaches, later, later_reaches, behind = (), (), (), (), ()
    for k in tl.static_range(p.width - 1):
        taps += (_load(x, last - k, at, p),)
        reaches += (_reach_of(reach, last - k, at, p),)
    for k in tl.static_range(p.width - 1):
        s = last - k
        taps += (_load(x, s - (p.width - 1), at, p),)
        reaches += (_reach_of(reach, s - (p.width - 1), at, p),)
        fars = (reaches[0],) * p.width
        later = (_before_silu(grad, s, taps, fars, filters, offset, at, p),) + later
        later_reaches = (reaches[0],) + later_reaches
        if p.both:
            met, fars = _backwards(taps, p), _backwards(reaches, p)
            o = s - (p.width - 1)
            there = _before_silu(other_grad, o, met, fars, other_filters, other_offset, at, p)
            behind += (there,)
            # These tokens belong to the sums of the part after this one, if there is one.
            there = tl.where(part % p.parts == p.parts - 1, there, 0.0)
            other_sums, other_total = _add(other_sums, there, met, fars, p), other_total + there
        taps, reaches = taps[1:], reaches[1:]

    for i in range(p.tokens // p.unroll):
        for j in tl.static_range(p.unroll):
            s = first + p.tokens - 1 - (i * p.unroll + j)
            taps += (_load(x, s - (p.width - 1), at, p),)
            reaches += (_reach_of(reach, s - (p.width - 1), at, p),)
            fars = (reaches[0],) * p.width
            here = _before_silu(grad, s, taps, fars, filters, offset, at, p)
            sums, total = _add(sums, here, taps, fars, p), total + here
            later, later_reaches = (here,) + later, (reaches[0],) + later_reaches
            out = filters[0] * here
            for k in tl.static_range(1, p.width):
                out += filters[k] * _within(later[k], k, later_reaches[k], p)
            if p.both:
                met, fars = _backwards(taps, p), _backwards(reaches, p)
                o = s - (p.width - 1)
                there = _before_silu(other_grad, o, met, fars, other_filters, other_offset, at, p)
                other_sums, other_total = _add(other_sums, there, met, fars, p), other_total + there
                behind += (there,)
                for k in tl.static_range(p.width):
                    out += other_filters[k] * _within(behind[k], k, reaches[0], p)
                behind = behind[1:]
            pointers, exists = _at(grad_x, s, at, p)
            tl.store(pointers, out.to(pointers.dtype.element_ty), mask=exists)
            taps, reaches = taps[1:], reaches[1:]
            later, later_reaches = later[: p.width - 1], later_reaches[: p.width - 1]

    _store_sums(grad_weight, grad_bias, sums, total, 0, at, p)
    if p.both:
        _store_sums(grad_weight, grad_bias, other_sums, other_total, 1, at, p)


# Arguments that the kernel writes, which are the last ones, in their order.
WRITES = {"causal_conv_gradients": ("grad_x", "grad_weight", "grad_bias")}
