import huggingface_hub
import numpy as np
import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.tasks import find_task
from caduceus_jax.train.tasks.facts import GENOMIC_BENCHMARKS, NUCLEOTIDE_TRANSFORMER


def read(folder, name="genomic_benchmarks/human_enhancers_cohn"):
    return find_task(LabelledConfig(task=name, folder=str(folder)))


def test_the_same_task_from_every_layout(tmp_path):
    rows = {"train": [("ACGT", 1), ("AAAA", 0), ("CCCC", 1)], "test": [("GGGG", 0)]}
    for layout in ("csv", "hub", "package"):
        task = tmp_path / layout / "human_enhancers_cohn"
        for part, pairs in rows.items():
            if layout == "csv":
                text = "sequence,label\n" + "".join(f"{s},{label}\n" for s, label in pairs)
                task.mkdir(parents=True, exist_ok=True)
                (task / f"{part}.csv").write_text(text)
            elif layout == "hub":
                (task / "data").mkdir(parents=True, exist_ok=True)
                frame = polars.DataFrame(pairs, schema=["seq", "label"], orient="row")
                frame.write_parquet(task / "data" / f"{part}-00000-of-00001-0a1b.parquet")
            else:
                for i, (sequence, label) in enumerate(pairs):
                    folder = task / part / ("negative", "positive")[label]
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{i}.txt").write_text(sequence)
        found = read(tmp_path / layout)
        assert found.classes == ("negative", "positive")
        pairs = sorted(zip(found.train.sequences, found.train.labels, strict=True))
        assert pairs == [(b"AAAA", 0), (b"ACGT", 1), (b"CCCC", 1)], layout
        assert list(zip(found.test.sequences, found.test.labels, strict=True)) == [(b"GGGG", 0)]
        assert (found.max_length, found.metric, found.validation) == (500, "accuracy", None)


def test_the_order_of_classes_does_not_depend_on_the_folders(tmp_path):
    """The original numbers classes as a file system lists them, train and test each for itself."""
    for part, order in (("train", ("worm", "human")), ("test", ("human", "worm"))):
        for name in order:
            folder = tmp_path / "demo_human_or_worm" / part / name
            folder.mkdir(parents=True)
            (folder / "0.txt").write_text({"human": "AC", "worm": "GT"}[name])
    found = read(tmp_path, "genomic_benchmarks/demo_human_or_worm")
    for examples in (found.train, found.test):
        assert examples.sequences == [b"AC", b"GT"]
        np.testing.assert_array_equal(examples.labels, [0, 1])


def test_fasta_with_labels_in_the_headers(tmp_path):
    folder = tmp_path / "splice_sites_all"
    folder.mkdir()
    (folder / "train.fna").write_text(">chr1:5|2\nACGT\n>chr2:9|0\nGG\n")
    (folder / "test.fna").write_text(">chr3:5|1\nAC\n")
    found = read(tmp_path, "nucleotide_transformer/splice_sites_all")
    assert found.classes == ("0", "1", "2") and found.train.names == ["chr1:5", "chr2:9"]
    np.testing.assert_array_equal(found.train.labels, [2, 0])


def test_what_is_missing_is_one_sentence_with_its_address(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="cohn is not there, and https://huggingface.co/datasets/"):
        read(tmp_path)
    with pytest.raises(UserError, match="has no task H5; it has H3,"):
        read(tmp_path, "nucleotide_transformer/H5")
    (tmp_path / "human_enhancers_cohn").mkdir()
    with pytest.raises(UserError, match="has no train sequences: it needs train.csv"):
        read(tmp_path)
    (tmp_path / "human_enhancers_cohn" / "train" / "dog").mkdir(parents=True)
    with pytest.raises(UserError, match="holds the classes dog; expected are negative, positive"):
        read(tmp_path)


def test_every_published_task_is_known():
    assert len(GENOMIC_BENCHMARKS) == 8 and len(NUCLEOTIDE_TRANSFORMER) == 18
    assert GENOMIC_BENCHMARKS["human_nontata_promoters"].scores["Caduceus-PS"] == (0.945, 0.010)
    assert NUCLEOTIDE_TRANSFORMER["H3"].scores["Caduceus-Ph"] == (0.815, 0.048)
    for facts in (*GENOMIC_BENCHMARKS.values(), *NUCLEOTIDE_TRANSFORMER.values()):
        assert len(facts.scores) == 6 and all(0 < mean < 1 for mean, _ in facts.scores.values())
