"""The assembly of the GPU kernels, carried out instruction by instruction in NumPy."""

import re
import struct

import numpy as np
import pytest

from caduceus_jax.kernels.gpu import polynomials, ptx


def carry_out(text, arguments):
    """What straight-line PTX on float32 leaves in $0, $1, ...; special functions are exact."""
    registers = dict(arguments)

    def value(operand):
        if operand.startswith("0f"):
            return np.float32(struct.unpack(">f", bytes.fromhex(operand[2:]))[0])
        return int(operand) if operand.isdigit() else registers[operand]

    operations = {
        "ex2": np.exp2,
        "max": np.maximum,
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        # Rounded once, as the hardware does.
        "fma": lambda x, y, z: np.float32(np.float64(x) * np.float64(y) + np.float64(z)),
        "mov": lambda x: x,
        "shl": lambda x, places: x << places,
    }
    for line in re.findall(r"[^;{}]+", text):
        name, *operands = line.replace(",", " ").split() or [".reg"]
        if name == ".reg":
            continue
        *kinds, kind = name.split(".")
        target, *sources = operands
        whole = kind in ("b32", "s32")
        values = [value(operand) for operand in sources]
        values = [
            x.view(np.int32) if whole and isinstance(x, np.ndarray) and x.dtype == np.float32 else x
            for x in values
        ]
        registers[target] = operations[kinds[0]](*values)
    return {target: x.view(np.float32) for target, x in registers.items() if target.startswith("$")}


# The polynomials are off by 7.0e-6 and 2.0e-7; float32 adds to that.
@pytest.mark.parametrize(("bits", "error"), [(16, 8e-6), (32, 3e-7)])
def test_powers_of_two_by_a_polynomial(bits, error):
    text, constraints = ptx.mixed_exp2(4, polynomials.exp2(bits))
    assert constraints == "=f,=f,=f,=f,f,f,f,f"
    x = np.linspace(-125.9, 1, 200_001, dtype=np.float32)
    found = carry_out(text, {f"${4 + i}": x * np.float32(1 - i / 8) for i in range(4)})
    for i in range(4):
        expected = np.exp2(np.float64(x * np.float32(1 - i / 8)))
        assert np.abs(found[f"${i}"] / expected - 1).max() < error


@pytest.mark.parametrize("bits", [16, 32])
def test_slow_decays_are_exact(bits):
    """2^-x of a small x is off by the rounding of 1 - x alone: states fade as they should."""
    text, _ = ptx.mixed_exp2(2, polynomials.exp2(bits))
    x = -np.geomspace(1e-9, 1e-3, 1000).astype(np.float32)
    found = carry_out(text, {"$2": x, "$3": x})["$1"]
    lost = np.abs(np.float64(found) - np.exp2(np.float64(x)))
    assert (lost < 2**-24 + 2e-5 * np.abs(x)).all()
    assert carry_out(text, {"$2": x[:1] * 0, "$3": x[:1] * 0})["$1"] == 1


def test_what_is_far_below_zero_is_nothing():
    text, _ = ptx.mixed_exp2(2, polynomials.exp2(32))
    x = np.array([-126.5, -1e4, -3e38], np.float32)
    assert (carry_out(text, {"$2": x, "$3": x})["$1"] <= 2.0**-126).all()
