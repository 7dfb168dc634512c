"""Minimax polynomials of elementary functions, for kernels.

Coefficients are in float32, of the lowest power first, for inputs of 16 or of 32 bits.
"""

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


def log1p(bits: int) -> tuple[float, ...]:
    """Coefficients c_0, c_1, ... of log(1 + e) = e (c_0 + c_1 e + c_2 e^2 + ...)."""
    return _LOG1P[bits]
