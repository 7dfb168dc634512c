import gzip

import numpy as np
import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.tasks import find_task


def write(path, text):
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def test_tables_of_every_kind_read_alike(tmp_path):
    rows = [("ACGT", "no"), ("acgtN", "yes"), ("RY", "no")]
    csv = "sequence,label\n" + "".join(f"{s},{label}\n" for s, label in rows)
    files = [
        write(tmp_path / "a.csv", csv),
        write(tmp_path / "a.csv.gz", csv),
        write(tmp_path / "a.tsv", csv.replace(",", "\t")),
        write(
            tmp_path / "a.fa", "".join(f">n|{i}|{lab}\n{s}\n" for i, (s, lab) in enumerate(rows))
        ),
        str(tmp_path / "a.parquet"),
    ]
    polars.DataFrame(rows, schema=["sequence", "label"], orient="row").write_parquet(files[-1])
    for path in files:
        task = find_task(LabelledConfig(train=path, test=path))
        assert task.classes == ("no", "yes"), path
        assert task.train.sequences == [b"ACGT", b"acgtN", b"NN"], path
        np.testing.assert_array_equal(task.train.labels, [0, 1, 0])
        assert (task.max_length, task.metric, task.validation) == (5, "accuracy", None)
        assert len(task.test.sequences) == 3


def test_numbers_are_ordered_as_numbers_and_the_order_is_the_training_files(tmp_path):
    train = write(tmp_path / "train.csv", "sequence,label\nA,10\nC,2\nG,-1\n")
    test = write(tmp_path / "test.csv", "sequence,label\nT,10\n")
    task = find_task(LabelledConfig(train=train, test=test))
    assert task.classes == ("-1", "2", "10")
    np.testing.assert_array_equal(task.test.labels, [2])
    assert task.name == tmp_path.name
    again = write(tmp_path / "marks_train.csv", "sequence,label\nA,1\nC,2\n")
    assert find_task(LabelledConfig(train=again)).name == "marks"


def test_values_to_regress(tmp_path):
    train = write(tmp_path / "expression.csv", "bases,k562,gm12878\nAC,1.5,-2\nGT,0,1e1\n")
    config = LabelledConfig(
        train=train, sequence="bases", label=["k562", "gm12878"], kind="regression"
    )
    task = find_task(config)
    assert (task.name, task.classes, task.metric) == ("expression", ("k562", "gm12878"), "pearson")
    np.testing.assert_array_equal(task.train.labels, np.array([[1.5, -2], [0, 10]], np.float32))
    assert task.test.labels.shape == (0, 2)


def test_what_cannot_be_used_is_named(tmp_path):
    good = write(tmp_path / "good.csv", "sequence,label\nACGT,0\nAC,1\n")
    cases = {
        "nothing to learn from": {},
        "nowhere.csv does not exist": {"train": str(tmp_path / "nowhere.csv")},
        r"good.csv has no column dna; it has sequence, label": {"train": good, "sequence": "dna"},
        "t.txt is read by its name's ending": {"train": write(tmp_path / "t.txt", "x")},
        "e.csv has no rows": {"train": write(tmp_path / "e.csv", "sequence,label\n")},
        r"p.csv:3: 'F' is not a nucleotide code": {
            "train": write(tmp_path / "p.csv", "sequence,label\nAC,0\nMF,1\n")
        },
        r"m.csv:2: the label is empty": {
            "train": write(tmp_path / "m.csv", "sequence,label\nAC,\n")
        },
        r"s.csv:2: the sequence is missing": {
            "train": write(tmp_path / "s.csv", "sequence,label\n,1\n")
        },
        r"f.fa: the record one has no label: its header is >name\|label": {
            "train": write(tmp_path / "f.fa", ">one\nAC\n")
        },
        r"o.csv:2 has the label 7, which no training sequence has; they have 0, 1": {
            "train": good,
            "test": write(tmp_path / "o.csv", "sequence,label\nAC,7\n"),
        },
        r"r.csv:2 has the label high, which is not a number to regress": {
            "train": write(tmp_path / "r.csv", "sequence,label\nAC,high\n"),
            "kind": "regression",
        },
        "starts with one of: genomic_benchmarks": {"task": "nothing/known"},
    }
    for message, settings in cases.items():
        with pytest.raises(UserError, match=message):
            find_task(LabelledConfig(**settings))
