"""Regions as they are typed: a contig, chr22:30,000,001-30,002,000, or every contig.

What is typed counts from 1 and includes both ends, as genome browsers do; everything here counts
from 0, and the end is the base after the last one.
"""

import re

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.interval import Interval, Intervals
from caduceus_jax.genomics.reference.genome import Genome

EVERY_CONTIG = "all"
_REGION = re.compile("(?P<chrom>.+):(?P<span>[0-9,]{1,20}(-[0-9,]{1,20})?(:[-+.])?)")


def named_regions(text: str, genome: Genome) -> Intervals:
    """Returns the regions that a user types.

    Args:
        text: a contig's name; a region such as chr22:30,000,001-30,002,000, with or without
            commas, or one base, chr22:30,000,001 (both from 1, the last base included); or the
            word all, which is every contig.
        genome: the genome that they lie on.

    Returns:
        The regions, 0-based half-open.

    Raises:
        UserError: no such contig, or what is not a region.
    """
    text = text.strip()
    (contig,) = genome.contigs([text]).tolist()
    if contig >= 0:
        return _whole([text], genome.lengths[[contig]])
    if text == EVERY_CONTIG:
        return _whole(list(genome.names), genome.lengths)
    if _REGION.fullmatch(text) is None:
        if "/" in text or text.endswith((".bed", ".gz")):
            raise UserError(f"{text} does not exist")
        raise UserError(
            f"{text!r} is not a BED file, not a contig of {genome.path} ({genome.some_names()}) "
            "and not a region: those are written like chr22:30,000,001-30,002,000"
        )
    return _typed(text, genome)


def _typed(text: str, genome: Genome) -> Intervals:
    named = _REGION.fullmatch(text)
    chrom = named["chrom"] if named else text
    (contig,) = genome.contigs([chrom]).tolist()
    if contig < 0:
        raise UserError(
            f"{text}: {genome.path} has no contig {chrom}; it has {genome.some_names()}"
        )
    interval = Interval.from_str(text)
    start, end, length = interval.start, interval.end, int(genome.lengths[contig])
    if end > length:
        raise UserError(f"{text}: {chrom} has {length:,} bases in {genome.path}")
    span = np.array([start]), np.array([end])
    name = f"{chrom}:{start + 1:,}-{end:,}"
    return Intervals([chrom], *span, [name], np.zeros(1, np.int64), [interval.strand])


def _whole(names: list[str], lengths: np.ndarray) -> Intervals:
    zeros = np.zeros(len(names), np.int64)
    return Intervals(names, zeros, lengths.astype(np.int64), names, zeros)
