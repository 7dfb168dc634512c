"""Intervals as they are typed: 1-based and inclusive; one sentence for each mistake."""

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.regions import named_regions


@pytest.fixture
def genome(tmp_path) -> Genome:
    path = tmp_path / "genome.fa"
    path.write_text(f">chr1\n{'ACGT' * 500}\n>HLA:1\n{'A' * 30}\n>HLA:1:5-9\n{'C' * 20}\n")
    return Genome(path)


@pytest.mark.parametrize(
    ("text", "chrom", "start", "end"),
    [
        ("chr1:1-1", "chr1", 0, 1),
        ("chr1:1,001-2,000", "chr1", 1000, 2000),
        (" chr1:1001-2000 ", "chr1", 1000, 2000),
        ("chr1:7", "chr1", 6, 7),
        ("1:7-8", "1", 6, 8),
        ("chr1", "chr1", 0, 2000),
        ("chr1:1,990-2,000", "chr1", 1989, 2000),
        ("chr1:7-8:-", "chr1", 6, 8),
        ("HLA:1", "HLA:1", 0, 30),
        ("HLA:1:2-3", "HLA:1", 1, 3),
        ("HLA:1:5-9", "HLA:1:5-9", 0, 20),
    ],
)
def test_typed_regions(genome, text, chrom, start, end):
    regions = named_regions(text, genome)
    assert (regions.chrom, regions.start.tolist(), regions.end.tolist()) == (
        [chrom],
        [start],
        [end],
    )


def test_all_contigs(genome):
    regions = named_regions("all", genome)
    assert regions.chrom == ["chr1", "HLA:1", "HLA:1:5-9"]
    assert regions.start.tolist() == [0, 0, 0]
    assert regions.end.tolist() == [2000, 30, 20]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chr1:0-10", "chr1:0-10: bases of a region are counted from 1 here, and from 0 in BED"),
        ("chr1:10-9", "chr1:10-9: the last base, 9, is before the first, 10"),
        ("chr1:2,001-2,002", "chr1:2,001-2,002: chr1 has 2,000 bases in {path}"),
        (
            "chr1:,-,",
            "'chr1:,-,' is not a region: regions are written like chr22:30,000,001-30,002,000",
        ),
        ("chr1:1,990-2,001", "chr1:1,990-2,001: chr1 has 2,000 bases in {path}"),
        ("chr5:1-9", "chr5:1-9: {path} has no contig chr5; it has chr1, HLA:1, HLA:1:5-9"),
        ("lost.bed", "lost.bed does not exist"),
        ("data/lost", "data/lost does not exist"),
        (
            "chr1:1..9",
            "'chr1:1..9' is not a BED file, not a contig of {path} (chr1, HLA:1, HLA:1:5-9) and "
            "not a region: those are written like chr22:30,000,001-30,002,000",
        ),
    ],
)
def test_mistakes(genome, text, says):
    with pytest.raises(UserError) as error:
        named_regions(text, genome)
    assert str(error.value) == says.format(path=genome.path)
