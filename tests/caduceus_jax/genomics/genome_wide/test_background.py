"""Backgrounds: of the same kind by hand, drawn the same way again, ranks as counted."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax import UserError
from caduceus_jax.genomics.genome_wide import background as module
from caduceus_jax.genomics.genome_wide.background import Background, Null
from caduceus_jax.genomics.reference.locate import locate
from caduceus_jax.genomics.variant import Variant, Variants
from tests.genomes import other, reverse_complement, write_bed


def variants_of(genome, places=range(200, 230)):
    chr1 = genome.fetch("chr1")
    return [Variant("chr1", p + 1, chr1[p], other(chr1[p], 1 + p % 3)) for p in places]


def kind(genome, contig, start, alt):
    """The three bases and what the middle one becomes, on the strand where it is C or T."""
    bases = genome.bases(contig, start - 1, start + 2).tobytes().decode()
    if bases[1] in "AG":
        bases, alt = reverse_complement(bases), reverse_complement(alt)
    return bases, alt


def drawn(genome, variants, **options):
    sites = locate(Variants.of(variants), genome, indels=False)
    return Null(Background("matched", **options), genome, sites)


def test_the_background_is_of_the_same_kinds(genome):
    variants = variants_of(genome)
    null = drawn(genome, variants, null_size=3)
    wanted = {kind(genome, 0, v.start, v.alt) for v in variants}
    found = {}
    for contig, start, ref, alt in null.sites.select("contig", "start", "ref", "alt").iter_rows():
        assert genome.bases(contig, start, start + 1).tobytes().decode() == ref != alt
        found.setdefault(kind(genome, contig, start, alt), set()).add((contig, start))
    assert found.keys() == wanted
    everywhere = {}
    for contig, name in enumerate(genome.names):
        text = genome.fetch(name)
        for p in range(1, len(text) - 1):
            if "N" not in text[p - 1 : p + 2]:
                everywhere.setdefault(kind(genome, contig, p, "A")[0], []).append(p)
    for (bases, _), places in found.items():
        assert len(places) == min(3, len(everywhere[bases]))
    order = null.sites.select("contig", "start").rows()
    assert order == sorted(order)
    assert np.diff(null.record).min() >= 0 and null.record[-1] + 1 == len(set(order))


def test_the_seed_decides_and_the_other_variants_do_not(genome, monkeypatch):
    some = drawn(genome, variants_of(genome)[:1], null_size=4).sites.drop("row")
    for shuffled in (1 << 20, 10):  # all bases in a random order, and positions at random
        monkeypatch.setattr(module, "_SHUFFLED", shuffled)
        one = drawn(genome, variants_of(genome), null_size=4).sites.drop("row")
        two = drawn(genome, variants_of(genome), null_size=4).sites.drop("row")
        assert one.equals(two)
        if shuffled > 10:
            assert some.join(one, on=["contig", "start", "alt"], how="anti").is_empty()
    assert not drawn(genome, variants_of(genome), null_size=4, null_seed=1).sites.equals(one)


def test_regions_are_matched(tmp_path, genome):
    bed = write_bed(tmp_path / "a.bed", "chr1\t0\t215\tleft", "b\t0\t100\tleft")
    null = drawn(genome, variants_of(genome), null_size=2, null_regions=str(bed))
    left = [contig == 1 or start < 215 for contig, start in zip(
        null.sites["contig"], null.sites["start"], strict=True
    ) if contig == 0 or start < 100]  # fmt: skip
    assert any(left) and not all(left)
    inside = drawn(genome, variants_of(genome, range(200, 210)), null_regions=str(bed))
    for contig, start in inside.sites.select("contig", "start").iter_rows():
        assert start < (215 if contig == 0 else 100)


def test_quantiles_are_those_that_are_counted(model, desk, genome):
    """From the scores of all substitutions of a small genome, every one of which is drawn."""
    variants = [*variants_of(genome), Variant("chr1", 301, genome.fetch("chr1", 300, 301), "AA")]
    run = {"context_length": 31, "max_ref_mismatch": 1.0}
    found = cj.score_variants(
        model, variants, genome, null="matched", null_size=10_000, scores=desk / "a.zarr", **run
    )
    plain = cj.score_variants(model, variants, genome, scores=desk / "a.zarr", **run)
    assert found.drop("llr_quantile").equals(plain)
    assert found["llr_quantile"].dtype == polars.Float32 and found["llr_quantile"][30] is None
    all_scores = {}
    for contig, name in enumerate(genome.names):
        text, values = genome.fetch(name), cj.ScoreStore(desk / "a.zarr").fetch(name)
        for p in range(1, len(text) - 1):
            for alt in set("ACGT") - {text[p]}:
                if "N" not in text[p - 1 : p + 2]:
                    llr = values[p, "ACGT".index(alt)] - values[p, "ACGT".index(text[p])]
                    all_scores.setdefault(kind(genome, contig, p, alt), []).append(llr)
    for variant, llr, quantile in zip(variants[:30], found["llr"], found["llr_quantile"]):  # noqa: B905
        like = np.array(all_scores[kind(genome, 0, variant.start, variant.alt)])
        expected = (np.mean(like < llr) + np.mean(like <= llr)) / 2
        np.testing.assert_allclose(quantile, expected, atol=1e-6)
    assert found["llr_quantile"].n_unique() > 20


def test_a_store_changes_nothing_but_its_error(model, desk, genome):
    variants = variants_of(genome)
    run = {"context_length": 31, "null": "matched", "null_size": 5}
    computed = cj.score_variants(model, variants, genome, **run)["llr_quantile"]
    found = cj.score_variants(model, variants, genome, scores=desk / "a.zarr", **run)
    # One of five may change places.
    assert (found["llr_quantile"] - computed).abs().max() <= 0.2 + 1e-6 and len(computed) == 30


def test_other_modes_have_quantiles_too(model, genome):
    variants, run = variants_of(genome)[:3], {"context_length": 31, "window": 9}
    frame = cj.score_variants(model, variants, genome, "embedding", null="matched", null_size=2,
                              edge="drop", **run)  # fmt: skip
    assert frame.columns[-4:] == ["l2", "cosine", "l2_quantile", "cosine_quantile"]
    assert frame["l2_quantile"].is_between(0, 1).all()
    stopped = cj.score_variants(model, variants, genome, null="matched", edge="error", **run)
    assert stopped["llr_quantile"].null_count() == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"null": "random"}, "null is 'random'; it is matched, or left out"),
        ({"null": "matched", "null_size": 0}, "null_size is 0; it must be at least 1"),
        ({"null": "matched", "null_seed": -1}, "null_seed is -1; it must be at least 0"),
        ({"null_regions": "a.bed"}, "null_regions is for null matched: pass that, too"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(UserError) as error:
        Background(**options)
    assert str(error.value) == says


def test_no_variants_no_background(model, genome):
    frame = cj.score_variants(model, [], genome, null="matched")
    assert frame.columns == ["chrom", "pos", "ref", "alt", "status", "llr", "llr_quantile"]
    assert frame.is_empty()
