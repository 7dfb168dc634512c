import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.step import init_state, make_eval_step, make_train_step, prediction_sums

TOKENIZER = cj.Tokenizer()
PAD, MASK, A, C = 4, 3, 7, 8


def test_prediction_sums_by_hand():
    # Four positions: hidden and right, hidden and wrong, seen but asked for, not asked for.
    batch = {
        "input_ids": jnp.array([[MASK, MASK, A, MASK]]),
        "labels": jnp.array([[A, C, A, PAD]]),
        "weights": jnp.full((1, 4), 0.5),
    }
    # A weighs 3 of 3 + 15 everywhere.
    logits = jnp.zeros((1, 4, 16)).at[..., A].set(math.log(3))
    sums = jax.device_get(prediction_sums(logits, batch, TOKENIZER))
    a, c = math.log(18 / 3), math.log(18)
    assert sums["predicted"] == 3
    assert sums["masked"] == 2
    assert sums["masked_right"] == 1
    assert sums["nats"] == pytest.approx(a + c + a)
    assert sums["masked_nats"] == pytest.approx(a + c)


@pytest.fixture(scope="module")
def trained():
    """A tiny model with its compiled steps: (start, loss, train_step, state)."""
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    settings = OptimizerConfig(warmup_fraction=0.0)
    optimizer, schedule = make_optimizer(settings, 10), make_schedule(settings, 10)
    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    eval_step = make_eval_step(graphdef, TOKENIZER)

    def start():
        # A copy, because the step consumes its state.
        return init_state(jax.tree.map(jnp.array, params), optimizer)

    def loss(labels):
        sums = eval_step(params, batch_of(labels))
        return float(sums["masked_nats"] / sums["masked"])

    return start, loss, make_train_step(graphdef, optimizer, schedule, TOKENIZER)


def batch_of(labels):
    """Where something is asked, [MASK] hides it; A is read elsewhere."""
    labels = jnp.asarray([labels], jnp.int32)
    ids = jnp.where(labels == PAD, A, MASK)
    return {"input_ids": ids, "labels": labels, "weights": jnp.ones(labels.shape)}


def test_a_step_reports_the_loss_before_it_and_learns(trained):
    start, loss, step = trained
    labels = [A, PAD, C, C, PAD, A]
    after, metrics = step(start(), batch_of(labels))
    learning = {"loss", "masked_loss", "masked_accuracy", "grad_norm", "lr"}
    assert set(metrics) == learning | {"skipped", "skipped_in_all", "skipped_in_a_row"}
    assert all(value.shape == () for value in metrics.values())
    assert float(metrics["loss"]) == pytest.approx(loss(labels), rel=1e-5)
    assert float(metrics["masked_loss"]) == pytest.approx(loss(labels), rel=1e-5)
    assert float(metrics["lr"]) == pytest.approx(8e-3)
    assert int(after.step) == 1
    _, again = step(after, batch_of(labels))
    assert float(again["loss"]) < float(metrics["loss"])


def test_bases_of_no_weight_do_not_count(trained):
    start, _, step = trained
    batch = batch_of([A, C, PAD, PAD, C, PAD])
    weights = jnp.array([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    _, metrics = step(start(), batch | {"weights": weights})
    # The same with nothing asked at the two C.
    labels = batch["labels"].at[0, jnp.array([1, 4])].set(PAD)
    _, expected = step(start(), batch | {"labels": labels})
    _, scaled = step(start(), batch | {"weights": weights / 4})
    _, unweighted = step(start(), batch)
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    assert float(scaled["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    assert float(unweighted["loss"]) != pytest.approx(float(expected["loss"]), rel=1e-4)


def test_a_batch_with_nothing_to_predict_has_no_loss_and_no_gradient(trained):
    start, _, step = trained
    state = start()
    embedding = np.array(state.params["caduceus"]["embedding"][...])
    after, metrics = step(state, batch_of([PAD] * 6))
    assert float(metrics["loss"]) == 0
    assert float(metrics["grad_norm"]) == 0
    np.testing.assert_array_equal(after.params["caduceus"]["embedding"][...], embedding)
    for leaf in jax.tree.leaves(after.params):
        assert np.isfinite(leaf).all()


def test_z_loss_and_norms_of_layers():
    """The z-loss changes the gradient, not the loss that is reported."""
    config = cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=True)
    settings = OptimizerConfig(warmup_fraction=0.0, weight_decay=0.0)
    optimizer, schedule = make_optimizer(settings, 10), make_schedule(settings, 10)
    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    batch, found = batch_of([A, PAD, C, C]), []
    for z_loss in (0.0, 0.1):
        step = make_train_step(
            graphdef, optimizer, schedule, TOKENIZER, z_loss=z_loss, layer_norms=True
        )
        after, metrics = step(init_state(jax.tree.map(jnp.array, params), optimizer), batch)
        found.append(metrics | {"after": after.params.caduceus.layers})
    plain, with_z = found
    np.testing.assert_allclose(with_z["loss"], plain["loss"], rtol=1e-5)

    @jax.jit
    @jax.grad
    def gradients(params, z):
        logits = nnx.merge(graphdef, params)(batch["input_ids"]).logits
        asked = batch["labels"] != PAD
        z_term = jnp.sum(asked * jax.nn.logsumexp(logits, axis=-1) ** 2) / jnp.sum(asked)
        return cj.masked_lm_loss(logits, batch["labels"]) + z * z_term

    for metrics, z in ((plain, 0.0), (with_z, 0.1)):
        grads = gradients(params, z)
        whole = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(grads)))
        np.testing.assert_allclose(metrics["grad_norm"], whole, rtol=1e-4)
        layers = jax.tree.leaves(grads.caduceus.layers)
        each = [jnp.sqrt(sum(jnp.sum(x[i] ** 2) for x in layers)) for i in range(2)]
        np.testing.assert_allclose(metrics["grad_norm_layers"], each, rtol=1e-4)
    before = jax.tree.leaves(params.caduceus.layers)
    changes = [x - y for x, y in zip(jax.tree.leaves(plain["after"]), before, strict=True)]
    for i in range(2):
        norms = [sum(jnp.sum(x[i] ** 2) for x in leaves) ** 0.5 for leaves in (changes, before)]
        np.testing.assert_allclose(plain["update_ratio_layers"][i], norms[0] / norms[1], rtol=1e-3)
