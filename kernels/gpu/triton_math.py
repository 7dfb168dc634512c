"""Elementary functions of the Triton kernels, on float32.

`p` is the kernel's `Program`: interpreted, functions are exact; compiled, they are the hardware's.
`no_type_check` keeps checkers of annotations off functions that Triton reads as text.
"""

import dataclasses
from typing import Any, no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from caduceus_jax.kernels.gpu import layout, ptx

_LOG2_E = tl.constexpr(layout.LOG2_E)
_RECIPROCAL = tl.constexpr(ptx.RECIPROCAL)
_ROUND = tl.constexpr(ptx.ROUND)
_SMALLEST_EXPONENT = tl.constexpr(ptx.SMALLEST_EXPONENT)


@dataclasses.dataclass(frozen=True)
class Constants:
    """A `Program` every field of which is a constant to Triton's compiler."""

    program: Any

    def __getattr__(self, name: str) -> tl.constexpr:
        return tl.constexpr(getattr(self.program, name))


@triton.jit
@no_type_check
def reciprocal(x, p: tl.constexpr):
    """Returns 1 / x, as accurate as the hardware's instruction."""
    if p.interpret:
        y = 1 / x
    else:
        y = tl.inline_asm_elementwise(_RECIPROCAL, "=f,f", [x], tl.float32, True, 1)
    return y


@triton.jit
@no_type_check
def sigmoid(x, p: tl.constexpr):
    """Returns 1 / (1 + e^-x)."""
    return reciprocal(1 + tl.exp2(x * -_LOG2_E), p)


@triton.jit
@no_type_check
def softplus(x, p: tl.constexpr):
    """Returns log(1 + e^x), accurate in float32 where it is small too, and its slope."""
    e = tl.exp2(tl.abs(x) * -_LOG2_E)
    power = tl.full(x.shape, p.log1p[-1], tl.float32)
    for i in tl.static_range(len(p.log1p) - 1):
        power = power * e + p.log1p[-2 - i]
    inverse = reciprocal(1 + e, p)
    return power * e + tl.maximum(x, 0.0), tl.where(x < 0, e * inverse, inverse)


@triton.jit
@no_type_check
def _polynomial_exp2(x, p: tl.constexpr):
    """Computes in the interpreter what `ptx.mixed_exp2` does with one of its arguments."""
    x = tl.maximum(x, _SMALLEST_EXPONENT)
    shifted = x + _ROUND
    f = x - (shifted - _ROUND)
    y = tl.full(x.shape, p.exp2[-1], tl.float32)
    for i in tl.static_range(len(p.exp2) - 1):
        y = y * f + p.exp2[-2 - i]
    y = y * f + 1.0
    bits = y.to(tl.int32, bitcast=True) + (shifted.to(tl.int32, bitcast=True) << 23)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def exp2_of_tile(exponent, p: tl.constexpr):
    """Computes 2^exponent of a (state, channels) tile, part of it by a polynomial."""
    if p.exp2_share == 0:
        y = tl.exp2(exponent)
    elif p.interpret:
        # Which ones the hardware gets is not specified; here they are spread over the tile.
        index = tl.arange(0, p.state)[:, None] + tl.arange(0, p.block)[None, :]
        some = index % p.exp2_share == 0
        y = tl.where(some, _polynomial_exp2(exponent, p), tl.exp2(exponent))
    else:
        y = tl.inline_asm_elementwise(
            p.mixed_exp2, p.mixed_exp2_constraints, [exponent], tl.float32, True, p.exp2_share
        )
    return y
