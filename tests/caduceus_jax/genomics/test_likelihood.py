"""Masked probabilities at every base: right by hand, on both strands."""

import jax
import numpy as np
import polars
import pytest

from caduceus_jax import CaduceusForMaskedLM, Tokenizer, UserError
from caduceus_jax.genomics.likelihood import likelihood
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring import per_base
from caduceus_jax.genomics.scoring.per_base import entropy
from caduceus_jax.inference import blocks
from tests.genomes import COMPLEMENT, drawn, write_bed
from tests.genomes import genome as write_genome
from tests.models import language_model

CONTEXT = 31
LOGP = ["logp_A", "logp_C", "logp_G", "logp_T"]


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    return drawn({"chr1": 90, "b": 40}, unknown=30)


@pytest.fixture
def genome(tmp_path, sequences) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequences)


def build(rcps: bool) -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=1, rcps=rcps, initializer_range=1.0)


@pytest.fixture(scope="module")
def ps() -> CaduceusForMaskedLM:
    return build(rcps=True)


def run(model, genome, regions, **options):
    return likelihood(model, regions, genome, context_length=CONTEXT, **options)


@pytest.fixture(scope="module")
def logp_at(ps):
    """The public model's log-probabilities of A, C, G, T where indices of a window are masked."""
    forward = jax.jit(lambda ids: ps(ids).logits[0])

    def logp_at(window: str, *masked: int) -> np.ndarray:
        ids = Tokenizer().encode(window)
        ids[list(masked)] = 3
        logits = np.asarray(forward(ids[None]), np.float64)[list(masked)]
        return (logits - np.logaddexp.reduce(logits, axis=-1)[:, None])[:, 7:11]

    return logp_at


def numbers(frame) -> np.ndarray:
    return frame.select([*LOGP, "logp", "entropy"]).to_numpy()


def test_each_base_is_masked_in_turn(genome, sequences, ps, logp_at):
    """From the public model, on windows cut by hand: base 15 of 31."""
    chr1 = sequences["chr1"].replace("R", "N")
    frame = run(ps, genome, "chr1:46-60")
    assert frame["pos"].to_list() == list(range(46, 61))
    assert "".join(frame["ref"]) == chr1[45:60]
    for row in (0, 7, 14):
        (expected,) = logp_at(chr1[30 + row : 61 + row], 15)
        found = frame.select(LOGP).row(row)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert frame["logp"][row] == found["ACGT".index(chr1[45 + row])]
        np.testing.assert_allclose(frame["entropy"][row], entropy(expected), atol=1e-5)


@pytest.mark.parametrize(("rcps", "masks_per_pass"), [(True, 1), (False, 1), (True, 3)])
def test_the_other_strand_gives_the_same(tmp_path, genome, sequences, rcps, masks_per_pass):
    model = build(rcps)
    reverse = {name: s.translate(COMPLEMENT)[::-1] for name, s in sequences.items()}
    mirrored = write_genome(tmp_path / "reverse.fa", reverse)
    # 45 bases are a whole number of blocks of 3 together.
    forward = run(model, genome, "chr1:41-85", masks_per_pass=masks_per_pass)
    backward = run(model, mirrored, "chr1:6-50", masks_per_pass=masks_per_pass)
    found = backward.select(LOGP[::-1]).to_numpy()[::-1]
    np.testing.assert_allclose(found, forward.select(LOGP).to_numpy(), atol=1e-5)
    np.testing.assert_allclose(backward["entropy"].to_numpy()[::-1], forward["entropy"], atol=1e-5)
    assert np.abs(np.diff(forward["logp"])).min() > 1e-4


def test_unknown_bases_are_null(genome, ps):
    frame = run(ps, genome, "chr1:29-34")
    assert frame["ref"].to_list()[2:4] == ["N", "N"]
    assert frame["status"].to_list() == ["ok", "ok", "ambiguous", "ambiguous", "ok", "ok"]
    nulls = frame.select(polars.sum_horizontal(polars.col(*LOGP, "logp", "entropy").is_null()))
    assert nulls.to_series().to_list() == [0, 0, 6, 6, 0, 0]


