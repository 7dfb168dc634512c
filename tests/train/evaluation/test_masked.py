import gzip
import json

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.train.evaluation.config import MaskedEvaluation
from caduceus_jax.train.evaluation.masked import (
    Annotation,
    MaskedWindows,
    evaluate_masked,
    mask_windows,
    read_regions,
    tabulate,
)
from tests.models import language_model


def test_scores_by_hand():
    bases = np.frombuffer(b"ACGTACGT", np.uint8).reshape(2, 4)
    soft = np.array([[True, False, False, False], [False] * 4])
    hidden = MaskedWindows(
        bases, soft, ["one", "one"], np.array([0, 4]), np.array([[0, 3], [1, -1]])
    )
    log_p = np.log(np.full((2, 2, 4), 0.1))
    log_p[0, 0, 0], log_p[0, 1, 3], log_p[1, 0, 2] = np.log([0.7, 0.7, 0.7])
    regions = Annotation(["one", "one"], np.array([3, 3]), np.array([5, 6]), ["exon", "gene"])
    found = tabulate(hidden, log_p, regions)
    # Hidden are A of base 0 (a repeat, right), T of base 3 (right) and C of base 5 (wrong).
    right, wrong = -np.log(0.7), -np.log(0.1)
    third = {"bases": 3, "cross_entropy": (2 * right + wrong) / 3, "accuracy": 2 / 3}
    assert found["all"] == pytest.approx({**third, "order_0_entropy": np.log(3)})
    assert found["repeats"]["cross_entropy"] == pytest.approx(right)
    assert found["no repeats"]["accuracy"] == 0.5
    assert (found["exon"]["bases"], found["gene"]["bases"]) == (1, 2)
    assert found["not annotated"]["bases"] == 1


def test_the_same_bases_are_hidden_every_time_and_never_n(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGTN"), 640, p=(0.2, 0.2, 0.2, 0.2, 0.2)))
    (tmp_path / "g.fa").write_text(f">one\n{text}\n>two\n{'N' * 64}\n")
    genome = Genome(tmp_path / "g.fa")
    given = MaskedEvaluation("m", genome="g", context_length=32, windows=7)
    one, again = mask_windows(genome, given), mask_windows(genome, given)
    np.testing.assert_array_equal(one.positions, again.positions)
    assert one.bases.shape == (7, 32) and one.positions.shape == (7, 5)
    for row, at in zip(one.bases, one.positions, strict=True):
        assert not (row[at[at >= 0]] == ord("N")).any()
    assert set(one.contig) == {"one"}
    with pytest.raises(cj.UserError, match="no window of 32 bases that is not mostly N"):
        mask_windows(genome, MaskedEvaluation("m", genome="g", context_length=32, contigs="two"))


def test_annotation_of_either_kind(tmp_path):
    gff = "##gff-version 3\nchr1\tx\texon\t5\t10\t.\t+\t.\tID=a\n##FASTA\n>chr1\nACGT\n"
    (tmp_path / "a.gff3.gz").write_bytes(gzip.compress(gff.encode()))
    (tmp_path / "a.bed").write_text("chr1\t4\t10\texon\n")
    for name in ("a.gff3.gz", "a.bed"):
        found = read_regions(tmp_path / name)
        assert (found.contig, found.kind) == (["chr1"], ["exon"])
        assert (found.start.tolist(), found.end.tolist()) == ([4], [10])
    (tmp_path / "b.gtf").write_text("chr1\tx\texon\tfive\t10\t.\t+\t.\ta\n")
    with pytest.raises(cj.UserError, match="b.gtf:1: not a GFF line"):
        read_regions(tmp_path / "b.gtf")


def test_the_command_writes_its_table(tmp_path, capsys):
    text = "".join(np.random.default_rng(0).choice(list("ACGTacgt"), 1024))
    (tmp_path / "g.fa").write_text(f">one\n{text}\n")
    language_model(d_model=8, n_layer=1).save_pretrained(str(tmp_path / "m"))
    config = MaskedEvaluation(
        str(tmp_path / "m"),
        genome=str(tmp_path / "g.fa"),
        out=str(tmp_path / "out"),
        context_length=64,
        windows=4,
        batch_size=2,
        dtype="bfloat16",
    )
    evaluate_masked(config)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["all"]["bases"] == 4 * 10
    assert found["repeats"]["bases"] + found["no repeats"]["bases"] == 40
    assert f"| all | 40 | {found['all']['cross_entropy']:.4f} |" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.md",
        "results.json",
    }
    assert "<td class=text>repeats</td>" in (tmp_path / "out" / "report.html").read_text()
