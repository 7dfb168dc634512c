"""Genes beside the rows of variants, and as INFO fields."""

import polars

from caduceus_jax.genomics.genes.columns import GeneColumns, info_fields
from caduceus_jax.genomics.reference.inputs import as_variants
from tests import annotations
from tests.genomes import genome


def test_columns_stand_beside_the_rows_of_their_variants(tmp_path):
    reference = genome(tmp_path / "a.fa", {"chr1": "A" * 20_000})
    source = as_variants(["chr1:5051:A>G", "chr1:9500:A>G", "chr9:1:A>G"])
    genes = GeneColumns(annotations.gtf(tmp_path / "a.gtf"), source, reference)
    frame = polars.DataFrame({"row": [1, 2], "llr": [0.5, None]})
    found = genes.beside(range(1, 3), frame)
    assert found.rows() == [(1, 0.5, "B", "exon", "B", 0), (2, None, None, None, None, None)]
    assert genes.beside(range(0), frame[:0]).columns == found.columns
    assert set(genes.declarations()) == {
        "CADUCEUS_GENE", "CADUCEUS_REGION", "CADUCEUS_TSS_GENE", "CADUCEUS_TSS_DISTANCE",
    }  # fmt: skip


def test_values_of_info_fields_are_escaped():
    row = {"gene": "a;b c,d=e%", "region": None, "tss_distance": -3, "llr": 1.0}
    assert info_fields(row) == {
        "CADUCEUS_GENE": "a%3Bb%20c%2Cd%3De%25",
        "CADUCEUS_TSS_DISTANCE": "-3",
    }
    assert info_fields({"llr": 1.0}) == {}
