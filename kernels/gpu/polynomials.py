"""Minimax polynomials of elementary functions, for kernels and for XLA on CPUs.

Coefficients are in float32, of the lowest power first, for inputs of 16 or of 32 bits.
"""

# 2^f for f in [-1/2, 1/2]. No error at 0: decays near 1 stay exact, and a state fades over 100,000
# tokens as it should.
_EXP2 = {
    16: (0.693136734, 0.240225301, 0.0558382829, 0.00965671029),
    32: (0.69314718, 0.24022349, 0.055503814, 0.00966636852, 0.00133811795),
}
# The same with one term more, relative error 2e-9: where its sum in float32 is what is inexact.
_EXP2_ON_CPU = (0.69314718, 0.24022648, 0.055503324, 0.0096184369, 0.0013398874, 0.00015353362)
# log(1 + e) / e for e in [0, 1], relative error 1.3e-6 and 3e-8: no logarithm is taken of a number
# near 1, and small time steps are as accurate as large ones.
_LOG1P = {
    16: (
        0.999998748,
        -0.499869645,
        0.331094503,
        -0.235038608,
        0.149223879,
        -0.066401802,
        0.0141410241,
    ),
    32: (
        0.99999994,
        -0.499994934,
        0.333190978,
        -0.24842982,
        0.191060066,
        -0.136632457,
        0.0782259554,
        -0.0295052398,
        0.00523269409,
    ),
}


def exp2(bits: int) -> tuple[float, ...]:
    """Returns the coefficients c_1, c_2, ... of 2^f = 1 + c_1 f + c_2 f^2 + ..."""
    return _EXP2[bits]


def exp2_on_cpu() -> tuple[float, ...]:
    """Returns the coefficients of 2^f as `exp2` does, for float32 on a CPU."""
    return _EXP2_ON_CPU


def log1p(bits: int) -> tuple[float, ...]:
    """Returns the coefficients c_0, c_1, ... of log(1 + e) = e (c_0 + c_1 e + c_2 e^2 + ...)."""
    return _LOG1P[bits]
