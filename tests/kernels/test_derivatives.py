"""The rule that gives an operation its own backward pass and keeps forward mode."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels.derivatives import differentiable, linear_map, with_tangents

CALLS = []


class Inputs(NamedTuple):
    x: jax.Array
    y: jax.Array | None


def forward(power, inputs, keep):
    """x^power y, whose residual is x^power."""
    CALLS.append("kept" if keep else "forward")
    raised = inputs.x**power
    return raised if inputs.y is None else raised * inputs.y, raised if keep else None


def backward(power, inputs, raised, cotangent):
    CALLS.append("backward")
    y = 1 if inputs.y is None else inputs.y
    slope = power * inputs.x ** (power - 1) * y
    return Inputs(cotangent * slope, None if inputs.y is None else cotangent * raised)


def opaque(power, inputs, keep):
    """As a kernel is: nothing that JAX can differentiate."""
    result = jax.ShapeDtypeStruct(inputs.x.shape, inputs.x.dtype)
    run = lambda x, y: (np.asarray(x) ** power * np.asarray(y)).astype(result.dtype)  # noqa: E731
    outputs = jax.pure_callback(run, result, *inputs, vmap_method="expand_dims")
    return outputs, jnp.zeros_like(outputs) if keep else None


def portable(power, inputs):
    return inputs.x**power * inputs.y


def opaque_backward(power, inputs, residuals, cotangent):
    result = jax.ShapeDtypeStruct(inputs.x.shape, inputs.x.dtype)

    def run(x, y, cotangent):
        x, y, cotangent = map(np.asarray, (x, y, cotangent))
        slope = cotangent * power * x ** (power - 1) * y
        return slope.astype(result.dtype), (cotangent * x**power).astype(result.dtype)

    found = jax.pure_callback(run, (result, result), *inputs, cotangent, vmap_method="expand_dims")
    return Inputs(*found)


OPERATIONS = {
    "by itself": differentiable(forward, backward),
    "portable": differentiable(opaque, opaque_backward, portable),
}
GIVEN = Inputs(jnp.asarray([1.5, 2.0]), jnp.asarray([3.0, -1.0]))


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_derivatives_are_those_of_the_formula(name):
    def run(inputs):
        return jnp.sum(jnp.sin(OPERATIONS[name](3, inputs)))

    def formula(inputs):
        return jnp.sum(jnp.sin(portable(3, inputs)))

    def slopes(f):
        moved = Inputs(jnp.asarray([0.5, -1.0]), jnp.asarray([0.1, 0.2]))
        norm = lambda a: sum(jnp.sum(x**2) for x in jax.grad(f)(a))  # noqa: E731
        yield f(GIVEN)
        yield jax.grad(f)(GIVEN)
        yield jax.jvp(f, (GIVEN,), (moved,))
        yield jax.jit(jax.jacfwd(jax.grad(f)))(GIVEN)
        yield jax.grad(norm)(GIVEN)
        yield jax.grad(lambda a: jax.jvp(f, (a,), (moved,))[1])(GIVEN)
        yield jax.vmap(jax.grad(f))(jax.tree.map(lambda x: jnp.stack([x, 2 * x]), GIVEN))
        yield jax.vmap(jax.grad(lambda x: f(Inputs(x, GIVEN.y))))(jnp.ones((3, 2)))
        yield jax.grad(lambda y: jax.vmap(lambda x: f(Inputs(x, y)))(jnp.ones((3, 2))).sum())(
            GIVEN.y
        )
        yield jax.grad(lambda x: f(Inputs(x, GIVEN.y)))(GIVEN.x)

    for found, expected in zip(slopes(run), slopes(formula), strict=True):
        for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_the_backward_pass_is_ours_and_inputs_may_be_absent():
    operation = OPERATIONS["by itself"]
    CALLS.clear()
    operation(2, GIVEN)
    assert CALLS == ["forward"]
    gradient = jax.grad(lambda x: operation(2, Inputs(x, None)).sum())(GIVEN.x)
    np.testing.assert_array_equal(gradient, 2 * GIVEN.x)
    assert CALLS[-2:] == ["kept", "backward"]


def test_a_linear_map_has_the_transpose_that_it_is_given():
    def function(constants, arguments):
        return (constants[0] * arguments[0],)

    def transpose(constants, cotangents):
        return (7 * cotangents[0],)

    def run(c, x):
        return linear_map(function, transpose, [c], [x], (jax.typeof(x),))[0]

    x, three = jnp.asarray([1.0, 2.0]), jnp.asarray(3.0)
    np.testing.assert_array_equal(run(three, x), 3 * x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run, (None, 0)))(three, x[None]), 3 * x[None])
    (found,) = jax.linear_transpose(lambda x: run(three, x), x)(x)
    np.testing.assert_array_equal(found, 7 * x)
    (found,) = jax.linear_transpose(jax.vmap(lambda x: run(three, x)), x[None])(x[None])
    np.testing.assert_array_equal(found, 7 * x[None])
    # Differentiated by what it is constant in, it is the function.
    _, moved = jax.jvp(run, (three, x), (jnp.ones(()), x))
    np.testing.assert_array_equal(moved, x + 3 * x)


def test_tangents_by_a_rule():
    def run(x):
        def rule(primals, tangents):
            return run(*primals), 5 * tangents[0]

        return with_tangents(lambda x: x**2, rule, x)

    x = jnp.asarray([1.0, 2.0])
    np.testing.assert_array_equal(jax.jit(run)(x), x**2)
    np.testing.assert_array_equal(jax.grad(lambda x: run(x).sum())(x), [5, 5])
    np.testing.assert_array_equal(jax.vmap(jax.grad(run))(x), [5, 5])
    np.testing.assert_array_equal(jax.grad(lambda x: jax.vmap(run)(x).sum())(x), [5, 5])
