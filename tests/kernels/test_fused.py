"""An operation with a forward and a backward kernel, here two lines of JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import fused


class Inputs(NamedTuple):
    """A scale for each group, and a batch of rows."""

    scale: jax.Array  # (groups,)
    x: jax.Array  # (batch, n)


LAUNCHES = []


def each_row(inputs):
    return jnp.tile(inputs.scale, len(inputs.x) // len(inputs.scale))[:, None]


def forward(plan, inputs, known, keep):
    LAUNCHES.append(inputs.x.shape)
    return plan * each_row(inputs) * inputs.x**2, (inputs.x if keep else None)


def backward(plan, inputs, known, residuals, grad):
    by_row = (plan * residuals**2 * grad).sum(1)
    scale = by_row.reshape(-1, len(inputs.scale)).sum(0)
    return Inputs(scale, 2 * plan * each_row(inputs) * residuals * grad)


def portable(plan, inputs):
    return plan * each_row(inputs) * inputs.x**2


OPERATION = fused.fused_operation(forward, backward, ("scale",), portable)
GIVEN = Inputs(jnp.asarray([2.0, 3.0]), jnp.arange(8.0).reshape(4, 2))


def test_values_and_gradients_are_the_kernels():
    np.testing.assert_array_equal(OPERATION(5, GIVEN), portable(5, GIVEN))
    found = jax.grad(lambda inputs: OPERATION(5, inputs).sum())(GIVEN)
    expected = jax.grad(lambda inputs: portable(5, inputs).sum())(GIVEN)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_forward_mode_and_second_derivatives_go_through_the_portable_form():
    tangent = jax.tree.map(jnp.ones_like, GIVEN)
    found = jax.jvp(lambda inputs: OPERATION(5, inputs), (GIVEN,), (tangent,))[1]
    expected = jax.jvp(lambda inputs: portable(5, inputs), (GIVEN,), (tangent,))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    slope = lambda operation: jax.grad(lambda x: operation(5, GIVEN._replace(x=x)).sum())  # noqa: E731
    found = jax.jvp(slope(OPERATION), (GIVEN.x,), (tangent.x,))[1]
    np.testing.assert_allclose(found, 2 * 5 * each_row(GIVEN) * tangent.x, rtol=1e-6)


def test_vmap_is_one_launch_with_gradients_for_every_example():
    several = jax.tree.map(lambda x: jnp.stack([x, 2 * x, 3 * x]), GIVEN)
    LAUNCHES.clear()
    found = jax.vmap(lambda inputs: OPERATION(5, inputs))(several)
    assert LAUNCHES[-1] == (12, 2)
    np.testing.assert_allclose(found, jax.vmap(lambda i: portable(5, i))(several), rtol=1e-6)
    gradients = jax.vmap(jax.grad(lambda inputs: OPERATION(5, inputs).sum()))(several)
    expected = jax.vmap(jax.grad(lambda inputs: portable(5, inputs).sum()))(several)
    for one, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_dtypes_without_a_kernel_are_refused_by_name():
    fused.check(True, u=jnp.zeros(2, jnp.bfloat16), z=None)
    with pytest.raises(NotImplementedError, match="u in float16; supported: float32 and bfloat16"):
        fused.check(True, u=jnp.zeros(2, jnp.float16))
