import math

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.finetuning.metrics import better, check_metric, score


def test_two_classes_by_hand():
    # Right, right, wrong (a 0 taken for 1), right.
    outputs = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]]))
    found = score(outputs, np.array([0, 1, 0, 1]), "classification")
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert found["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert found["mcc"] == pytest.approx((2 * 1 - 0) / math.sqrt(3 * 2 * 2 * 1))
    # Of the four pairs of a 1 and a 0, all are in order.
    assert found["auroc"] == 1.0
    assert found["loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())


def test_scores_that_are_not_defined_are_nan():
    found = score(np.zeros((3, 2)), np.array([1, 1, 1]), "classification")
    assert math.isnan(found["auroc"]) and found["loss"] == pytest.approx(math.log(2))
    assert math.isnan(score(np.ones((3, 1)), np.arange(3.0)[:, None], "regression")["pearson"])


def test_three_classes_are_averaged():
    outputs = np.eye(3)[[0, 1, 2, 2]] * 5
    found = score(outputs, np.array([0, 1, 2, 1]), "classification")
    assert found["accuracy"] == 0.75
    assert found["f1"] == found["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    # Of class 1, one of two is above both others and one ties with them; of class 2, the one ties
    # with one of three.
    assert found["auroc"] == pytest.approx((1 + 3 / 4 + 2.5 / 3) / 3)


def test_regression_by_hand():
    outputs, labels = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [3.0], [5.0]])
    found = score(outputs, labels, "regression")
    assert found["mse"] == found["loss"] == pytest.approx(2 / 3)
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["spearman"] == 1.0
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 5])[0, 1])
    assert found["r2"] == pytest.approx(1 - 2 / 8)


def test_which_is_better():
    assert better(0.5, None, "mcc") and better(0.6, 0.5, "mcc") and not better(0.4, 0.5, "mcc")
    assert better(0.4, 0.5, "mse") and not better(0.6, 0.5, "loss")
    assert not better(math.nan, None, "mcc")


def test_a_score_that_does_not_exist_is_refused():
    check_metric("pearson", "regression")
    with pytest.raises(UserError, match="metric is pearson; a classification has accuracy"):
        check_metric("pearson", "classification")
