"""A model under jax.jit, jax.grad, jax.vmap and jax.export, as research code uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from tests.models import (
    KINDS,
    SMALL,
    forward,
    kinds,
    language_model,
    random_ids,
    randomised,
)
from tests.tolerances import SCAN_FP32, relative_error

IDS = jnp.asarray(random_ids(8))


def test_vmap_is_the_batch():
    model, ids = language_model(n_layer=2), jnp.asarray(random_ids())
    one = lambda ids: model(ids[None]).logits[0]  # noqa: E731
    assert relative_error(jax.jit(jax.vmap(one))(ids), forward(model, ids).logits) < SCAN_FP32


def test_gradient_of_the_model_is_a_model_of_gradients():
    model, ids = language_model(n_layer=2), jnp.asarray(random_ids(length=12))
    loss = jax.jit(lambda m: cj.masked_lm_loss(m(ids).logits, ids))
    gradient = jax.jit(jax.grad(loss))(model)
    assert jax.tree.structure(gradient) == jax.tree.structure(model)
    # Along the gradient, the loss changes by the gradient's squared norm.
    squares = sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(gradient))
    step = 1e-3 / np.sqrt(squares)
    ahead, behind = (
        float(loss(jax.tree.map(lambda p, g: p + sign * step * g, model, gradient)))  # noqa: B023
        for sign in (1, -1)
    )
    assert abs((ahead - behind) / (2 * step) - squares) < 0.02 * squares


def test_a_model_made_under_x64_is_one_of_float32():
    config = cj.CaduceusConfig(**SMALL, rcps=True, tie_word_embeddings=False)
    with jax.enable_x64(True):
        models = [
            cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)),
            cj.CaduceusForSequenceClassification(
                config, num_signals=1, head_bias=True, rngs=nnx.Rngs(0)
            ),
        ]
        assert {x.dtype for m in models for x in jax.tree.leaves(m)} == {jnp.dtype("float32")}
        assert jax.eval_shape(models[0], IDS).logits.dtype == jnp.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_the_model(kind):
    model = kinds()[kind]
    assert "caduceus" in nnx.tabulate(model, IDS)
    assert jnp.isfinite(forward(model, IDS).logits).all()


def test_an_ensemble_is_a_stack_of_models():
    members = [randomised(lambda: kinds()["ph"], seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda m: m(IDS).logits))(stacked)
    for one, member in zip(together, members, strict=True):
        assert relative_error(one, forward(member, IDS).logits) < SCAN_FP32
