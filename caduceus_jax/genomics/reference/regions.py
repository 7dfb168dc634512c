"""Intervals as a command line names them: a BED file, a contig, or chr22:30,000,001-30,002,000.

What is typed counts from 1 and includes both ends, as genome browsers do; a BED file and everything
here count from 0, and the end is the base after the last one.
"""

import pathlib
import re

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome

EVERY_CONTIG = "all"
_REGION = re.compile("(?P<chrom>.+):(?P<first>[0-9,]{1,20})(-(?P<last>[0-9,]{1,20}))?")
_NAMES_SHOWN = 5


def read_regions(regions: str | pathlib.Path | Intervals, genome: Genome) -> Intervals:
    """The regions that a user means.

    Args:
        regions: a BED file; a contig's name; a region such as chr22:30,000,001-30,002,000, with or
            without commas, or one base, chr22:30,000,001 (both from 1, the last base included);
            the word all, which is every contig; or regions, which are returned.
        genome: where they lie.

    Returns:
        The regions, 0-based half-open, in the order given; `line` is 0 where there is no file.

    Raises:
        UserError: no such file or contig, or what is no region.
    """
    if isinstance(regions, Intervals):
        return regions
    if pathlib.Path(regions).is_file():
        return read_bed(regions)
    text = str(regions).strip()
    (contig,) = genome.contigs([text]).tolist()
    if contig >= 0:
        return _whole([text], genome.lengths[[contig]])
    if text == EVERY_CONTIG:
        return _whole(list(genome.names), genome.lengths)
    named = _REGION.fullmatch(text)
    if named is None:
        if "/" in text or text.endswith((".bed", ".gz")):
            raise UserError(f"no such file: {text}")
        raise UserError(
            f"{text!r} is no BED file, no contig of {genome.path} ({_some(genome)}) and no region: "
            "those are written like chr22:30,000,001-30,002,000"
        )
    return _typed(text, named, genome)


def _typed(text: str, named: re.Match[str], genome: Genome) -> Intervals:
    chrom, first = named["chrom"], named["first"].replace(",", "")
    last = (named["last"] or first).replace(",", "")
    (contig,) = genome.contigs([chrom]).tolist()
    if contig < 0:
        raise UserError(f"{text}: {genome.path} has no contig {chrom}; it has {_some(genome)}")
    if not first or not last:
        raise UserError(f"{text}: a region is written like {chrom}:30,000,001-30,002,000")
    start, end, length = int(first) - 1, int(last), int(genome.lengths[contig])
    if start < 0:
        raise UserError(f"{text}: bases of a region are counted from 1 here, and from 0 in BED")
    if start >= end:
        raise UserError(f"{text}: the last base, {end:,}, is before the first, {start + 1:,}")
    if start >= length:
        raise UserError(f"{text}: {chrom} has {length:,} bases in {genome.path}")
    span = np.array([start]), np.array([end])
    return Intervals([chrom], *span, [f"{chrom}:{start + 1:,}-{end:,}"], np.zeros(1, np.int64))


def _whole(names: list[str], lengths: np.ndarray) -> Intervals:
    zeros = np.zeros(len(names), np.int64)
    return Intervals(names, zeros, lengths.astype(np.int64), names, zeros)


def _some(genome: Genome) -> str:
    """A few of a genome's contigs."""
    more = ", ..." if len(genome.names) > _NAMES_SHOWN else ""
    return ", ".join(genome.names[:_NAMES_SHOWN]) + more
