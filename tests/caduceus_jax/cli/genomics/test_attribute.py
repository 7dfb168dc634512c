"""`caduceus-jax attribute`: every kind of output, and what they cannot hold."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax import UserError
from caduceus_jax.cli.genomics.attribute import attribute as command
from caduceus_jax.genomics.options import Attribution
from tests import genomes
from tests.models import language_model

SEQUENCE = "".join(np.random.default_rng(0).choice(list("ACGT"), 60))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attribute")
    language_model(d_model=16, n_layer=1).save_pretrained(folder / "model")
    genomes.fasta(folder / "g.fa", chr1=SEQUENCE)
    (folder / "r.bed").write_text("chr1\t10\t31\nchr1\t20\t41\n")
    return folder


def test_every_output_has_the_same_numbers(place):
    pybigwig = pytest.importorskip("pyBigWig")
    out = [place / name for name in ("a.parquet", "a.tsv", "a.bw", "a.npz")]
    command(str(place / "model"), str(place / "r.bed"), genome=str(place / "g.fa"), out=out)
    expected = cj.attribute(place / "model", place / "r.bed", genome=place / "g.fa")
    assert polars.read_parquet(out[0]).equals(expected)
    assert polars.read_csv(out[1], separator="\t")["pos"].to_list() == expected["pos"].to_list()
    values = expected["attribution"].to_numpy()
    with pybigwig.open(str(out[2])) as file:
        track = np.array(file.values("chr1", 0, 60))
    np.testing.assert_allclose(track[10:20], values[:10], rtol=1e-6)
    np.testing.assert_allclose(track[20:31], (values[10:21] + values[21:32]) / 2, rtol=1e-5)
    assert np.isnan(track[:10]).all() and np.isnan(track[41:]).all()
    contributions, there = np.load(out[3])["arr_0"], np.load(place / "a.one_hot.npz")["arr_0"]
    assert contributions.shape == there.shape == (2, 4, 21)
    np.testing.assert_allclose((contributions * there).sum(1).reshape(-1), values, rtol=1e-6)
    assert "".join("ACGT"[i] for i in there[0].argmax(0)) == SEQUENCE[10:31]


def test_a_region_is_drawn(place):
    pytest.importorskip("matplotlib")
    options = Attribution(method="integrated_gradients", steps=4, window=3)
    model, genome = str(place / "model"), str(place / "g.fa")
    for name in ("a.png", "a.svg", "a.pdf"):
        command(model, "chr1:11-31", genome=genome, out=[place / name], options=options)
        assert (place / name).stat().st_size > 1_000
    with pytest.raises(UserError, match="a picture shows one sequence, and there are 2: name a re"):
        command(model, str(place / "r.bed"), genome=genome, out=[place / "b.png"])
    assert not list(place.glob("*.journal"))


def test_what_an_output_cannot_hold_is_found_out_first(place):
    (place / "s.fa").write_text(f">a\n{SEQUENCE[:20]}\n>b\n{SEQUENCE[:21]}\n")
    with pytest.raises(UserError, match="holds sequences of one length, and there are"):
        command("nowhere", str(place / "s.fa"), out=[place / "s.npz"])
    with pytest.raises(UserError, match="is a track on a genome: pass `genome`"):
        command("nowhere", str(place / "s.fa"), out=[place / "s.bw"])
