"""Sums, products, exponentials and softplus against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import arithmetic
from caduceus_jax.kernels.arithmetic import linear

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape)


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6)


def test_all_leading_axes_are_summed():
    x = draw(3, 4, 5, 6)
    close(arithmetic.sum_leading(jnp.asarray(x), keep=2), x.sum((0, 1)))
    close(arithmetic.sum_leading(jnp.asarray(x), keep=1), x.sum((0, 1, 2)))


def test_the_length_is_summed():
    x = draw(2, 7, 3)
    close(arithmetic.sum_length(jnp.asarray(x)), x.sum(1))


def test_states_and_channels_are_summed_with_weights():
    x, by_state, by_channel = draw(5, 2, 4, 3), draw(5, 2, 4), draw(5, 2, 3)
    close(
        arithmetic.sum_states(jnp.asarray(x), jnp.asarray(by_state)),
        (x * by_state[..., None]).sum(2),
    )
    found = arithmetic.sum_channels(jnp.asarray(x), jnp.asarray(by_channel))
    close(found, (x * by_channel[:, :, None]).sum(3))


def relative_error(found, expected):
    return np.max(np.abs(np.asarray(found, np.float64) - expected) / np.abs(expected))


def test_exponentials_are_those_of_float32():
    x = np.concatenate([-np.geomspace(1e-8, 87, 100_000), np.geomspace(1e-8, 88.3, 100_000)])
    x = x.astype(np.float32)
    error = np.asarray(jax.jit(arithmetic.exp)(x), np.float64) / np.exp(x.astype(np.float64)) - 1
    assert np.max(np.abs(error) / (1e-7 + 7e-8 * np.abs(x))) < 1
    # A decay of nearly one stays what it is, or a state would not last 100,000 tokens.
    assert arithmetic.exp(jnp.float32(0)) == 1
    near = jnp.float32(-1e-5) * jnp.arange(1, 1000, dtype=jnp.float32)
    assert relative_error(arithmetic.exp(near), np.exp(np.asarray(near, np.float64))) < 1e-7


def test_exponentials_at_the_edges():
    x = jnp.array([-np.inf, -1e30, -104, 88.8, 1e30, np.inf, np.nan], jnp.float32)
    np.testing.assert_array_equal(
        arithmetic.exp(x), np.array([0, 0, 0, np.inf, np.inf, np.inf, np.nan], np.float32)
    )


def test_softplus_is_that_of_float32():
    x = np.linspace(-80, 80, 200_001).astype(np.float32)
    expected = np.logaddexp(x.astype(np.float64), 0)
    found = np.asarray(jax.jit(arithmetic.softplus)(x), np.float64)
    assert np.max(np.abs(found - expected) / np.maximum(expected, 1)) < 1.5e-7
    # Small time steps are as exact as large ones.
    assert np.max(np.abs(found / expected - 1)[x > -10]) < 1e-6
    edges = arithmetic.softplus(jnp.array([-np.inf, np.inf, np.nan], jnp.float32))
    np.testing.assert_array_equal(edges, np.array([0, np.inf, np.nan], np.float32))


@pytest.mark.parametrize("name", ["exp", "softplus"])
def test_derivatives_of_any_order(name):
    """Inside of `lax.scan` too, where rules of our own can get lost."""
    ours = getattr(arithmetic, name)
    known = {"exp": jnp.exp, "softplus": lambda x: jnp.log1p(jnp.exp(x))}[name]
    x = jnp.linspace(-5.0, 2.0, 15).at[3].set(0.0)

    def walked(function):
        def run(x):
            return jax.lax.scan(lambda total, y: (total + function(y), None), 0.0, x)[0]

        return run

    for order in (
        jax.grad,
        lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(f)(x)))),
        lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (jnp.cos(x),))[1],
        lambda f: jax.jacfwd(jax.jacrev(f)),
    ):
        found, expected = order(walked(ours))(x), order(walked(known))(x)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_other_dtypes_are_jax_own():
    x = jnp.linspace(-3, 3, 7, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(arithmetic.exp(x), jnp.exp(x))
    np.testing.assert_array_equal(arithmetic.softplus(x), jax.nn.softplus(x))


@pytest.fixture
def factors():
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 3, 5, 4), (4, 6), (6,))
    )


def test_values_are_those_of_a_product_bit_for_bit(factors):
    x, weight, bias = factors
    np.testing.assert_array_equal(linear(x, weight), x @ weight)
    np.testing.assert_array_equal(linear(x[0, 0], weight, bias), x[0, 0] @ weight + bias[None])
    assert linear(x.astype(jnp.bfloat16), weight, bias).dtype == jnp.bfloat16


def test_gradients_in_float64(factors):
    x, weight, bias = factors
    cotangent = jnp.cos(jnp.arange(2 * 3 * 5 * 6.0)).reshape(2, 3, 5, 6)
    _, pull_back = jax.vjp(linear, x, weight, bias)
    wide = [np.asarray(a, np.float64) for a in (x, weight, cotangent)]
    expected = (
        wide[2] @ wide[1].T,
        np.einsum("bsli,bslo->io", wide[0], wide[2]),
        wide[2].sum((0, 1, 2)),
    )
    for found, value in zip(pull_back(cotangent), expected, strict=True):
        assert np.abs(found - value).max() < 1e-5


def test_forward_mode_and_second_derivatives(factors):
    x, weight, _ = factors
    moved = (jnp.ones_like(x), jnp.ones_like(weight))
    _, tangent = jax.jvp(linear, (x, weight), moved)
    expected = moved[0] @ weight + x @ moved[1]
    assert np.abs(tangent - expected).max() < 1e-5

    def loss(x, weight):
        return (linear(x, weight) ** 3).sum()

    def plain(x, weight):
        return ((x @ weight) ** 3).sum()

    small = (x[0, 0, :2], weight[:, :2])
    for found, value in zip(
        jax.tree.leaves(jax.hessian(loss, (0, 1))(*small)),
        jax.tree.leaves(jax.hessian(plain, (0, 1))(*small)),
        strict=True,
    ):
        assert np.abs(found - value).max() < 1e-4 * np.abs(value).max()


def test_the_gradient_of_a_weight_is_not_transposed(factors):
    x, weight, _ = factors
    program = jax.make_jaxpr(jax.grad(lambda w: linear(x, w).sum()))(weight)
    made = {v: equation.primitive.name for equation in program.jaxpr.eqns for v in equation.outvars}
    assert [made[v] for v in program.jaxpr.outvars] == ["dot_general"]


def test_examples_of_vmap(factors):
    x, weight, _ = factors
    each = jax.vmap(jax.grad(lambda w, x: linear(x, w).sum()), (None, 0))(weight, x)
    assert each.shape == (2, 4, 6)
    assert np.abs(each.sum(0) - jax.grad(lambda w: linear(x, w).sum())(weight)).max() < 1e-4
