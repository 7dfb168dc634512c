"""Which contig a name stands for."""

import pytest

from caduceus_jax.genomics.reference.names import find_contig

# UCSC's hg19 with both mitochondria: NC_001807 as chrM, the revised Cambridge sequence as chrMT.
HG19 = {"chr1": 249, "chrM": 16_571, "chrMT": 16_569}
HG38 = {"chr1": 248, "chrM": 16_569}
ENSEMBL = {"1": 248, "MT": 16_569}


@pytest.mark.parametrize(
    ("genome", "name", "declared", "expected"),
    [
        (HG38, "chr1", None, "chr1"),
        (HG38, "1", None, "chr1"),
        (HG38, "Chr1", None, "chr1"),
        (HG38, "chr2", None, None),
        (ENSEMBL, "chr1", None, "1"),
        (HG38, "MT", None, "chrM"),
        (HG38, "chrMT", None, "chrM"),
        (ENSEMBL, "chrM", None, "MT"),
        (ENSEMBL, "M", None, "MT"),
        (HG19, "MT", None, "chrMT"),
        (HG19, "chrMT", None, "chrMT"),
        (HG19, "M", None, "chrM"),
        (HG19, "chrM", None, "chrM"),
        (HG19, "mt", None, None),
        (HG19, "mt", 16_569, "chrMT"),
        (HG19, "MT", 16_569, "chrMT"),
        (HG19, "MT", 16_571, "chrM"),
        (HG19, "chrM", 16_569, "chrMT"),
        ({"chrM": 16_571}, "MT", 16_569, None),
        ({"chrM": 16_571}, "MT", None, "chrM"),
        ({"chrM": 16_571}, "MT", 16_571, "chrM"),
        (HG38, "chr1", 249, "chr1"),
        (HG38, "1", 249, "chr1"),
        ({"M": 5, "MT": 6}, "chrM", None, "M"),
        ({"M": 5, "MT": 6}, "chrMT", None, "MT"),
        ({"chr_M": 5}, "M", None, None),
    ],
)
def test_names(genome, name, declared, expected):
    assert find_contig(name, genome, declared) == expected
