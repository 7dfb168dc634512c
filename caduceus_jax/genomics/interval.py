"""Intervals of a genome: one, as a value, and many, as columns."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError

Strand = Literal["+", "-", "."]
OTHER_STRAND: dict[str, Strand] = {"+": "-", "-": "+", ".": "."}

_TYPED = re.compile(
    r"(?P<chrom>.+):(?P<first>[0-9,]{1,20})(-(?P<last>[0-9,]{1,20}))?(:(?P<strand>[-+.]))?"
)


@dataclasses.dataclass(frozen=True, order=True)
class Interval:
    """An interval of one contig, 0-based half-open, on one strand.

    Args:
        chrom: name of the contig.
        start: first base, 0-based; negative where the interval begins before its contig.
        end: the base after the last one, 0-based; it may lie beyond the contig's end.
        strand: "+", "-" (the interval is read as its reverse complement), or "." for neither.

    Raises:
        UserError: `start` is not below `end`, or another strand.

    Examples:
        >>> interval = Interval.from_str("chr1:101-200")
        >>> interval.start, interval.end, len(interval)
        (100, 200, 100)
        >>> interval.resize(50)
        Interval(chrom='chr1', start=125, end=175, strand='+')
        >>> str(interval.reverse_complement())
        'chr1:101-200:-'
    """

    chrom: str
    start: int
    end: int
    strand: Strand = "+"

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UserError(
                f"start is {self.start} and end {self.end}: an interval counts from 0, and its end "
                "is the base after the last one"
            )
        if self.strand not in OTHER_STRAND:
            raise UserError(f"strand is {self.strand!r}; it is one of: +, -, .")

    @classmethod
    def from_str(cls, text: str) -> "Interval":
        """Reads an interval as genome browsers write it: counted from 1, the last base included.

        Args:
            text: such as "chr1:101-200", with or without commas; one base, "chr1:101"; or either
                with a strand, "chr1:101-200:-".

        Raises:
            UserError: the text is not written so.
        """
        found = _TYPED.fullmatch(text.strip())
        numbers = [] if found is None else [found["first"], found["last"] or found["first"]]
        first, last = (number.replace(",", "") for number in numbers or ("", ""))
        if found is None or not first or not last:
            raise UserError(
                f"{text!r} is not a region: regions are written like chr22:30,000,001-30,002,000"
            )
        strand: Strand = found["strand"] or "+"  # pyright: ignore[reportAssignmentType]
        start, end = int(first) - 1, int(last)
        if start < 0:
            raise UserError(f"{text}: bases of a region are counted from 1 here, and from 0 in BED")
        if start >= end:
            raise UserError(f"{text}: the last base, {end:,}, is before the first, {start + 1:,}")
        return cls(found["chrom"], start, end, strand)

    def __str__(self) -> str:
        strand = "" if self.strand == "+" else f":{self.strand}"
        return f"{self.chrom}:{self.start + 1}-{self.end}{strand}"

    def __len__(self) -> int:
        return self.end - self.start

    def resize(self, length: int) -> "Interval":
        """Returns an interval of `length` bases around the same middle.

        The base (start + end) // 2 (0-based) becomes the one with the index length // 2.
        """
        start = (self.start + self.end) // 2 - length // 2
        return dataclasses.replace(self, start=start, end=start + length)

    def reverse_complement(self) -> "Interval":
        """Returns the same bases on the other strand."""
        return dataclasses.replace(self, strand=OTHER_STRAND[self.strand])


class Intervals(NamedTuple):
    """Many intervals as columns, 0-based half-open, in the order in which they were given."""

    chrom: list[str]
    start: Int[np.ndarray, " rows"]  # first base
    end: Int[np.ndarray, " rows"]  # the base after the last one
    name: list[str]  # chrom:start-end where there is none
    line: Int[np.ndarray, " rows"]  # of the file, from 1; 0 without a file
    strand: list[str] | None = None  # "+", "-" or "."; None where none is known

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> "Intervals":
        """Makes the columns of some intervals, named chrom:start-end, from 0 as in BED."""
        intervals = list(intervals)
        return cls(
            [interval.chrom for interval in intervals],
            np.array([interval.start for interval in intervals], np.int64),
            np.array([interval.end for interval in intervals], np.int64),
            [f"{i.chrom}:{i.start}-{i.end}" for i in intervals],
            np.zeros(len(intervals), np.int64),
            [interval.strand for interval in intervals],
        )
