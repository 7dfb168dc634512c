"""`caduceus-jax mutagenesis`: tables, tracks and pictures of every change."""

import pathlib

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax import CaduceusForMaskedLM, UserError
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.genomics.mutagenesis import mutagenesis as command
from caduceus_jax.cli.main import main
from caduceus_jax.cli.signature import signature
from caduceus_jax.genomics.mutagenesis import mutagenesis
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome
from tests import genomes
from tests.models import kinds, language_model

CONTEXT = 31
OPTIONS = Masking(context_length=CONTEXT)


@pytest.fixture(scope="module")
def sequence() -> str:
    drawn = "".join(np.random.default_rng(0).choice(list("ACGT"), 80))
    return drawn[:30] + "N" + drawn[31:]


def write_genome(path: pathlib.Path, sequence: str) -> Genome:
    return genomes.genome(path, {"chr1": sequence})


@pytest.fixture
def genome(tmp_path, sequence) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequence)


def build(rcps: bool) -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=1, rcps=rcps, initializer_range=1.0)


@pytest.fixture
def folder(tmp_path) -> str:
    build(rcps=True).save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


@pytest.mark.parametrize("track", ["mean", "minimum"])
def test_command(tmp_path, folder, genome, track, capsys):
    pybigwig = pytest.importorskip("pyBigWig")
    names = ("a.parquet", "a.tsv", "a.bw", "a.png", "a.svg", "a.pdf")
    out = [tmp_path / name for name in names[: 6 if track == "mean" else 3]]
    options = {"track": track, "strand": "-", "options": OPTIONS}
    command(folder, "chr1:21-60", genome=str(genome.path), out=out, **options)
    files = ", ".join(map(str, out))
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"regions: 1 ok; 40 bases, 1 ambiguous; written to {files}"
    )
    expected = mutagenesis(build(rcps=True), "chr1:21-60", genome, options=OPTIONS)
    frame = polars.read_parquet(out[0])
    assert frame.drop("llr").equals(expected.drop("llr"))
    np.testing.assert_allclose(frame["llr"].to_numpy(), expected["llr"].to_numpy(), atol=1e-5)
    assert polars.read_csv(out[1], separator="\t", schema=frame.schema).equals(frame)
    groups = frame.group_by("pos", maintain_order=True)
    llr = polars.col("llr")
    values = groups.agg(llr.mean() if track == "mean" else llr.min())["llr"].to_numpy()
    with pybigwig.open(str(out[2])) as file:
        assert file.header()["nBasesCovered"] == 39
        np.testing.assert_allclose(file.values("chr1", 20, 60), values, atol=1e-6)
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path in out[3:]:
        assert path.read_bytes().startswith(starts[path.suffix])


def test_a_sequence_without_coordinates(tmp_path, folder):
    """Every record of a FASTA file is a contig."""
    path = tmp_path / "promoters.fa"
    path.write_text(">first some words\nACGTTGCA\n>second\nGGCC\n")
    out = [tmp_path / "a.tsv"]
    command(folder, "second", genome=str(path), out=[out[0]], options=OPTIONS)
    frame = polars.read_csv(out[0], separator="\t")
    assert frame["chrom"].unique().to_list() == ["second"]
    assert frame["pos"].to_list() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    command(folder, "all", genome=str(path), out=out, options=OPTIONS)
    assert len(polars.read_csv(out[0], separator="\t")) == 36


def test_pictures_that_are_refused_before_the_work(tmp_path, genome):
    bed = tmp_path / "two.bed"
    bed.write_text("chr1\t0\t5\nchr1\t7\t9\n")
    with pytest.raises(UserError) as error:
        command("no model", str(bed), genome=str(genome.path), out=[tmp_path / "a.png"])
    assert str(error.value) == (
        "a picture shows one region, and there are 2: name one, like chr22:30,000,001-30,002,000"
    )
    long = write_genome(tmp_path / "long.fa", "ACGT" * 251)
    with pytest.raises(UserError) as error:
        command(
            "no model",
            "chr1",
            genome=str(long.path),
            out=[tmp_path / "a.tsv", tmp_path / "a.svg"],
        )
    assert str(error.value) == (
        "a picture shows at most 1,000 bases and the region has 1,004: draw a part of it, or "
        "write a table or a track"
    )
    assert not (tmp_path / "a.tsv").exists()


def test_the_command_line_takes_the_other_strand():
    words = ["m", "r", "--genome", "g", "--strand", "-", "--out", "a.tsv", "b.png"]
    parsed = parse("mutagenesis", signature(command), words).keywords
    assert parsed["strand"] == "-"
    assert list(map(str, parsed["out"])) == ["a.tsv", "b.png"]


def test_a_fine_tuned_models_changes_as_a_table_a_track_and_a_picture(tmp_path, genome, capsys):
    pybigwig = pytest.importorskip("pyBigWig")
    path = str(tmp_path / "tracks")
    kinds()["tracks"].save_pretrained(path)
    out = [tmp_path / name for name in ("a.tsv", "a.bw", "a.png")]
    words = ["mutagenesis", path, "chr1:21-30", "--genome", str(genome.path)]
    words += ["--context-length", "16", "--output", "1", "--out", *map(str, out)]
    assert main(words) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("regions: 1 ok; 10 bases")
    expected = mutagenesis(cj.load(path), "chr1:21-30", genome, context_length=16)
    frame = polars.read_csv(out[0], separator="\t", schema=expected.schema)
    column = "difference_LABEL_1"
    np.testing.assert_allclose(frame[column].drop_nulls(), expected[column].drop_nulls(), atol=1e-6)
    means = expected.group_by("pos", maintain_order=True).agg(polars.col(column).mean())
    with pybigwig.open(str(out[1])) as file:
        found = np.array(file.values("chr1", 20, 30))
    np.testing.assert_allclose(found, means[column].fill_null(np.nan).to_numpy(), atol=1e-6)
    assert out[2].read_bytes().startswith(b"\x89PNG")
    words[words.index("--output") + 1] = "LABEL_9"
    assert main(words) == 2
    assert "the model's outputs are: LABEL_0, LABEL_1" in capsys.readouterr().err
