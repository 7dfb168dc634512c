"""Every tolerance of the test suite, with its reason. A change here is a commit of its own.

Errors are relative to the largest magnitude of what is compared unless a name says otherwise.
"""

import numpy as np

# float32 rounds to 2^-24 = 6e-8; sums of some hundred terms and the exponentials of a recurrence
# lose one to two digits of that.
SCAN_FP32 = 1e-5
# Inputs and outputs rounded to bfloat16 (2^-9 = 2e-3) a few times over.
SCAN_BF16 = 1e-2
# float64 against float64: the same algebra in another order.
SCAN_FP64 = 1e-11

# Root-mean-square error of y after 131,072 tokens whose decays all come from a polynomial, for
# inputs of 16 and of 32 bits: far below bfloat16's rounding of y, and float32's own.
LONG_SCAN = {16: 2e-5, 32: 1e-6}

# The contract with the original implementation: largest absolute difference of logits and hidden
# states, relative difference of losses and of each gradient, relative difference of each step's
# metrics and of the weights at the end.
PARITY_LOGITS = 1e-4
PARITY_LOSS = 1e-5
PARITY_GRADIENT = 1e-4
PARITY_TRAINING = 1e-5

# Largest absolute difference between f(rc(x)) and rc(f(x)), and between a sequence with and
# without its padding: the same numbers summed in another order.
EQUIVARIANCE = 1e-5
PADDING = 1e-5

# What a model says of each base, as Kullback-Leibler divergence in nats: of float32 from the
# original, and of bfloat16 from float32, where of all bases this share keeps its likeliest token.
DIVERGENCE_FP32 = 1e-6
DIVERGENCE_BF16 = 1e-3
SAME_TOKEN_BF16 = 0.999
# Largest absolute difference of logits that padding to twice the length makes, on either side:
# one bit of the largest logits.
PADDING_TWICE = 1e-6

# bfloat16 activations through a few layers, relative to the largest logit.
MODEL_BF16 = 5e-2


def relative_error(found, expected) -> float:
    """Largest absolute difference over the largest magnitude expected."""
    found = np.asarray(found, np.float64)
    expected = np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    scale = np.abs(expected).max()
    return float(np.abs(found - expected).max() / (scale if scale else 1.0))
