"""Saturation mutagenesis: the scores of score-variants, on either strand."""

import pathlib

import jax.numpy as jnp
import numpy as np
import polars
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM
from caduceus_jax.genomics.mutagenesis import mutagenesis
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome
from tests import genomes
from tests.genomes import COMPLEMENT
from tests.models import language_model

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


def test_scores_by_hand(genome, sequence):
    """As in score-variants: A and T have the logit sqrt(2) 1.8, C and G sqrt(2) 0.8."""
    model = CaduceusForMaskedLM(CaduceusConfig(d_model=2, n_layer=1, rcps=True), rngs=nnx.Rngs(0))
    kernel = model.caduceus.layers.mixer.out_proj.kernel
    kernel[...] = jnp.zeros_like(kernel[...])
    rows, vectors = jnp.array([3, 7, 8, 10]), jnp.array([(3, 4), (1, 0), (0, 1), (2, 0)])
    model.caduceus.embedding[...] = jnp.zeros((16, 2)).at[rows].set(vectors)
    frame = mutagenesis(model, "chr1:31-41", genome, context_length=5)
    strong = {"A": 1.0, "T": 1.0, "C": 0.0, "G": 0.0}
    expected = [("chr1", 31, "N", None, "ambiguous", None)]
    for position in range(31, 41):
        ref = sequence[position]
        for alt in (base for base in "ACGT" if base != ref):
            llr = pytest.approx(2**0.5 * (strong[alt] - strong[ref]), abs=1e-5)
            expected.append(("chr1", position + 1, ref, alt, "ok", llr))
    assert frame.columns == ["chrom", "pos", "ref", "alt", "status", "llr"]
    assert frame.rows() == expected


def test_scores_are_those_of_score_variants(genome):
    model = build(rcps=True)
    frame = mutagenesis(model, "chr1:21-60", genome, options=OPTIONS)
    changes = frame.filter(polars.col("alt").is_not_null())
    assert len(changes) == 3 * 39
    expected = cj.score_variants(model, changes, genome, context_length=CONTEXT)
    assert set(expected["status"]) == {"ok"}
    assert expected["alt"].to_list() == changes["alt"].to_list()
    np.testing.assert_allclose(changes["llr"], expected["llr"], atol=1e-5)
    assert changes["llr"].abs().min() > 1e-4


@pytest.mark.parametrize("rcps", [True, False])
def test_the_other_strand_gives_the_same(tmp_path, genome, sequence, rcps):
    model = build(rcps)
    mirrored = write_genome(tmp_path / "reverse.fa", sequence.translate(COMPLEMENT)[::-1])
    forward = mutagenesis(model, "chr1:1-70", genome, options=OPTIONS)
    backward = mutagenesis(model, "chr1:11-80", mirrored, options=OPTIONS)
    found = {
        (81 - pos, ref.translate(COMPLEMENT), alt and alt.translate(COMPLEMENT)): llr
        for _, pos, ref, alt, _, llr in backward.iter_rows()
    }
    for _, pos, ref, alt, _, llr in forward.iter_rows():
        assert found.pop((pos, ref, alt)) == (llr and pytest.approx(llr, abs=1e-5))
    assert found == {}
