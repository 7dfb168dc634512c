"""What the outputs of fine-tuned models are called, and how those of two windows are compared."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.finetuned.outputs import Outputs, forward
from caduceus_jax.model.files.task import TaskDescription
from tests.models import kinds, random_ids


def outputs(kind, names, **more) -> Outputs:
    return Outputs(TaskDescription(kind=kind, **more), names, kind == "tracks", 4)


def test_classes_change_by_probability_and_by_log_odds():
    found = outputs("classification", ("a", "b", "c"))
    assert found.columns[:2] == ("difference_p_a", "log_odds_ratio_a")
    ref, alt = np.array([[0.0, 1.0, 2.0]]), np.array([[1.0, 1.0, -2.0]])
    before, after = (np.exp(x) / np.exp(x).sum() for x in (ref, alt))
    changes = found.changes(ref, alt)[0]
    np.testing.assert_allclose(changes[::2], (after - before)[0], atol=1e-6)
    odds = np.log(after / (1 - after)) - np.log(before / (1 - before))
    np.testing.assert_allclose(changes[1::2], odds[0], atol=1e-6)


def test_labels_change_each_by_itself_and_certain_ones_stay_finite():
    found = outputs("multi_label", ("a", "b"))
    changes = found.changes(np.array([[-800.0, 0.0]]), np.array([[800.0, 0.0]]))
    np.testing.assert_array_equal(changes, [[1, 1600, 0, 0]])
    classes = outputs("classification", ("a", "b"))
    changes = classes.changes(np.array([[-800.0, 0.0]]), np.array([[800.0, 0.0]]))
    np.testing.assert_array_equal(changes, [[1, 1600, -1, -1600]])


def test_values_and_tracks_change_in_their_units():
    values = outputs("regression", ("x", "y"), centre=(5.0, 6.0), scale=(2.0, 10.0))
    np.testing.assert_allclose(values.changes(np.zeros((1, 2)), np.ones((1, 2))), [[2, 10]])
    np.testing.assert_allclose(values.values(np.ones((1, 2), np.float32)), [[7, 16]])
    tracks = outputs("tracks", ("x",), bin_size=4, scale=(3.0,))
    assert tracks.columns == ("difference_x", "largest_difference_x")
    assert tracks.shape(12) == (3, 1)
    ref, alt = np.zeros((1, 3, 1)), np.array([[[1.0], [-4.0], [0.0]]])
    np.testing.assert_allclose(tracks.changes(ref, alt), [[-3, -12]])
    assert tracks.changes(ref[:0], alt[:0]).shape == (0, 2)


def test_columns_are_described_and_outputs_named_or_numbered():
    classes = outputs("classification", ("p_a", "b"))
    assert classes.describe("difference_p_p_a").startswith("Probability of p_a")
    assert classes.column(None) == "log_odds_ratio_b" == classes.column("1")
    tracks = outputs("tracks", ("x", "y", "z"))
    assert tracks.describe("largest_difference_x").startswith("Change of x")
    assert tracks.describe("difference_y").startswith("Mean of y over the window with ALT")
    assert tracks.column("z") == "difference_z"
    with pytest.raises(
        UserError, match="pass `output`, one of several; the model's outputs are: x, y, z"
    ):
        tracks.column(None)


def test_padded_models_run_at_their_full_length():
    padded = outputs("classification", ("a", "b"), max_length=30, padded=True)
    assert padded.run_length(20) == 30
    assert outputs("classification", ("a", "b"), max_length=30).run_length(20) == 20


def test_forward_gives_logits():
    model, ids = kinds()["tracks"], random_ids(8)
    assert forward(model, ids, None).shape == (2, 2, 2)


def test_a_language_model_has_no_outputs():
    with pytest.raises(UserError, match="was not fine-tuned"):
        Outputs.of(cj.Pretrained(kinds()["ps"], cj.Tokenizer()))
