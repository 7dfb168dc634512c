import jax
import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from tests.tolerances import PARITY_LOSS


def test_masked_lm_loss_by_hand():
    # Probabilities 1/2, 1/4, 1/4 at each position.
    logits = jnp.log(jnp.asarray([[[0.5, 0.25, 0.25]] * 3]))
    labels = jnp.asarray([[0, 1, 4]])
    expected = (np.log(2) + np.log(4)) / 2
    np.testing.assert_allclose(cj.masked_lm_loss(logits, labels), expected, rtol=PARITY_LOSS)
    weights = jnp.asarray([[3.0, 1.0, 100.0]])
    expected = (3 * np.log(2) + np.log(4)) / 4
    loss = cj.masked_lm_loss(logits, labels, weights)
    np.testing.assert_allclose(loss, expected, rtol=PARITY_LOSS)
    loss = cj.masked_lm_loss(logits, jnp.asarray([[0, 1, -100]]), ignore_index=-100)
    np.testing.assert_allclose(loss, (np.log(2) + np.log(4)) / 2, rtol=PARITY_LOSS)
    # The ignored label may be a token of the vocabulary.
    loss = cj.masked_lm_loss(logits, jnp.asarray([[0, 0, 1]]), ignore_index=0)
    np.testing.assert_allclose(loss, np.log(4), rtol=PARITY_LOSS)


def test_nothing_to_predict_is_zero_with_zero_gradient():
    labels = jnp.full((2, 5), 4)
    logits = jnp.ones((2, 5, 16))
    loss, gradient = jax.value_and_grad(cj.masked_lm_loss)(logits, labels)
    assert loss == 0 and not gradient.any()
    assert cj.masked_lm_loss(logits, jnp.zeros((2, 5), int), jnp.zeros((2, 5))) == 0


def test_classification_losses_by_hand():
    logits = jnp.log(jnp.asarray([[0.5, 0.5], [0.25, 0.75]]))
    single = cj.classification_loss(logits, jnp.asarray([0, 1]))
    np.testing.assert_allclose(single, -(np.log(0.5) + np.log(0.75)) / 2, rtol=PARITY_LOSS)
    values = jnp.asarray([[1.0], [3.0]])
    assert cj.classification_loss(values, jnp.asarray([0.0, 1.0])) == (1 + 4) / 2
    several = cj.classification_loss(jnp.asarray([[0.0, 100.0]]), jnp.asarray([[1.0, 0.0]]))
    np.testing.assert_allclose(several, (np.log(2) + 100) / 2, rtol=PARITY_LOSS)
    regression = cj.classification_loss(logits, jnp.zeros((2, 2)), problem_type="regression")
    np.testing.assert_allclose(regression, (logits**2).mean(), rtol=PARITY_LOSS)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (jnp.asarray([0, 1, -1]), "single_label_classification"),
        (jnp.asarray([[0.5, 2.0], [1.0, 0.0], [jnp.nan, 0.0]]), "regression"),
        (jnp.asarray([[0, 1], [1, 1], [9, 9]]), "multi_label_classification"),
    ],
)
def test_sequences_of_weight_0_do_not_count(labels, problem):
    """Whatever they hold: nothing of them is in the loss or the gradient, compiled or not."""
    logits = jnp.asarray([[0.5, -1.0], [2.0, 0.25], [jnp.nan, jnp.inf]])
    loss = lambda logits, weights: cj.classification_loss(logits, labels, problem, weights)  # noqa: E731
    weights = jnp.asarray([3.0, 1.0, 0.0])
    one, two = (
        cj.classification_loss(logits[i : i + 1], labels[i : i + 1], problem) for i in (0, 1)
    )
    for f in (jax.value_and_grad(loss), jax.jit(jax.value_and_grad(loss))):
        value, gradient = f(logits, weights)
        np.testing.assert_allclose(value, (3 * one + two) / 4, rtol=PARITY_LOSS)
        assert jnp.isfinite(gradient).all() and gradient[:2].any() and not gradient[2].any()
        value, gradient = f(logits, jnp.zeros(3))
        assert value == 0 and not gradient.any()
    with pytest.raises(cj.UserError, match=r"weights has shape \(2,\); it is \(batch,\), \(3,\)"):
        loss(logits, weights[:2])


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(cj.UserError, match=r"integer labels \(batch,\), not float32"):
        cj.classification_loss(
            jnp.zeros((2, 3)), jnp.zeros(2), problem_type="single_label_classification"
        )
    with pytest.raises(cj.UserError, match=r"one value per logit: \(2, 3\), not \(2, 2\)"):
        cj.classification_loss(jnp.zeros((2, 3)), jnp.zeros((2, 2)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (jnp.asarray([[0, 3]]), "labels holds 3, and the model's tokens .* are 0 to 2"),
        (jnp.asarray([[0, -100]]), r"labels holds -100, .* \(pass ignore_index for labels"),
    ],
)
def test_labels_that_are_no_tokens_are_refused(labels, message):
    with pytest.raises(cj.UserError, match=message):
        cj.masked_lm_loss(jnp.zeros((1, 2, 3)), labels)


def test_a_compiled_loss_makes_wrong_labels_visible():
    logits = jnp.zeros((1, 2, 3))
    loss = jax.jit(cj.masked_lm_loss)
    assert jnp.isnan(loss(logits, jnp.asarray([[0, 7]])))
    assert jnp.isfinite(loss(logits, jnp.asarray([[0, 2]])))
    assert jnp.isnan(jax.jit(cj.classification_loss)(logits[0], jnp.asarray([0, 5])))


def test_classes_out_of_range_are_refused():
    with pytest.raises(cj.UserError, match="labels holds 2, and the classes of this head are 0 to"):
        cj.classification_loss(jnp.zeros((2, 2)), jnp.asarray([0, 2]))
