import jax
import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.finetuning.start import read_start
from caduceus_jax.train.finetuning.step import describe, make_finetune_program, mean_loss, put
from caduceus_jax.train.sharding import make_mesh


def task(kind, labels, *classes):
    examples = Examples(list("abcd"), [b"ACGT"] * 4, labels)
    return Task("t", kind, classes, "accuracy", 4, examples, None, examples)


CLASSES = task("classification", np.array([0, 0, 0, 1], np.int32), "a", "b")


def test_losses_by_hand():
    outputs = jnp.log(jnp.array([[0.5, 0.5], [0.8, 0.2]]))
    labels, weights = jnp.array([0, 1]), jnp.array([1.0, 1.0])
    found = mean_loss(outputs, labels, weights, CLASSES)
    np.testing.assert_allclose(found, -(np.log(0.5) + np.log(0.2)) / 2, rtol=1e-6)
    # A row that only fills does not count; a class that counts three times does.
    found = mean_loss(outputs, labels, jnp.array([1.0, 0.0]), CLASSES)
    np.testing.assert_allclose(found, -np.log(0.5), rtol=1e-6)
    found = mean_loss(outputs, labels, weights, CLASSES, np.array([1.0, 3.0], np.float32))
    np.testing.assert_allclose(found, -(np.log(0.5) + 3 * np.log(0.2)) / 4, rtol=1e-6)


def test_losses_of_several_labels_by_hand():
    several = task("multi_label", np.zeros((4, 2), np.float32), "a", "b")
    outputs, labels = jnp.array([[0.0, jnp.log(3.0)]]), jnp.array([[1.0, 0.0]])
    one, two = -np.log(0.5), -np.log(0.25)
    found = mean_loss(outputs, labels, jnp.ones(1), several)
    np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-6)
    found = mean_loss(outputs, labels, jnp.ones(1), several, np.array([5.0, 7.0], np.float32))
    np.testing.assert_allclose(found, (5 * one + two) / 2, rtol=1e-6)


def test_values_are_squared_errors():
    values = task("regression", np.zeros((4, 2), np.float32), "x", "y")
    found = mean_loss(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]]), jnp.ones(1), values)
    np.testing.assert_allclose(found, 2.5)


@pytest.fixture(scope="module")
def program():
    config = FinetuneConfig(
        architecture=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        class_weights="balanced",
        data=LabelledConfig(kind="classification"),
    )
    start = read_start(config, CLASSES)
    mesh = make_mesh(jax.devices()[:2])
    return config, start, mesh, make_finetune_program(config, CLASSES, start, mesh, steps=10)


def test_a_program_serves_all_seeds(program):
    _, _, mesh, made = program
    ids = np.random.default_rng(0).integers(7, 11, (4, 4)).astype(np.int32)
    batch = {
        "input_ids": ids,
        "padding_mask": np.ones((4, 4), bool),
        "labels": CLASSES.train.labels,
        "weights": np.ones(4, np.float32),
        "rows": np.arange(4),
    }
    losses = []
    for seed in (1, 2):
        state, frozen = made.init(seed)
        state, metrics = made.train_step(state, frozen, put(batch, mesh))
        losses.append(float(metrics["loss"]))
        assert int(state.step) == 1
        outputs = made.predict(state.trained, frozen, put(batch, mesh))
        model = made.export(state.trained, frozen)
        np.testing.assert_allclose(model(jnp.asarray(ids)).logits, outputs, atol=1e-5)
    assert losses[0] != losses[1]
    assert made.train_step._cache_size() == 1  # compiled once


def test_what_the_outputs_mean_is_recorded(program):
    config, start, _, _ = program
    found = describe(config, CLASSES, start)
    assert (found.kind, found.labels, found.max_length) == ("classification", ("a", "b"), 4)
    assert (found.pooling, found.rc_mode, found.centre) == ("mean", None, ())
    labels = np.array([[1.0], [3.0], [1.0], [3.0]], np.float32)
    values = task("regression", labels, "x")
    found = describe(config, values, read_start(config, values))
    assert (found.centre, found.scale) == ((2.0,), (1.0,))
