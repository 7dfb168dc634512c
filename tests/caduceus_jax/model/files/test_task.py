import dataclasses

import pytest

from caduceus_jax.model.files import task
from caduceus_jax.model.files.task import TaskDescription


def test_what_is_recorded_is_read_again():
    tuned = TaskDescription(
        kind="regression", max_length=96, pooling="max", rc_mode="posthoc", centre=(0.5, 1.0),
        scale=(2.0, 3.0), labels=("leaf", "root"),
    )  # fmt: skip
    hf = tuned.in_hf({"d_model": 8}, 2)
    assert hf["id2label"] == {"0": "leaf", "1": "root"} and hf["label2id"]["root"] == 1
    assert hf["problem_type"] == "regression"
    assert TaskDescription.recorded(hf) == tuned and TaskDescription.of(hf) == tuned


def test_a_plain_classifier_leaves_the_config_as_it_is():
    hf = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "problem_type": "regression"}
    plain = TaskDescription.of(hf)
    assert plain == TaskDescription(kind="regression")
    assert plain.in_hf(hf, 2) == hf
    assert TaskDescription.recorded(hf) is None and TaskDescription.recorded(None) is None


@pytest.mark.parametrize(
    ("hf", "kind", "labels"),
    [
        ({}, "classification", ()),
        ({"id2label": {"0": "x"}}, "regression", ("x",)),
        ({"num_labels": 3}, "classification", ()),
        ({"id2label": {"1": "b", "0": "a"}}, "classification", ("a", "b")),
        ({"problem_type": "multi_label_classification"}, "multi_label", ()),
    ],
    ids=str,
)
def test_what_hugging_face_tells_of_a_classifier(hf, kind, labels):
    found = TaskDescription.of(hf)
    assert (found.kind, found.labels) == (kind, labels)


def test_names_of_another_task_do_not_stay():
    hf = TaskDescription(max_length=9, labels=("cat", "dog")).in_hf({}, 2)
    renewed = TaskDescription(kind="multi_label").in_hf(hf, 2)
    assert renewed["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"} and task.KEY not in renewed
    assert renewed["problem_type"] == "multi_label_classification"
    assert TaskDescription().in_hf(hf, 3)["id2label"]["2"] == "LABEL_2"


def test_fields_of_a_newer_version_are_left_out():
    hf = TaskDescription(max_length=9).in_hf({}, 2)
    hf[task.KEY]["temperature"] = 0.5
    assert TaskDescription.of(hf).max_length == 9


def test_none_means_no_mode():
    used = TaskDescription(rc_mode="posthoc").used_as(rc_mode="none", labels=["a", "b"])
    assert used == TaskDescription(labels=("a", "b"))
    assert dataclasses.replace(used, pooling="max").used_as(
        rc_mode="posthoc", labels=()
    ) == TaskDescription(rc_mode="posthoc", pooling="max")
