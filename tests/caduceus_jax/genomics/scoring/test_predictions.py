"""Predictions in the units of the labels."""

import dataclasses

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.genomics.reference.sequences import of_bases
from caduceus_jax.genomics.scoring.predictions import PredictionWork
from tests.models import classifier

SEQUENCES = of_bases(["a", "b"], [b"ACGTACGT", b"GGG"])


def work(**task):
    model = classifier(num_labels=2)
    model.task = dataclasses.replace(model.task, **task)
    return PredictionWork(cj.Pretrained(model, cj.Tokenizer()), SEQUENCES, Prediction())


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("classification", ["predicted", "p_no", "p_yes"]),
        ("multi_label", ["p_no", "p_yes"]),
        ("regression", ["predicted_no", "predicted_yes"]),
    ],
)
def test_columns_have_the_names_of_the_labels(kind, columns):
    made = work(kind=kind, labels=("no", "yes"))
    assert made.columns == columns
    assert made.empty().columns[-len(columns) :] == columns


def test_outputs_become_probabilities_or_values():
    outputs = np.asarray([[0.0, np.log(3)], [1.0, 1.0]], np.float32)
    frame = work(kind="classification", labels=("no", "yes"))._frame(range(2), outputs)
    np.testing.assert_allclose(frame["p_yes"], [0.75, 0.5], rtol=1e-6)
    assert frame["predicted"].to_list() == ["yes", "no"]
    frame = work(kind="multi_label", labels=("no", "yes"))._frame(range(2), outputs)
    np.testing.assert_allclose(frame["p_no"], [0.5, 1 / (1 + np.exp(-1))], rtol=1e-6)
    made = work(kind="regression", labels=("no", "yes"), scale=(2.0, 1.0), centre=(5.0, 0.0))
    np.testing.assert_allclose(made._frame(range(2), outputs)["predicted_no"], [5, 7], rtol=1e-6)


def test_what_is_longer_than_in_training_loses_its_end(caplog):
    caplog.set_level("INFO", "caduceus_jax")
    made = work(kind="classification", max_length=4)
    assert "1 of 2 sequences are longer than the 4 bases" in caplog.text
    assert sum(made.weights) == 4 + 3


def test_models_of_other_kinds_are_refused():
    tracks = cj.CaduceusForTracks
    m = cj.Pretrained(tracks.__new__(tracks), cj.Tokenizer())
    with pytest.raises(UserError, match="predicts tracks"):
        PredictionWork(m, SEQUENCES, Prediction())
