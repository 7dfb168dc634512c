"""Sums as matrix products, against NumPy's sums."""

import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels import sums

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape)


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6)


def test_all_leading_axes_are_summed():
    x = draw(3, 4, 5, 6)
    close(sums.sum_leading(jnp.asarray(x), keep=2), x.sum((0, 1)))
    close(sums.sum_leading(jnp.asarray(x), keep=1), x.sum((0, 1, 2)))


def test_the_length_is_summed():
    x = draw(2, 7, 3)
    close(sums.sum_length(jnp.asarray(x)), x.sum(1))


def test_states_and_channels_are_summed_with_weights():
    x, by_state, by_channel = draw(5, 2, 4, 3), draw(5, 2, 4), draw(5, 2, 3)
    close(sums.sum_states(jnp.asarray(x), jnp.asarray(by_state)), (x * by_state[..., None]).sum(2))
    found = sums.sum_channels(jnp.asarray(x), jnp.asarray(by_channel))
    close(found, (x * by_channel[:, :, None]).sum(3))