def test_rows_are_in_the_order_of_the_regions(tmp_path, genome, ps, monkeypatch, capsys):
    """Overlapping, nested, unsorted, beyond the end, nowhere; and in pieces of 7 bases."""
    whole = run(ps, genome, "all")
    assert whole["pos"].to_list() == [*range(1, 91), *range(1, 41)]
    monkeypatch.setattr(per_base, "_CHUNK", 7)
    regions = [("b", 20, 55), ("chr1", 50, 80), ("chr1", 5, 60), ("c", 3, 9), ("chr1", 60, 65)]
    regions += [("chr1", 90, 95), ("1", 60, 65)]
    frame = run(ps, genome, write_bed(tmp_path / "a.bed", *regions))
    said = capsys.readouterr().err
    assert "1 regions reach beyond the end of their contig, and end there\n" in said
    expected = [
        (chrom, p + 1)
        for chrom, start, end in regions
        for p in range(start, {"b": 40, "c": 4}.get(chrom, end) if start < 90 else 91)
    ]
    assert list(zip(frame["chrom"], frame["pos"], strict=True)) == expected
    lost = frame.filter(polars.col("status").is_in(["unknown_chrom", "out_of_range"]))
    assert lost.select("chrom", "pos", "ref", "status", "logp").rows() == [
        ("c", 4, None, "unknown_chrom", None),
        ("chr1", 91, None, "out_of_range", None),
    ]
    values = dict(zip(zip(whole["chrom"], whole["pos"], strict=True), numbers(whole), strict=True))
    for (chrom, pos), found in zip(expected, numbers(frame), strict=True):
        known = values.get(("chr1" if chrom == "1" else chrom, pos), np.full(6, np.nan))
        np.testing.assert_allclose(found, known, atol=1e-5)


def test_every_base_is_computed_once(tmp_path, genome, ps, monkeypatch):
    rows, run_batches = [], blocks.run_batches

    def counted(*arguments, **options):
        for batch, values in run_batches(*arguments, **options):
            rows.append(len(batch.rows))
            yield batch, values

    monkeypatch.setattr(blocks, "run_batches", counted)
    bed = write_bed(tmp_path / "a.bed", ("chr1", 20, 40), ("chr1", 25, 50), ("chr1", 50, 60))
    run(ps, genome, bed)
    assert sum(rows) == 38  # 40 bases, of which 2 are N


def test_the_ends_of_contigs(genome, sequences, ps, logp_at, capsys):
    b = sequences["b"]
    padded = run(ps, genome, "b:1-40")
    assert "the contexts of 30 bases extend past the end of a contig and are padded with N\n" in (
        capsys.readouterr().err
    )

    np.testing.assert_allclose(
        padded.select(LOGP).row(2), logp_at("N" * 13 + b[:18], 15)[0], atol=1e-5
    )
    shifted = run(ps, genome, "b:1-40", edge="shift")
    np.testing.assert_allclose(shifted.select(LOGP).row(2), logp_at(b[:31], 2)[0], atol=1e-5)
    np.testing.assert_allclose(shifted.select(LOGP).row(39), logp_at(b[9:], 30)[0], atol=1e-5)
    dropped = run(ps, genome, "b:1-40", edge="drop")
    assert (
        dropped["status"].to_list() == ["crosses_edge"] * 15 + ["ok"] * 10 + ["crosses_edge"] * 15
    )
    np.testing.assert_allclose(numbers(dropped)[15:25], numbers(padded)[15:25], atol=1e-5)
    assert dropped["logp"].is_null().sum() == 30
    with pytest.raises(UserError) as error:
        run(ps, genome, "b:20-26", edge="error")
    assert str(error.value) == (
        "b:20-26 needs bases 10 to 41 (0-based) of a contig of 40: choose edge pad, shift or drop"
    )
    assert run(ps, genome, "b:20-25", edge="error")["status"].to_list() == ["ok"] * 6


def test_together_masks_several_bases_of_one_window(genome, sequences, ps, logp_at):
    """By hand: 9 bases, 3 together, 3 apart; base 4 of 9 is masked with bases 1 and 7."""
    chr1 = sequences["chr1"]
    frame = run(ps, genome, "chr1:51-59", masks_per_pass=3)
    expected = logp_at(chr1[39:70], 12, 15, 18)
    np.testing.assert_allclose(frame.select(LOGP).to_numpy()[[1, 4, 7]], expected, atol=1e-5)
    assert np.abs(numbers(frame) - numbers(run(ps, genome, "chr1:51-59"))).max() > 1e-3


@pytest.mark.parametrize("region", ["chr1:1-90", "chr1:26-28", "chr1:31-32", "chr1:60-60", "b"])
def test_together_leaves_no_base_out(genome, ps, region):
    exact, fast = run(ps, genome, region), run(ps, genome, region, masks_per_pass=4)
    assert fast.select("chrom", "pos", "ref", "status").equals(
        exact.select("chrom", "pos", "ref", "status")
    )
    assert fast["logp"].is_null().equals(exact["logp"].is_null())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"context_length": 0}, "context_length is 0; it must be at least 1"),
        ({"masks_per_pass": 0}, "masks_per_pass is 0; it must be at least 1"),
        (
            {"masks_per_pass": 8, "context_length": 15},
            "masks_per_pass is 8 and context_length 15: context_length must be at least twice "
            "masks_per_pass",
        ),
    ],
)
def test_options_out_of_range(genome, ps, options, says):
    with pytest.raises(UserError) as error:
        likelihood(ps, "b", genome, **options)
    assert str(error.value) == says
