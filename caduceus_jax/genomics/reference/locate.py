"""Where variants lie on a genome, and which of them can be scored there."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASES, Change, change
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.windows import place
from caduceus_jax.genomics.status import Status
from caduceus_jax.genomics.variant import Variants

# Sites looked at to find out what is wrong with positions, and the share that must agree.
_SITES_TRIED, _AGREEMENT = 1_000, 0.9
_BASES_SHOWN = 20


class Sites(NamedTuple):
    """The changes that variants make: one row a variant."""

    status: np.ndarray  # (rows,) of `Status`; OK where the variant can be scored
    contig: Int[np.ndarray, " rows"]  # number in the genome, -1 if unknown
    start: Int[np.ndarray, " rows"]  # of the first changed base, 0-based
    ref: list[str]  # the changed bases, upper case; empty for an insertion
    alt: list[str]  # what they become; empty for a deletion


def locate(
    variants: Variants,
    genome: Genome,
    *,
    indels: bool,
    max_ref_mismatch: float = 1.0,
    source: str = "variants",
) -> Sites:
    """Finds variants on a genome, and out which of them can be scored there.

    Args:
        variants: for example from `vcf.read_vcf`.
        genome: the reference they were called on.
        indels: insertions and deletions can be scored; otherwise they get a status.
        max_ref_mismatch: share of records whose REF may differ from the genome.
        source: what error messages call the variants.

    Raises:
        UserError: REF differs too often, so that it must be the wrong genome.
    """
    kind = functools.cache(change)
    changes = [kind(ref, alt) for ref, alt in zip(variants.ref, variants.alt, strict=True)]
    offset = np.array([c.offset for c in changes], np.int64)
    contig = genome.contigs(variants.chrom)
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    status = place(variants.position, variants.position + 1, lengths).status
    on_genome = status == Status.OK
    kinds = np.array([c.status for c in changes], status.dtype)
    if not indels:
        differ = np.array([len(c.ref) != len(c.alt) for c in changes], bool)
        kinds[differ] = Status.INDEL
    status[on_genome] = kinds[on_genome]
    _compare(variants, contig, changes, status, genome)
    sites = Sites(
        status,
        contig,
        variants.position + offset,
        [c.ref for c in changes],
        [c.alt for c in changes],
    )
    _check_reference(variants, sites, genome, max_ref_mismatch, source)
    return sites


def name_row(variants: Variants, source: str) -> Callable[[int], str]:
    """A function that names a row for an error message."""

    def describe(row: int) -> str:
        name = f"{variants.chrom[row]}:{variants.position[row] + 1}"
        return f"{source}:{variants.line[row]} ({name} {variants.ref[row]}>{variants.alt[row]})"

    return describe


def _compare(
    variants: Variants,
    contig: np.ndarray,
    changes: list[Change],
    status: np.ndarray,
    genome: Genome,
) -> None:
    """Sets REF_MISMATCH and AMBIGUOUS where REF and the genome's bases there say so."""

    @functools.lru_cache(1)  # the ALTs of a record follow one another
    def found(contig: int, start: int, end: int) -> str:
        return genome.bases(contig, start, end).tobytes().decode()

    numbers, starts = contig.tolist(), variants.position.tolist()
    for row in np.flatnonzero(np.isin(status, (Status.OK, Status.AMBIGUOUS))).tolist():
        number, start, ref = numbers[row], starts[row], variants.ref[row].upper()
        there = found(number, start, start + len(ref))
        if ref == there and "N" not in ref:
            continue
        outside = start < 0 or start + len(ref) > genome.lengths[number]
        pairs = zip(ref, there, strict=True)
        if outside or any(a != b and a in BASES and b in BASES for a, b in pairs):
            status[row] = Status.REF_MISMATCH
        elif "N" in there[changes[row].offset :][: len(changes[row].ref)]:
            status[row] = Status.AMBIGUOUS


def _check_reference(
    variants: Variants, sites: Sites, genome: Genome, max_ref_mismatch: float, source: str
) -> None:
    """Stops where REF differs from the genome so often that it must be the wrong genome."""
    wrong = np.flatnonzero(sites.status == Status.REF_MISMATCH)
    checked = np.flatnonzero(np.isin(sites.status, (Status.OK, Status.REF_MISMATCH)))
    mismatches = len(np.unique(variants.record[wrong]))
    records = len(np.unique(variants.record[checked]))
    if mismatches <= max_ref_mismatch * records:
        return
    cause = f"{genome.path} is most likely another assembly than the variants were called on"
    tried = checked[np.linspace(0, len(checked) - 1, min(len(checked), _SITES_TRIED)).astype(int)]
    first = np.array([ord(variants.ref[row][0].upper()) for row in tried.tolist()])
    for shift, says in ((1, "one too small, counted from 0"), (-1, "one too large")):
        there = genome.windows(sites.contig[tried], variants.position[tried] + shift, 1)[:, 0]
        if len(tried) > 9 and np.mean(there == first) > _AGREEMENT:
            cause = f"the positions are most likely {says}"
    row = int(wrong[0])
    start = int(variants.position[row])
    end = start + min(len(variants.ref[row]), _BASES_SHOWN)
    bases = genome.bases(int(sites.contig[row]), start, end).tobytes().decode()
    raise UserError(
        f"{source}: REF differs from the genome in {mismatches:,} of {records:,} records, first at "
        f"{name_row(variants, source)(row)} where the genome has {bases}: {cause} "
        f"(--max-ref-mismatch, now {max_ref_mismatch:g}, sets how many are accepted)"
    )
