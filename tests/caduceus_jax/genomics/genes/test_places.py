"""Genes, regions and distances of positions, by hand and against a loop."""

import numpy as np
import pytest

from caduceus_jax.genomics.genes.annotation import Annotation, read_annotation
from caduceus_jax.genomics.genes.places import UPSTREAM, Genes
from tests import annotations
from tests.genomes import genome

LENGTH = 20_000


@pytest.fixture
def reference(tmp_path):
    return genome(tmp_path / "a.fa", {"chr1": "A" * LENGTH, "chr2": "C" * LENGTH})


@pytest.fixture
def annotation(tmp_path) -> Annotation:
    return read_annotation(annotations.gtf(tmp_path / "a.gtf"))


def test_regions_by_hand(reference, annotation):
    expected = {
        0: ("A", "intergenic", "A", -5000),
        2999: ("A", "intergenic", "A", -2001),
        3000: ("A", "upstream", "A", -2000),
        4999: ("A", "upstream", "A", -1),
        5000: ("A", "UTR", "A", 0),
        5050: ("A", "CDS", "A", 50),
        5100: ("A", "intron", "A", 100),
        5250: ("A", "intron", "A", 250),  # of two sites as near the first counts
        5251: ("A", "intron", "A", -249),
        5999: ("A", "exon", "A", 499),
        7500: ("B", "intergenic", "B", 1999),
        9000: ("B", "exon", "B", 499),
        9499: ("B", "exon", "B", 0),
        9500: ("B", "upstream", "B", -1),
        11499: ("B", "upstream", "B", -2000),
        11500: ("B", "intergenic", "B", -2001),
    }
    found = Genes(annotation, reference).of(["chr1"] * len(expected), np.array([*expected]))
    assert found.columns == ["gene", "region", "tss_gene", "tss_distance"]
    assert dict(zip(expected, found.rows(), strict=True)) == expected


def test_contigs_without_genes_and_unknown_ones(reference, annotation):
    found = Genes(annotation, reference).of(["1", "chr2", "chrZ"], np.array([5050, 5, 5]))
    assert found.rows() == [
        ("A", "CDS", "A", 50),
        (None, "intergenic", None, None),
        (None, None, None, None),
    ]
    assert Genes(annotation, reference).of([], np.empty(0, np.int64)).shape == (0, 4)


def test_many_positions_against_a_loop(reference, annotation):
    rng = np.random.default_rng(0)
    position = rng.integers(0, LENGTH, 500)
    found = Genes(annotation, reference).of(["chr1"] * 500, position)
    ranks = ["CDS", "UTR", "exon", "intron", "upstream"]
    intervals = [(s, e, r, g) for _, s, e, r, g in annotation.parts.rows()]
    intervals += [(s, e, "intron", g) for _, s, e, _, g in annotation.genes.rows()]
    sites = sorted(annotation.sites.select("position", "strand", "gene").rows())
    for p, strand, g in sites:
        ends = (p - UPSTREAM, p) if strand == "+" else (p + 1, p + 1 + UPSTREAM)
        intervals.append((*ends, "upstream", g))
    for at, row in zip(position.tolist(), found.rows(), strict=True):
        inside = [(ranks.index(r), g) for s, e, r, g in intervals if s <= at < e]
        near, strand, site_gene = min(sites, key=lambda site: (abs(at - site[0]), site[0]))
        distance = at - near if strand == "+" else near - at
        rank, gene = min(inside, default=(None, site_gene))
        region = "intergenic" if rank is None else ranks[rank]
        assert row == (gene, region, site_gene, distance)
