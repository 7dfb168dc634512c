"""Intervals: counted from 0 as values, from 1 as text."""

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.interval import Interval, Intervals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1:101-200", Interval("chr1", 100, 200)),
        (" chr1:30,000,001-30,002,000 ", Interval("chr1", 30_000_000, 30_002_000)),
        ("chr1:7", Interval("chr1", 6, 7)),
        ("HLA:1:2-3", Interval("HLA:1", 1, 3)),
        ("chrM:5-9:-", Interval("chrM", 4, 9, "-")),
        ("chr1:7:.", Interval("chr1", 6, 7, ".")),
    ],
)
def test_text_counts_from_1(text, expected):
    assert Interval.from_str(text) == expected
    assert Interval.from_str(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chr1", "'chr1' is not a region: regions are written like chr22:30,000,001-30,002,000"),
        (
            "chr1:,",
            "'chr1:,' is not a region: regions are written like chr22:30,000,001-30,002,000",
        ),
        ("chr1:0-5", "chr1:0-5: bases of a region are counted from 1 here, and from 0 in BED"),
        ("chr1:9-5", "chr1:9-5: the last base, 5, is before the first, 9"),
    ],
)
def test_text_that_is_not_a_region(text, says):
    with pytest.raises(UserError) as error:
        Interval.from_str(text)
    assert str(error.value) == says


def test_values_are_checked():
    with pytest.raises(UserError, match="^start is 5 and end 5: an interval counts from 0"):
        Interval("chr1", 5, 5)
    with pytest.raises(UserError, match=r"^strand is '\*'; it is one of: \+, -, \.$"):
        Interval("chr1", 5, 6, "*")


def test_resize_keeps_the_middle():
    """The middle of 100 to 200 is base 150: index 25 of 50, index 2 of 5."""
    interval = Interval("chr1", 100, 200, "-")
    assert len(interval) == 100
    assert interval.resize(50) == Interval("chr1", 125, 175, "-")
    assert interval.resize(5) == Interval("chr1", 148, 153, "-")
    assert interval.resize(100) == interval
    assert Interval("chr1", 0, 2).resize(6) == Interval("chr1", -2, 4)


def test_the_other_strand():
    interval = Interval("chr1", 3, 9)
    assert interval.reverse_complement() == Interval("chr1", 3, 9, "-")
    assert interval.reverse_complement().reverse_complement() == interval


def test_columns():
    columns = Intervals.of([Interval("a", 3, 9), Interval("b", 0, 1, "-")])
    assert columns.chrom == ["a", "b"]
    assert (columns.start.tolist(), columns.end.tolist()) == ([3, 0], [9, 1])
    assert (columns.name, columns.strand) == (["a:3-9", "b:0-1"], ["+", "-"])
