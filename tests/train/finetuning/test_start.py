import dataclasses
import logging

import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.finetuning.start import label_scale, read_start


def task(*classes, kind="classification", labels=None):
    labels = np.array([0, 1, 0, 1], np.int32) if labels is None else labels
    examples = Examples(list("abcd"), [b"ACGT"] * 4, labels)
    return Task("t", kind, classes, "accuracy", 4, examples, None, examples)


def classifier(folder, rcps=True, **described):
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=rcps)
    description = TaskDescription(max_length=4, **described)
    model = cj.CaduceusForSequenceClassification(
        config,
        num_labels=len(description.labels),
        pooling=description.pooling,
        rc_mode=description.rc_mode,
        labels=description.labels,
        task=description,
        rngs=nnx.Rngs(0),
    )
    model.save_pretrained(folder)
    return FinetuneConfig(model=str(folder))


def test_a_stored_head_is_used_for_the_same_labels_in_the_same_order_alone(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="caduceus_jax")
    config = classifier(tmp_path, labels=("weak", "strong"))
    assert read_start(config, task("weak", "strong")).reuses_head
    assert "the head of" in caplog.text and "is used, for weak, strong" in caplog.text
    for other in (("strong", "weak"), ("weak", "strong", "none"), ("0", "1")):
        caplog.clear()
        assert not read_start(config, task(*other)).reuses_head
        assert "it is for classification of weak, strong, and this task is" in caplog.text
    caplog.clear()
    again = dataclasses.replace(config, new_head=True)
    assert not read_start(again, task("weak", "strong")).reuses_head
    assert "is replaced by a new one: new_head is set" in caplog.text


def test_pooling_and_strands_are_those_recorded_unless_they_are_given(tmp_path):
    config = classifier(tmp_path, rcps=False, labels=("a", "b"), pooling="max", rc_mode="posthoc")
    start = read_start(config, task("a", "b"))
    assert (start.pooling, start.rc_mode) == ("max", "posthoc")
    assert start.augments and start.answers_for_both_strands
    given = dataclasses.replace(config, pooling="mean", rc_mode="none")
    start = read_start(given, task("a", "b"))
    assert (start.pooling, start.rc_mode) == ("mean", "none")
    # What is recorded of another head says nothing about a new one.
    assert read_start(config, task("c", "d")).pooling == "mean"


def test_values_keep_the_units_of_the_head_that_learnt_them(tmp_path):
    labels = np.array([[1.0], [3.0], [1.0], [3.0]], np.float32)
    config = classifier(tmp_path, kind="regression", labels=("x",), centre=(10.0,), scale=(5.0,))
    start = read_start(config, task("x", kind="regression", labels=labels))
    assert (start.centre, start.scale) == (10.0, 5.0)
    start = read_start(config, task("y", kind="regression", labels=labels))
    assert (start.centre, start.scale) == (2.0, 1.0)


def test_a_model_without_a_record_needs_a_choice_of_strands(tmp_path):
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4)
    cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)).save_pretrained(tmp_path)
    with pytest.raises(cj.UserError, match="rc_mode is not given, and .* is not equivariant: use"):
        read_start(FinetuneConfig(model=str(tmp_path)), task("a", "b"))
    equivariant = FinetuneConfig(model=str(tmp_path), rc_mode="equivariant")
    with pytest.raises(cj.UserError, match="rc_mode is equivariant, but .* is not equivariant"):
        read_start(equivariant, task("a", "b"))


def test_values_are_scaled_by_their_spread_and_labels_are_not():
    labels = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    centre, scale = label_scale(task("x", "y", kind="regression", labels=labels))
    np.testing.assert_allclose(centre, [2, 5])
    np.testing.assert_allclose(scale, [1, 1])  # what never changes keeps its unit
    assert label_scale(task("a", "b")) == (0, 1)
