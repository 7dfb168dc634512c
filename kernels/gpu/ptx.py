"""Elementary functions as NVIDIA GPUs have them: PTX for inline assembly on float32.

`$0` is the result, `$1` and on are the arguments, as in LLVM's inline assembly.
"""

import struct
from collections.abc import Sequence

from caduceus_jax.kernels.gpu import target

EXP2 = "ex2.approx.ftz.f32 $0, $1;"
RECIPROCAL = "rcp.approx.ftz.f32 $0, $1;"
MULTIPLY_ADD = "fma.rn.f32 $0, $1, $2, $3;"

# Added to a small number, it leaves the number rounded to an integer in the low bits.
ROUND = 1.5 * 2**23
SMALLEST_EXPONENT = -126.0


def mixing_pays() -> bool:
    """Returns whether `mixed_exp2` is faster than the special-function unit alone.

    It moves work to the float32 units, of which T4 and A100 have half as many as other GPUs.
    """
    return target.float32_lanes(target.compute_capability()) == 128


def mixed_exp2(count: int, coefficients: Sequence[float]) -> tuple[str, str]:
    """Computes 2^x of `count` numbers: all but the last by the special-function unit.

    That unit gives four results per cycle where the others give 32: one result of every few by a
    polynomial evens the load. Arguments have to be below 127; below -126 the last is 2^-126.

    Returns:
        The assembly and its constraints, as in LLVM.
    """
    results, arguments = range(count), range(count, 2 * count)
    lines = [
        f"ex2.approx.ftz.f32 ${y}, ${x};" for y, x in zip(results[:-1], arguments[:-1], strict=True)
    ]
    *rest, highest = coefficients
    lines += [
        "{",
        ".reg .f32 x, shifted, whole, f, p;",
        ".reg .b32 exponent, bits;",
        f"max.ftz.f32 x, ${arguments[-1]}, {_hexadecimal(SMALLEST_EXPONENT)};",
        f"add.rn.ftz.f32 shifted, x, {_hexadecimal(ROUND)};",
        f"sub.rn.ftz.f32 whole, shifted, {_hexadecimal(ROUND)};",
        "sub.rn.ftz.f32 f, x, whole;",
        f"mov.f32 p, {_hexadecimal(highest)};",
        *(f"fma.rn.ftz.f32 p, p, f, {_hexadecimal(c)};" for c in (*reversed(rest), 1.0)),
        "mov.b32 exponent, shifted;",
        "shl.b32 exponent, exponent, 23;",
        "mov.b32 bits, p;",
        "add.s32 bits, bits, exponent;",
        f"mov.b32 ${results[-1]}, bits;",
        "}",
    ]
    return "\n".join(lines), ",".join(["=f"] * count + ["f"] * count)


def _hexadecimal(number: float) -> str:
    """Formats a float32 literal as PTX writes it."""
    return "0f" + struct.pack(">f", number).hex().upper()
