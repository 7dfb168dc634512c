"""A genome's sequence with one allele put in place, cut so that the allele is in the middle.

A haplotype has the coordinates of its contig up to the allele, and goes on from the allele's end
by its own length: 0-based, as everything here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.tokenizer import Tokenizer

Rows = Int[np.ndarray, " rows"]


class Haplotypes(NamedTuple):
    """Alleles on contigs, one per row. The reference is an allele too: the genome's own bases."""

    contig: Rows  # number in the genome
    start: Rows  # first base that the allele replaces
    end: Rows  # the base after the last one
    allele: list[bytes]

    @property
    def span(self) -> Rows:
        """Returns bases of each allele."""
        return np.array([len(allele) for allele in self.allele], np.int64)

    def lengths(self, genome: Genome) -> Rows:
        """Returns bases of each contig with the allele in place."""
        return genome.lengths[self.contig] + self.span - (self.end - self.start)


class HaplotypeTokens:
    """Windows of haplotypes as token ids, read when they are needed.

    Args:
        genome: the genome that they lie on.
        tokenizer: the tokenizer of the model they are for.
        haplotypes: the haplotypes that they are windows of.
        starts: (rows,) first base of each, in the haplotype's coordinates; N stands for what is
            outside the contig.
        length: bases of each.

    Attributes:
        shape: (rows, length).
    """

    def __init__(
        self,
        genome: Genome,
        tokenizer: Tokenizer,
        haplotypes: Haplotypes,
        starts: Rows,
        length: int,
    ):
        self.shape = (len(starts), length)
        self._genome, self._tokenizer = genome, tokenizer
        self._haplotypes, self._starts = haplotypes, starts

    def __getitem__(self, rows: np.ndarray) -> Int[np.ndarray, "rows length"]:
        """Returns token ids of the windows of these numbers."""
        length = self.shape[1]
        # Neighbouring rows are often the same window, with another base of it masked.
        windows, which = np.unique(rows, return_inverse=True)
        bases = b"".join(self._bases(row) for row in windows.tolist())
        return self._tokenizer.encode(bases).reshape(-1, length)[which]

    def _bases(self, row: int) -> bytes:
        contig, first, last, allele = (column[row] for column in self._haplotypes)
        contig, first, last = int(contig), int(first), int(last)
        start = int(self._starts[row])
        end = start + self.shape[1]
        after = first + len(allele)
        left = self._genome.bases(contig, start, min(first, end)) if start < first else None
        inside = allele[max(start - first, 0) : max(end - first, 0)]
        shift = last - after
        begin = max(start, after)
        right = self._genome.bases(contig, begin + shift, end + shift) if begin < end else None
        parts = (b"" if bases is None else bases.tobytes() for bases in (left, right))
        return inside.join(parts)


def widen(
    genome: Genome, contig: int, start: int, ref: str, alt: str, most: int
) -> tuple[int, str, str]:
    """Returns an insertion or a deletion with all of the stretch within which it can be moved.

    Args:
        genome: the genome that it lies on.
        contig: number of the contig.
        start: first changed base, 0-based.
        ref: the bases that are deleted; empty for an insertion.
        alt: the bases that are inserted; empty for a deletion.
        most: bases looked at on either side.

    Returns:
        start, ref and alt of the same change: on the other strand these are at the mirrored
        place. What replaces bases by others cannot be moved and comes back as it is.
    """
    if ref and alt:
        return start, ref, alt
    unit = np.frombuffer((ref or alt).encode(), np.uint8)
    end = start + len(ref)
    after = genome.bases(contig, end, end + most)
    before = genome.bases(contig, start - most, start)
    right = _matching(after, np.resize(unit, most))
    left = _matching(before[::-1], np.resize(unit[::-1], most))
    head = before[most - left :].tobytes().decode()
    tail = after[:right].tobytes().decode()
    return start - left, head + ref + tail, head + alt + tail


def _matching(a: np.ndarray, b: np.ndarray) -> int:
    """Counts the elements that agree before the first that do not."""
    differ = a != b
    return int(differ.argmax()) if differ.any() else len(a)
