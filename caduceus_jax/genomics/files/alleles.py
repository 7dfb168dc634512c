"""Changes: what an ALT does to REF, the bases it changes, and the one way to say where they are.

A VCF puts an insertion or a deletion within a repeat at the repeat's left end, which is its right
end for whoever reads the other strand. Here such a change covers the whole stretch within which it
can be moved (Holmes et al. 2020, "SPDI", contextual alleles), which is the same on both strands.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from caduceus_jax.genomics.status import Status

BASES = "ACGT"
# The number in BASES of each byte; -1 for bytes that are not among them.
BASE_NUMBERS = np.full(256, -1, np.int64)
BASE_NUMBERS[list(BASES.encode())] = range(4)
COMPLEMENT = bytes.maketrans(b"ACGTacgt", b"TGCAtgca")
_GENOTYPE = re.compile(r"[|/]?([0-9]{1,6})(?:([|/])([0-9]{1,6}))?")
_SEQUENCE = re.compile("[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)


class Change(NamedTuple):
    """Describes what an ALT does to REF, without the bases that both begin or end with."""

    status: Status  # OK where both alleles are known bases
    offset: int = 0  # of the first changed base in REF, 0-based
    ref: str = ""  # the changed bases, upper case; empty for an insertion
    alt: str = ""  # what they become; empty for a deletion


class Genotype(NamedTuple):
    """Describes which alleles a sample has, and on which of its haplotypes."""

    alleles: tuple[int, ...]  # of each haplotype: 0 is REF, 1 the first ALT; () where unknown
    phase_set: str | None  # its haplotypes are those of other records of this set; None: of any


def genotype(fields: Mapping[str, str]) -> Genotype:
    """Reads a genotype.

    Args:
        fields: a sample's values by their keys in FORMAT. GT tells haplotypes where it is written
            with | (0|1), where both alleles are the same (1/1), and where there is only one. PS
            is the phase set.
    """
    unknown = Genotype((), None)
    found = _GENOTYPE.fullmatch(fields.get("GT", "."))
    if found is None:
        return unknown
    first, separator, second = found.groups()
    if second is None:
        return Genotype((int(first),), None)
    if int(first) == int(second):
        return Genotype((int(first), int(second)), None)
    if separator == "/":
        return unknown
    return Genotype((int(first), int(second)), fields.get("PS", "."))


def is_sequence(allele: str) -> bool:
    """Tells whether an allele is written in bases."""
    return _SEQUENCE.fullmatch(allele) is not None


def change(ref: str, alt: str | None) -> Change:
    """Finds what an ALT changes.

    Records that list several alleles pad them all to one REF (`REF=AT ALT=A,AC`): what REF and ALT
    share at their ends does not belong to the change. Where they are equal, nothing
    changes, and their first base is returned.
    """
    if alt is None:
        return Change(Status.MISSING_ALT)
    if alt == "*":
        return Change(Status.SPANNING_DELETION)
    if not is_sequence(alt):
        return Change(Status.SYMBOLIC)
    ref, alt = ref.upper(), alt.upper()
    if ref == alt:
        first, ref, alt = 0, ref[0], alt[0]
    else:
        first, shorter = 0, min(len(ref), len(alt))
        while first < shorter and ref[first] == alt[first]:
            first += 1
        last = 0
        while last < shorter - first and ref[-1 - last] == alt[-1 - last]:
            last += 1
        ref, alt = ref[first : len(ref) - last], alt[first : len(alt) - last]
    known = set(ref + alt) <= set(BASES)
    return Change(Status.OK if known else Status.AMBIGUOUS, first, ref, alt)
