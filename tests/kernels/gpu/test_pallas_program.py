"""Elementary functions of the Pallas kernels, and the devices that they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels.gpu import polynomials, target
from caduceus_jax.kernels.gpu.pallas_program import EXACT, TokenLoop, launch


def loop(**changed):
    settings = {"chunk": 8, "tokens": None, "block": 16, "channels": None, "delta_softplus": True}
    settings |= {"reverse": False, "math": EXACT}
    settings |= {"log1p": polynomials.log1p(32)}
    return TokenLoop(**settings | changed)


def test_old_devices_are_refused():
    shape = jax.ShapeDtypeStruct((4,), jnp.float32)
    with (
        target.compiling_for(75),
        pytest.raises(NotImplementedError, match=r"capability 7\.5; sup"),
    ):
        launch(lambda x, y: None, [jnp.zeros(4)], interpret=False, out_shape=shape)


def test_sigmoid_is_exact_where_it_is_interpreted():
    x = jnp.linspace(-20, 20, 101)
    np.testing.assert_allclose(EXACT.sigmoid(x), jax.nn.sigmoid(x), rtol=1e-5)


def test_softplus_and_its_slope():
    x = jnp.linspace(-15, 15, 61)
    value, slope = loop().softplus(x)
    np.testing.assert_allclose(value, jax.nn.softplus(x), rtol=1e-5)
    np.testing.assert_allclose(slope, jax.nn.sigmoid(x), rtol=1e-5)


def test_tokens_are_counted_in_walking_order():
    assert [loop().token(k) for k in range(3)] == [0, 1, 2]
    assert [loop(reverse=True).token(k) for k in range(3)] == [7, 6, 5]
    assert loop().real(3) is None  # all of a whole chunk exist
    assert [bool(loop(tokens=2).real(t)) for t in range(4)] == [True, True, False, False]


def test_a_state_that_is_forgotten():
    a, h = jnp.full((2, 16), -1.0), jnp.ones((2, 16))
    given = jnp.ones(16), jnp.full(16, 3.0), jnp.asarray([1.0, 2.0])
    for restart, kept in ((0.0, 1.0), (-1e30, 0.0)):
        after, decay = loop().next_state(a, h, *given, restart)
        np.testing.assert_allclose(decay, kept * 0.5 * h)
        np.testing.assert_allclose(after, kept * 0.5 * h + jnp.asarray([3.0, 6.0])[:, None])


def test_the_next_state():
    a, h = -jnp.ones((2, 16)), jnp.full((2, 16), 4.0)  # A is in powers of two
    after, decay = loop().next_state(a, h, jnp.ones(16), jnp.full(16, 3.0), jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(decay, 0.5, rtol=1e-6)
    np.testing.assert_allclose(after[:, 0], [5, 8], rtol=1e-6)
