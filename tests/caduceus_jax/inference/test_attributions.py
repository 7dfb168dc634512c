"""Attributions by gradient, along a line, and by change, of likelihoods and outputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.inference.attributions import attributed_batch, attribution_target
from tests.models import classifier, language_model

LENGTH = 9
IDS = np.random.default_rng(3).integers(7, 11, (2, LENGTH)).astype(np.int32)
WHOLE = (None, np.array([[0, LENGTH]] * 2, np.int32))


@pytest.fixture(scope="module")
def lm():
    return language_model(d_model=16, n_layer=1)


@pytest.fixture(scope="module")
def labels():
    return classifier(d_model=16, n_layer=1, rcps=True)


def attributed(model, method, target=None, spans=WHOLE, baseline="uniform", steps=32):
    target = target or attribution_target(model)
    run = functools.partial(
        attributed_batch, target=target, method=method, baseline=baseline, steps=steps
    )
    return np.asarray(jax.jit(run)(model, IDS, spans))


def likelihood(model, ids):
    expected = jax.nn.log_softmax(model(ids).logits)
    return np.asarray(jnp.take_along_axis(expected, jnp.asarray(ids)[..., None], -1).sum((1, 2)))


def test_the_likelihood_is_that_of_all_bases(lm):
    found = attributed(lm, "gradient")
    np.testing.assert_allclose(found[:, -1, 0], likelihood(lm, IDS), rtol=1e-5)
    np.testing.assert_allclose(found[:, :-1].sum(-1), 0, atol=1e-4)


def test_mutagenesis_is_the_likelihood_of_changed_sequences(lm):
    found = attributed(lm, "mutagenesis")
    changed = np.repeat(IDS[:1], 4, 0)
    changed[:, 4] = [7, 8, 9, 10]
    expected = likelihood(lm, changed)
    np.testing.assert_allclose(found[0, 4], expected - expected.mean(), atol=1e-4)


@pytest.mark.parametrize(
    ("baseline", "kind"),
    [
        ("uniform", "lm"),
        ("zeros", "labels"),
        ("n", "lm"),
        pytest.param("uniform", "labels", marks=pytest.mark.slow),
        pytest.param("zeros", "lm", marks=pytest.mark.slow),
        pytest.param("n", "labels", marks=pytest.mark.slow),
    ],
)
def test_integrated_gradients_add_up(lm, labels, baseline, kind):
    model, output = {"lm": (lm, None), "labels": (labels, "1")}[kind]
    target = attribution_target(model, output=output)
    found = attributed(model, "integrated_gradients", target, baseline=baseline, steps=64)
    own = np.take_along_axis(found[:, :-1], (IDS - 7)[..., None], -1).sum((1, 2))
    explained = found[:, -1, 0] - found[:, -1, 1]
    assert np.abs(own - explained).max() < 0.01 * np.abs(explained).min()


def test_masked_bases_contribute_their_log_probabilities(lm):
    target = attribution_target(lm, masked=True)
    found = attributed(lm, "gradient", target, (None, np.array([[4, 5]] * 2, np.int32)))
    masked = IDS.copy()
    masked[:, 4] = 3
    expected = np.asarray(jax.nn.log_softmax(lm(masked).logits)[:, 4, 7:11])
    np.testing.assert_allclose(
        found[:, 4], expected - expected.mean(-1, keepdims=True), rtol=1e-4, atol=1e-5
    )


def test_a_class_is_attributed_by_its_odds(labels):
    target = attribution_target(labels, output="1")
    found = attributed(labels, "gradient", target)
    logits = np.asarray(labels(IDS).logits)
    others = np.log(np.exp(logits[:, [0, 2]]).sum(1))
    np.testing.assert_allclose(found[:, -1, 0], logits[:, 1] - others, rtol=1e-4, atol=1e-5)


def test_what_does_not_go_together_is_refused(lm, labels):
    with pytest.raises(UserError, match="one of several; the model's outputs are: LABEL_0"):
        attribution_target(labels)
    with pytest.raises(UserError, match="output is for fine-tuned models"):
        attribution_target(lm, output="1")
    with pytest.raises(UserError, match="rc_mode is for language models"):
        attribution_target(labels, output="1", rc_mode="none")
    with pytest.raises(UserError, match="window is for language models"):
        attribution_target(labels, output="1", masked=True)
