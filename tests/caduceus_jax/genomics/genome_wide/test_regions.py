"""Types of regions, base by base."""

import numpy as np

from caduceus_jax.genomics.genome_wide.regions import RegionTypes
from caduceus_jax.genomics.interval import Intervals
from tests.genomes import genome as write_genome

PLACES = [
    ("b", 5, 9, "exon"), ("a", 10, 20, "exon"), ("a", 15, 30, "promoter"), ("a", 28, 35, "exon"),
    ("a", 38, 99, "a:38-99"),
]  # fmt: skip


def test_every_base_has_the_type_that_comes_first(tmp_path):
    genome = write_genome(tmp_path / "a.fa", {"a": "ACGT" * 10, "b": "ACGT" * 5})
    chrom, start, end, name = zip(*PLACES, strict=True)
    starts, ends = np.array(start), np.array(end)
    regions = Intervals(list(chrom), starts, ends, list(name), np.zeros(5, np.int64))
    types = RegionTypes(regions, genome)
    names = [kind.name for kind in types.types]
    assert names == ["exon", "promoter", "inside", "outside"]
    for contig, length in ((0, 40), (1, 20)):
        found = types.of(np.full(length, contig), np.arange(length))
        for position in range(length):
            there = [
                "inside" if ":" in n else n
                for c, s, e, n in PLACES
                if c == "ab"[contig] and s <= position < e
            ]
            expected = min(map(names.index, there), default=3)
            assert found[position] == expected
    assert types.types[0].bases.bases == 4 + 10 + 7 and types.types[3].bases.bases == 60


def test_without_regions_there_is_one_type(tmp_path):
    genome = write_genome(tmp_path / "a.fa", {"a": "ACGT" * 10})
    types = RegionTypes(None, genome)
    assert types.of(np.zeros(3, np.int64), np.array([0, 5, 39])).tolist() == [0, 0, 0]
