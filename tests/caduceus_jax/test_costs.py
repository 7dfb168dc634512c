"""Counts of one literal shape, by hand, and held against what XLA and the traced model say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.bench.runs import draw, draw_mixer, mixer_config, mixer_forward
from caduceus_jax.costs import Shape, floors, mixer_counts, scan_counts

SHAPE = Shape(batch=2, length=3, channels=4, state=5)


def test_a_scan():
    counts = scan_counts(SHAPE, itemsize=2)
    # 24 numbers in each of u, delta, z, y; 30 in B and in C; 120 state elements.
    assert counts["forward"] == {
        "bytes": 2 * (24 + 24 + 24 + 30 + 30 + 24),
        "exponentials": 120 + 24 + 24 + 24,
        "flops": 600,
    }
    # The same arrays read, and the cotangent; gradients of u, delta, z, B, C written.
    assert counts["backward"] == {
        "bytes": 2 * (132 + 24 + 132),
        "exponentials": 192,
        "flops": 1560,
    }
    assert counts["forward_backward"] == {"bytes": 888, "exponentials": 384, "flops": 2160}


def test_a_mixer():
    counts = mixer_counts(SHAPE, itemsize=4, d_model=2, delta_rank=1)
    # For each of 6 tokens: 2 x 8 for in_proj, 4 x 2 for out_proj; in each of two directions
    # 4 x (1 + 5 + 5) to delta, B, C and 1 x 4 to delta.
    multiply_adds = 6 * (16 + 8 + 2 * (44 + 4))
    assert counts["forward"] == {
        "bytes": 4 * (12 + 12),
        # Twice: decay, softplus (two), SiLU of the convolution; once the gate.
        "exponentials": 2 * (120 + 3 * 24) + 24,
        "products": 2 * multiply_adds,
    }
    assert counts["backward"] == {
        "bytes": 4 * (12 + 12 + 12),
        "exponentials": 408,
        "products": 4 * multiply_adds,
    }


def test_floors():
    found = floors(
        {"bytes": 300, "exponentials": 50, "flops": 9}, {"bytes": 1e5, "exponentials": 1e4}
    )
    assert found == {"bytes": pytest.approx(3.0), "exponentials": pytest.approx(5.0)}


def unrolled(u, delta, A, B, C, D, z, delta_bias):
    """The scan without a loop, so that XLA counts every step."""
    delta = jnp.log(1 + jnp.exp(delta + delta_bias[None, None]))
    h, y = jnp.zeros((u.shape[0], *A.shape)), []
    for t in range(u.shape[1]):
        h = jnp.exp(delta[:, t, :, None] * A[None]) * h
        h += (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        y.append((h * C[:, t, None, :]).sum(-1))
    return (jnp.stack(y, 1) + D[None, None] * u) * z / (1 + jnp.exp(-z))


def test_xla_counts_as_much_for_an_unrolled_scan():
    found = {}
    for state in (5, 6):
        shape = SHAPE._replace(state=state)
        inputs = jax.eval_shape(lambda shape=shape: draw(shape, "float32"))
        cost = jax.jit(lambda inputs: unrolled(**inputs)).lower(inputs).cost_analysis()
        found[state] = cost["flops"]
        assert cost["transcendentals"] == scan_counts(shape, 4)["forward"]["exponentials"]
    # What a further state adds is free of the work per channel. The product with A that the
    # exponential takes is counted with it.
    elements = SHAPE.tokens * SHAPE.channels
    ours = scan_counts(SHAPE, 4)["forward"]["flops"] / SHAPE.elements
    assert (found[6] - found[5]) / elements == ours + 1


def matrix_products(jaxpr):
    """Operations of all matrix products in a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            terms = np.prod([equation.invars[0].aval.shape[i] for i in contracted])
            total += 2 * int(terms) * equation.outvars[0].aval.size
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += matrix_products(inner) if hasattr(inner, "eqns") else 0
    return total


def test_the_matrix_products_of_the_real_mixer_are_as_many():
    shape = Shape(2, 6, 8, 4)
    config = mixer_config(shape)
    mixer, hidden = jax.eval_shape(lambda: draw_mixer(shape, "float32"))
    jaxpr = jax.make_jaxpr(mixer_forward("reference"))(mixer, hidden).jaxpr
    counts = mixer_counts(shape, 4, config.d_model, config.delta_rank)
    assert matrix_products(jaxpr) == counts["forward"]["products"]
