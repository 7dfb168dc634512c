"""Files of predicted tracks: their names, their bins, and runs in pieces."""

import pathlib

import numpy as np
import polars
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.finetuned.track_files import track_files
from tests.genomes import fasta, write_bed
from tests.models import SMALL, kinds, randomised

BASES = "".join(np.random.default_rng(0).choice(list("ACGT"), 150))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A genome, regions of which two overlap, and models of one track and of two."""
    folder = tmp_path_factory.mktemp("tracks")
    kinds()["tracks"].save_pretrained(folder / "two")
    config = cj.CaduceusConfig(**SMALL, rcps=True)
    one = randomised(
        lambda: cj.CaduceusForTracks(
            config, num_tracks=1, bin_size=4, labels=("x",), rngs=nnx.Rngs(0)
        )
    )
    one.save_pretrained(folder / "one")
    fasta(folder / "a.fa", chr2="ACGT" * 10, chr1=BASES)
    write_bed(folder / "a.bed", ("chr1", 60, 80), ("chr1", 70, 86), ("chr2", 3, 9), ("1", 0, 4))
    return folder


def words(folder, model, out, *more) -> list[str]:
    bed, genome = folder / "a.bed", folder / "a.fa"
    named = ["predict", str(folder / model), str(bed), "--genome", str(genome)]
    return [*named, "--out", str(out), *more]


def test_names_of_files(tmp_path):
    out = tmp_path / "a.bw"
    assert track_files(out, ".bw", ["x"]) == {out: "x"}
    names = ["x y", "x/y", "z"]
    files = track_files(out, ".bw", names)
    assert [path.name for path in files] == ["a.x_y.bw", "a.x_y_.bw", "a.z.bw"]
    assert list(files.values()) == names
    assert track_files(tmp_path / "a.b.tsv", ".tsv", names) == {tmp_path / "a.b.tsv": None}


def test_a_bigwig_has_the_bins_and_the_mean_where_regions_overlap(tmp_path, folder, capsys):
    pybigwig = pytest.importorskip("pyBigWig")
    out = tmp_path / "a.bw"
    assert main(words(folder, "one", out)) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"regions: 4 ok; written to {out}"
    frame = cj.predict(cj.load(folder / "one"), folder / "a.bed", genome=folder / "a.fa")
    total, count = np.zeros(150), np.zeros(150)
    for chrom, start, end, value in frame.select(
        "chrom", "start", "end", "predicted_x"
    ).iter_rows():
        if chrom != "chr2":
            total[start:end] += value
            count[start:end] += 1
    expected = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    with pybigwig.open(str(out)) as file:
        assert file.chroms() == {"chr2": 40, "chr1": 150}
        np.testing.assert_allclose(file.values("chr1", 0, 150), expected, rtol=1e-6)
        of_chr2 = frame.filter(chrom="chr2")["predicted_x"].to_list()
        assert [(s, e) for s, e, _ in file.intervals("chr2")] == [(3, 7), (7, 9)]
        np.testing.assert_allclose([v for *_, v in file.intervals("chr2")], of_chr2, rtol=1e-6)


def test_one_file_for_each_of_several_tracks_and_one_table(tmp_path, folder):
    pybigwig = pytest.importorskip("pyBigWig")
    assert main(words(folder, "two", tmp_path / "a.bw")) == 0
    assert main(words(folder, "two", tmp_path / "b.c.tsv")) == 0
    frame = polars.read_csv(tmp_path / "b.c.tsv", separator="\t")
    expected = cj.predict(cj.load(folder / "two"), folder / "a.bed", genome=folder / "a.fa")
    assert frame.columns == expected.columns and len(frame) == len(expected) == 5 + 4 + 2 + 1
    for i in range(2):
        column = f"predicted_LABEL_{i}"
        np.testing.assert_allclose(frame[column], expected[column], rtol=1e-5)
        with pybigwig.open(str(tmp_path / f"a.LABEL_{i}.bw")) as file:
            np.testing.assert_allclose(file.values("chr1", 60, 61), frame[column][:1], rtol=1e-5)
    assert not (tmp_path / "a.bw").exists()


def test_shards_are_joined_to_the_same_bytes(tmp_path, folder):
    pytest.importorskip("pyBigWig")
    whole, out = tmp_path / "whole.bw", tmp_path / "out.bw"
    assert main(words(folder, "one", whole)) == 0
    for i in (1, 2):
        assert main(words(folder, "one", out, "--shard", f"{i}/2")) == 0
    assert not out.exists()
    assert main(["merge", *(f"{out}.shard-{i}-of-2" for i in (1, 2))]) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_what_has_no_place_on_a_genome_is_no_bigwig(tmp_path, folder, capsys):
    out = str(tmp_path / "a.bw")
    assert main(["predict", str(folder / "one"), str(folder / "a.fa"), "--out", out]) == 2
    assert "has the contigs of a genome: pass --genome" in capsys.readouterr().err
    assert main(words(folder, "one", tmp_path / "a.tsv", "--context-length", "18")) == 2
    assert "--context-length is 18, which is not a multiple" in capsys.readouterr().err
