"""What the GPU kernels compute by polynomials, against float64, and after 131,072 tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from caduceus_jax.kernels.gpu import polynomials, ptx
from tests.tolerances import LONG_SCAN

TOKENS, STATES = 131_072, 16


def power_of_two(x, coefficients):
    """What `ptx.mixed_exp2` computes of one of its arguments."""
    x = jnp.maximum(x, ptx.SMALLEST_EXPONENT)
    whole, power = jnp.round(x), jnp.zeros_like(x)
    for coefficient in (*reversed(coefficients), 1.0):
        power = power * (x - whole) + coefficient
    bits = lax.bitcast_convert_type(power, jnp.int32) + (whole.astype(jnp.int32) << 23)
    return lax.bitcast_convert_type(bits, jnp.float32)


@pytest.mark.parametrize(("bits", "bound"), [(16, 2e-6), (32, 3e-7)])
def test_the_logarithm_is_accurate_where_it_is_small_too(bits, bound):
    e = np.concatenate([np.geomspace(1e-30, 1e-3, 1000), np.linspace(1e-3, 1, 10_000)])
    power = np.float32(0)
    for coefficient in reversed(polynomials.log1p(bits)):
        power = power * e.astype(np.float32) + np.float32(coefficient)
    found = power * e.astype(np.float32)
    np.testing.assert_allclose(found, np.log1p(e), rtol=bound)


@pytest.mark.parametrize(("bits", "bound"), [(16, 1e-5), (32, 1e-6)])
def test_powers_of_two(bits, bound):
    x = jnp.linspace(-125, 20, 8 * 1000, dtype=jnp.float32).reshape(8, 1000)
    found = power_of_two(x, polynomials.exp2(bits))
    np.testing.assert_allclose(found, np.exp2(np.asarray(x, np.float64)), rtol=bound)
    # Decays of whole powers, 1 above all, have no error at all; nothing is below 2^-126.
    exact = power_of_two(jnp.asarray([[0.0, -1.0, -200.0]]), polynomials.exp2(bits))
    np.testing.assert_array_equal(exact, [[1.0, 0.5, 2.0**-126]])


@pytest.mark.parametrize("step", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_state_fades_as_it_should_over_131072_tokens(bits, step):
    rng = np.random.default_rng(0)
    # Time steps of a trained model spread over a decade; A from -1 to -16.
    delta = step * np.exp(rng.normal(size=TOKENS) * 0.5)
    drive = rng.normal(size=(TOKENS, STATES)) * delta[:, None]
    rates = -np.arange(1.0, STATES + 1) * np.log2(np.e)

    def walk(exp2, dtype):
        def token(h, inputs):
            h = exp2(inputs[0] * jnp.asarray(rates, dtype)) * h + inputs[1]
            return h, h.sum()

        inputs = jnp.asarray(delta, dtype), jnp.asarray(drive, dtype)
        return np.asarray(
            jax.jit(lambda i: lax.scan(token, jnp.zeros(STATES, dtype), i))(inputs)[1]
        )

    def by_polynomial(x):
        return power_of_two(x[None], polynomials.exp2(bits))[0]

    found = walk(by_polynomial, jnp.float32)
    with jax.enable_x64(True):
        expected = walk(jnp.exp2, jnp.float64)
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert error < LONG_SCAN[bits]
