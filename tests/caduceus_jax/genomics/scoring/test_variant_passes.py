"""The forward passes of each mode, and scores by hand from what they give."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.genomics.options import VariantScoring
from caduceus_jax.genomics.reference.locate import locate
from caduceus_jax.genomics.scoring.variant_passes import (
    EmbeddingDistance,
    MaskedRatio,
    PseudoRatio,
    Scorer,
)
from tests.genomes import genome

TOKENIZER = cj.Tokenizer()
SEQUENCE = "ACGTTGCATGCCATGAACTG"


@pytest.fixture(scope="module")
def chr1(tmp_path_factory):
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", {"chr1": SEQUENCE})


def passes(kind, chr1, *texts, window=3, channels=2):
    options = VariantScoring(window=window, context_length=7)
    variants = cj.Variants.of([cj.Variant.from_str(text) for text in texts])
    sites = locate(variants, chr1, indels=kind is not MaskedRatio)
    return kind(Scorer(TOKENIZER, channels, chr1, options, str), sites)


def texts(made):
    return [TOKENIZER.decode(row) for row in np.asarray(made.tokens[np.arange(len(made.extra))])]


def test_one_pass_serves_all_alts_of_a_base(chr1):
    made = passes(MaskedRatio, chr1, "chr1:8:A>C", "chr1:8:A>G", "chr1:9:T>A")
    assert texts(made) == ["TGCATGC", "GCATGCC"]
    assert made.extra.tolist() == [[3], [3]]  # the masked base is in the middle
    log_p = np.log(np.asarray([[[0.4, 0.3, 0.2, 0.1]], [[0.1, 0.1, 0.1, 0.7]]], np.float32))
    found = made.scores(log_p)
    expected = np.log([0.3 / 0.4, 0.2 / 0.4, 0.1 / 0.7])
    np.testing.assert_allclose(found["llr"], expected, rtol=1e-5)


def test_all_changed_bases_are_masked_at_once(chr1):
    made = passes(MaskedRatio, chr1, "chr1:8:ATG>CTC")  # the T in the middle stays
    assert made.item == (2, 4) and np.diff(made.extra[0]).tolist() == [2]
    values = np.zeros((1, 2, 4), np.float32)
    values[0, 0] = [1, 3, 0, 0]
    values[0, 1] = [0, 10, 5, 0]
    assert made.scores(values)["llr"].to_list() == [(3 - 1) + (10 - 5)]


def test_pseudo_ratio_sums_over_the_window_with_either_allele(chr1):
    made = passes(PseudoRatio, chr1, "chr1:8:A>C")
    assert len(made.extra) == 2 * 3  # three bases, REF and ALT
    assert sorted(made.extra[:, 0].tolist()) == [2, 2, 3, 3, 4, 4]
    seen = texts(made)
    assert seen[:3] == ["TGCATGC"] * 3 and seen[3:] == ["TGCCTGC"] * 3
    values = np.zeros((6, 1, 4), np.float32)
    values[3:] = -1.0  # every base is less likely with ALT
    assert made.scores(values)["pllr"].to_list() == [-3]


def test_distances_between_the_means_of_both_alleles(chr1):
    made = passes(EmbeddingDistance, chr1, "chr1:8:A>C", "chr1:8:AT>A")
    ref, alt = [1.0, 0.0], [0.0, 2.0]
    order = [ref if text == "TGCATGC" else alt for text in texts(made)]
    found = made.scores(np.asarray(order, np.float32))
    assert found["status"].to_list() == ["ok", "ok"]
    np.testing.assert_allclose(found["l2"][0], np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(found["cosine"][0], 1, rtol=1e-6)


def test_what_cannot_be_scored_keeps_its_row(chr1):
    made = passes(MaskedRatio, chr1, "chr1:8:C>G", "chr1:8:A>C", "chr9:1:A>C")
    found = made.scores(np.zeros((1, 1, 4), np.float32))
    assert found["status"].to_list() == ["ref_mismatch", "ok", "unknown_chrom"]
    assert found["llr"].is_null().to_list() == [True, False, True]
