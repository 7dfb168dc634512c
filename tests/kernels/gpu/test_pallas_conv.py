"""The convolution's gradients in one kernel, against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import causal_conv1d
from caduceus_jax.kernels.gpu import pallas_conv


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_gradients(reverse, silu):
    rng = np.random.default_rng(0)
    x, grad = (jnp.asarray(rng.normal(size=(2, 21, 18)), jnp.float32) for _ in range(2))
    weight = jnp.asarray(rng.normal(size=(4, 18)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=18), jnp.float32)

    def convolve(x, weight, bias):
        return causal_conv1d(x, weight, bias, silu=silu, reverse=reverse, implementation="chunked")

    expected = jax.vjp(convolve, x, weight, bias)[1](grad)
    found = pallas_conv.gradients(
        x, weight[None], bias[None], grad, reverse=reverse, silu=silu, interpret=True
    )
    sums = (found[0], found[1].sum(0), found[2].sum(0))  # weight and bias for each sequence
    for one, other in zip(sums, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
