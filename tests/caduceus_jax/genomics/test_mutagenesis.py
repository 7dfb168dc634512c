"""Saturation mutagenesis: the scores of score-variants, on either strand, in every kind of file."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, UserError
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.signature import signature
from caduceus_jax.genomics.mutagenesis import mutagenesis, scores
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.score_variants import score_variants
from tests.models import randomised

polars = pytest.importorskip("polars")

CONTEXT = 31
COMPLEMENT = str.maketrans("ACGT", "TGCA")
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture(scope="module")
def sequence() -> str:
    drawn = "".join(np.random.default_rng(0).choice(list("ACGT"), 80))
    return drawn[:30] + "N" + drawn[31:]


def write_genome(path: pathlib.Path, sequence: str) -> Genome:
    path.write_text(f">chr1\n{sequence}\n")
    return Genome(path)


@pytest.fixture
def genome(tmp_path, sequence) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequence)


def build(rcps: bool) -> CaduceusForMaskedLM:
    config = CaduceusConfig(d_model=16, n_layer=1, rcps=rcps, initializer_range=1.0)
    return randomised(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))


@pytest.fixture
def folder(tmp_path) -> str:
    build(rcps=True).save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


def test_scores_by_hand(genome, sequence):
    """As in score-variants: A and T have the logit sqrt(2) 1.8, C and G sqrt(2) 0.8."""
    model = CaduceusForMaskedLM(CaduceusConfig(d_model=2, n_layer=1, rcps=True), rngs=nnx.Rngs(0))
    kernel = model.caduceus.layers.mixer.out_proj.kernel
    kernel[...] = jnp.zeros_like(kernel[...])
    rows, vectors = jnp.array([3, 7, 8, 10]), jnp.array([(3, 4), (1, 0), (0, 1), (2, 0)])
    model.caduceus.embedding[...] = jnp.zeros((16, 2)).at[rows].set(vectors)
    frame = scores(model, genome, "chr1:31-41", context_length=5)
    strong = {"A": 1.0, "T": 1.0, "C": 0.0, "G": 0.0}
    expected = [("chr1", 31, "N", None, "ambiguous", None)]
    for position in range(31, 41):
        ref = sequence[position]
        for alt in (base for base in "ACGT" if base != ref):
            llr = pytest.approx(2**0.5 * (strong[alt] - strong[ref]), abs=1e-5)
            expected.append(("chr1", position + 1, ref, alt, "ok", llr))
    assert frame.columns == ["chrom", "pos", "ref", "alt", "status", "llr"]
    assert frame.rows() == expected


def test_scores_are_those_of_score_variants(tmp_path, folder, genome):
    frame = scores(build(rcps=True), genome, "chr1:21-60", context_length=CONTEXT)
    changes = frame.filter(polars.col("alt").is_not_null())
    assert len(changes) == 3 * 39
    vcf = tmp_path / "all.vcf"
    vcf.write_text(
        HEADER
        + "".join(
            f"chr1\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\n"
            for pos, ref, alt in changes.select("pos", "ref", "alt").iter_rows()
        )
    )
    out = tmp_path / "all.parquet"
    score_variants(folder, vcf, genome.path, out=out, context_length=CONTEXT)
    expected = polars.read_parquet(out)
    assert set(expected["status"]) == {"ok"}
    assert expected["alt"].to_list() == changes["alt"].to_list()
    np.testing.assert_allclose(changes["llr"], expected["llr"], atol=1e-5)
    assert changes["llr"].abs().min() > 1e-4


@pytest.mark.parametrize("rcps", [True, False])
def test_the_other_strand_gives_the_same(tmp_path, genome, sequence, rcps):
    model = build(rcps)
    mirrored = write_genome(tmp_path / "reverse.fa", sequence.translate(COMPLEMENT)[::-1])
    forward = scores(model, genome, "chr1:1-70", context_length=CONTEXT)
    backward = scores(model, mirrored, "chr1:11-80", context_length=CONTEXT)
    found = {
        (81 - pos, ref.translate(COMPLEMENT), alt and alt.translate(COMPLEMENT)): llr
        for _, pos, ref, alt, _, llr in backward.iter_rows()
    }
    for _, pos, ref, alt, _, llr in forward.iter_rows():
        assert found.pop((pos, ref, alt)) == (llr and pytest.approx(llr, abs=1e-5))
    assert found == {}


@pytest.mark.parametrize("track", ["mean", "minimum"])
def test_command(tmp_path, folder, genome, track, capsys):
    pybigwig = pytest.importorskip("pyBigWig")
    names = ("a.parquet", "a.tsv", "a.bw", "a.png", "a.svg", "a.pdf")
    out = [tmp_path / name for name in names[: 6 if track == "mean" else 3]]
    options = {"track": track, "strand": "-", "context_length": CONTEXT}
    mutagenesis(folder, "chr1:21-60", genome.path, out=out, **options)
    files = ", ".join(map(str, out))
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"regions: 1 ok; 40 bases, 1 of them ambiguous; written to {files}"
    )
    expected = scores(build(rcps=True), genome, "chr1:21-60", context_length=CONTEXT)
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
    mutagenesis(folder, "second", path, out=out[0], context_length=CONTEXT)
    frame = polars.read_csv(out[0], separator="\t")
    assert frame["chrom"].unique().to_list() == ["second"]
    assert frame["pos"].to_list() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    mutagenesis(folder, "all", path, out=out, context_length=CONTEXT)
    assert len(polars.read_csv(out[0], separator="\t")) == 36


def test_pictures_that_are_refused_before_the_work(tmp_path, genome):
    bed = tmp_path / "two.bed"
    bed.write_text("chr1\t0\t5\nchr1\t7\t9\n")
    with pytest.raises(UserError) as error:
        mutagenesis("no model", str(bed), genome.path, out=[tmp_path / "a.png"])
    assert str(error.value) == (
        "a picture shows one region, and there are 2: name one, like chr22:30,000,001-30,002,000"
    )
    long = write_genome(tmp_path / "long.fa", "ACGT" * 251)
    with pytest.raises(UserError) as error:
        mutagenesis("no model", "chr1", long.path, out=[tmp_path / "a.tsv", tmp_path / "a.svg"])
    assert str(error.value) == (
        "a picture shows at most 1,000 bases and the region has 1,004: draw a part of it, or "
        "write a table or a track"
    )
    assert not (tmp_path / "a.tsv").exists()


def test_the_command_line_takes_the_other_strand():
    words = ["m", "r", "g", "--strand", "-", "--out", "a.tsv", "b.png"]
    parsed = parse("mutagenesis", signature(mutagenesis), words).keywords
    assert parsed["strand"] == "-"
    assert list(map(str, parsed["out"])) == ["a.tsv", "b.png"]
