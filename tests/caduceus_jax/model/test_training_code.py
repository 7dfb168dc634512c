"""Research code that trains a model: plain optax, nnx.Optimizer, frozen parts and rates by path."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import caduceus_jax as cj
from tests.models import classifier, language_model

IDS = jnp.asarray(np.random.default_rng(0).integers(7, 11, (8, 16)), jnp.int32)
LABELS = (IDS == 7).sum(axis=1) > 4


def loss(model):
    return cj.classification_loss(model(IDS).logits, LABELS.astype(jnp.int32))


def test_plain_optax_on_a_model():
    """A model is a pytree: the optimizer's updates are added to its leaves."""
    model = classifier(num_labels=2, n_layer=1, d_state=4)
    optimizer = optax.adamw(1e-2)
    state = optimizer.init(nnx.state(model, nnx.Param))

    @jax.jit
    def step(model, state):
        value, gradient = jax.value_and_grad(loss)(model)
        params = nnx.state(model, nnx.Param)
        updates, state = optimizer.update(nnx.state(gradient, nnx.Param), state, params)
        nnx.update(model, optax.apply_updates(params, updates))
        return model, state, value

    values = []
    for _ in range(8):
        model, state, value = step(model, state)
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]
    assert isinstance(model, cj.CaduceusForSequenceClassification)


def test_an_optimizer_of_nnx():
    model = classifier(num_labels=2, n_layer=1, d_state=4)
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    values = [float(step(model, optimizer)) for _ in range(8)]
    assert values[-1] < 0.7 * values[0]


def test_parts_are_frozen_and_have_rates_by_their_path():
    model = classifier(num_labels=2, n_layer=2, d_state=4)
    params = nnx.state(model, nnx.Param)

    def group(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "embedding" in name or "norm" in name:
            return "frozen"
        return "head" if name.startswith("score") else "backbone"

    optimizer = optax.multi_transform(
        {"head": optax.sgd(1.0), "backbone": optax.sgd(1e-3), "frozen": optax.set_to_zero()},
        jax.tree_util.tree_map_with_path(group, params),
    )
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    found = {path: float(leaf[...].ravel()[0]) for path, leaf in nnx.to_flat_state(updates)}
    assert found["caduceus", "embedding"] == 0 and found["caduceus", "norm_f", "scale"] == 0
    assert found[("score",)] == -1
    assert found["caduceus", "layers", "mixer", "in_proj", "kernel"] == pytest.approx(-1e-3)


def test_some_layers_of_the_stack_are_frozen():
    """Parameters of blocks are stacked along a leading axis: a mask of layers stops some."""
    model = language_model(n_layer=3, d_state=4)
    trained = jnp.asarray([False, False, True])

    def freeze(path, leaf):
        if "layers" not in jax.tree_util.keystr(path):
            return leaf
        return leaf * trained.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype)

    @jax.jit
    def gradient(model):
        found = jax.grad(lambda m: cj.masked_lm_loss(m(IDS).logits, IDS))(model)
        return jax.tree_util.tree_map_with_path(freeze, nnx.state(found, nnx.Param))

    for path, leaf in nnx.to_flat_state(gradient(model)):
        if "layers" in path:
            assert not leaf[:2].any() and leaf[2].any()


def test_metadata_of_users_survives_a_step():
    model = language_model(n_layer=1, d_state=4)
    model.run = "first"
    gradient = jax.jit(jax.grad(lambda m: cj.masked_lm_loss(m(IDS).logits, IDS)))(model)
    assert gradient.run == "first" and gradient.config == model.config


def test_the_page_on_jax_runs(capsys):
    """Its Python blocks, one after the other."""
    page = (pathlib.Path(__file__).parents[3] / "docs" / "how-to" / "jax.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "jax.md", "exec"), names)
    assert names["by_base"].shape == (1, 16, 4) and jnp.isfinite(names["value"])
    assert "'layers.1', 'norm_f'" in capsys.readouterr().out
