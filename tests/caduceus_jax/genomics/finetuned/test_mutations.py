"""Mutagenesis of fine-tuned models: each change is that of `score_variants`."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.finetuned.mutations import mutations
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.inputs import as_intervals
from tests.genomes import drawn, genome
from tests.models import kinds

LENGTH = 20
OPTIONS = Masking(context_length=LENGTH)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    contigs = drawn({"chr1": 120}, unknown=50)
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", contigs)


@pytest.mark.parametrize("kind", ["classifier", "tracks"])
def test_changes_are_those_of_variants(reference, kind):
    m = cj.Pretrained(kinds()[kind], cj.Tokenizer())
    regions = [("chr1", 38, 41), ("chr1", 40, 43), ("chr1", 49, 52), ("chr7", 0, 3)]
    found = cj.mutagenesis(m, regions, reference, context_length=LENGTH)
    known = found.filter(polars.col("status") == "ok")
    variants = known.select("chrom", "pos", "ref", "alt")
    expected = cj.score_variants(m, variants, reference, context_length=LENGTH)
    assert known.columns == expected.columns
    columns = known.columns[5:]
    np.testing.assert_allclose(known.select(columns), expected.select(columns), atol=1e-6)
    assert known["pos"].to_list() == [*np.repeat([39, 40, 41, 41, 42, 43, 50], 3)]
    assert known.filter(pos=41, ref=known["ref"][6])["alt"].to_list()[:3] == sorted(
        set("ACGT") - {known["ref"][6]}
    )
    others = found.filter(polars.col("status") != "ok")
    assert others.select("pos", "ref", "alt", "status").rows() == [
        (51, "N", None, "ambiguous"),
        (52, "N", None, "ambiguous"),
        (1, None, None, "unknown_chrom"),
    ]


def test_bases_whose_context_crosses_the_edge(reference):
    m = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    found = cj.mutagenesis(m, "chr1:9-12", reference, context_length=LENGTH, edge="drop")
    assert set(found.filter(polars.col("pos") < 10)["status"]) == {"crosses_edge"}
    assert set(found.filter(polars.col("pos") > 11)["status"]) == {"ok"}
    assert len(found) == 12
    with pytest.raises(UserError, match="choose edge pad, shift or drop"):
        cj.mutagenesis(m, "chr1:2", reference, context_length=LENGTH, edge="error")


def test_values_of_a_track_file(reference):
    m = cj.Pretrained(kinds()["tracks"], cj.Tokenizer())
    found = mutations(m, reference, as_intervals("chr1:49-52", reference), OPTIONS)
    frame = polars.concat(found.tables())
    (chunk,) = found.bases.merged_chunks()
    of_base = frame.filter(pos=50)["difference_LABEL_1"].to_numpy()
    for track, expected in (("mean", of_base.mean()), ("minimum", of_base.min())):
        values = found.track_values(chunk, "difference_LABEL_1", track)
        np.testing.assert_allclose(values[1], expected, atol=1e-6)
        assert np.isnan(values).tolist() == [False, False, True, True]


def test_nothing_in_nothing_out(reference):
    m = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    found = cj.mutagenesis(m, [("chr9", 1, 4)], reference, context_length=LENGTH)
    assert found["status"].to_list() == ["unknown_chrom"]
    with pytest.raises(UserError, match="masks_per_pass is for language models"):
        cj.mutagenesis(m, "chr1:1-9", reference, masks_per_pass=2)
