"""The equation, by hand."""

import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels import selective_scan_with_state
from tests.kernels.scan_cases import cast, example, numpy_scan
from tests.tolerances import SCAN_FP32


def sequence(*values):
    return jnp.asarray(values, jnp.float32)[None, :, None]  # (batch 1, length, 1)


def test_two_tokens_by_hand():
    """A = -1 and steps of ln 2: each token halves the state and adds ln 2 * B u."""
    step = np.log(2)
    y, state = selective_scan_with_state(
        sequence(1, 3),
        sequence(step, step),
        -jnp.ones((1, 1)),
        sequence(2, 1),
        sequence(1, 10),
        jnp.asarray([0.5]),
        delta_softplus=False,
        implementation="reference",
    )
    h = [step * 2, step * 2 / 2 + step * 3]
    np.testing.assert_allclose(y[0, :, 0], [h[0] + 0.5, 10 * h[1] + 1.5], rtol=1e-6)
    np.testing.assert_allclose(state[0, 0, 0], h[1], rtol=1e-6)


def test_softplus_gate_and_bias_by_hand():
    y, _ = selective_scan_with_state(
        sequence(2),
        sequence(-1),
        -jnp.ones((1, 1)),
        sequence(1),
        sequence(1),
        z=sequence(1),
        delta_bias=jnp.asarray([1.0]),
        implementation="reference",
    )
    silu = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(y, np.log(2) * 2 * silu, rtol=1e-6)  # softplus(0) = ln 2


def test_it_is_the_equation_in_numpy():
    arguments = example(9, channels=3, groups=2)
    y, state = selective_scan_with_state(**cast(arguments), implementation="reference")
    expected_y, expected_state = numpy_scan(arguments)
    for found, expected in ((y, expected_y), (state, expected_state)):
        assert np.abs(found - expected).max() < SCAN_FP32 * np.abs(expected).max()
