"""Sequences in memory, of regions and around records."""

import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.sequences import around_records, around_regions, of_bases
from tests.genomes import genome


@pytest.fixture(scope="module")
def chr1(tmp_path_factory):
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", {"chr1": "AACCGGTTAC"})


def regions(*intervals):
    return cj.Intervals.of([cj.Interval("chr1", *interval) for interval in intervals])


def test_sequences_in_memory():
    found = of_bases(["a", "b"], [b"ACGT", b"AC"])
    assert found.frame.rows() == [("a", 4), ("b", 2)]
    assert (found.lengths.tolist(), found.read(1)) == ([4, 2], b"AC")


def test_regions_as_they_are_and_windows_around_their_middles(chr1):
    rows = regions((2, 6), (0, 2), (20, 24))
    found = around_regions(rows, chr1)
    assert (found.read(0), found.read(1)) == (b"CCGG", b"AA")
    assert found.status.tolist() == ["ok", "ok", "out_of_range"]
    found = around_regions(rows, chr1, context_length=4)
    assert found.read(0) == b"CCGG"  # the middle, 4, is at index 2
    assert found.read(1) == b"NAAC"  # one base before the contig
    assert found.frame.select("window_start", "window_end", "padding").row(1) == (-1, 3, 1)


@pytest.mark.parametrize(("edge", "status"), [("shift", "ok"), ("drop", "crosses_edge")])
def test_edges(chr1, edge, status):
    found = around_regions(regions((0, 2)), chr1, context_length=4, edge=edge)
    assert found.status.tolist() == [status]
    if status == "ok":
        assert found.read(0) == b"AACC"


def test_a_region_on_the_other_strand_is_read_5_to_3(chr1):
    rows = cj.Intervals.of([cj.Interval("chr1", 0, 5, strand="-"), cj.Interval("chr1", 0, 5)])
    assert around_regions(rows, chr1, oriented=True).read(0) == b"CGGTT"
    assert around_regions(rows, chr1).read(0) == b"AACCG"


def test_a_window_around_a_record(chr1):
    rows = cj.Variants.of([cj.Variant("chr1", 5, "G", "A")])  # from 1
    found = around_records(rows, chr1, context_length=5)
    assert found.read(0) == b"CCGGT"
    assert found.frame["pos"].to_list() == [5]


def test_a_region_that_is_too_long_is_named(chr1):
    with pytest.raises(UserError, match="8"):
        around_regions(regions((0, 8)), chr1, max_length=5)
