"""Places windows and variants on a genome, and marks those that have no place there."""

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
import polars
from jaxtyping import Bool, Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASES, COMPLEMENT, Change, change
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.status import STATUS_DTYPE, Status
from caduceus_jax.genomics.structural import change_of
from caduceus_jax.genomics.variant import Variants

Edge = Literal["pad", "shift", "drop", "error"]
Positions = Int[np.ndarray, " rows"]

# Sites looked at to find out what is wrong with positions, and the share that must agree.
_SITES_TRIED, _AGREEMENT = 1_000, 0.9
_BASES_SHOWN = 20


class Windows(NamedTuple):
    """Windows on contigs, 0-based half-open."""

    start: Positions  # first base; negative where the window reaches beyond the contig's start
    end: Positions  # the base after the last one
    padding: Positions  # bases outside the contig, to be read as N
    status: np.ndarray  # (rows,) of `Status` as text; OK, or why a row has no window


def place(
    start: Positions,
    end: Positions,
    contig_length: Positions,
    *,
    edge: Edge = "pad",
    describe: Callable[[int], str] = lambda row: f"row {row} (0-based)",
) -> Windows:
    """Decides what becomes of windows that reach beyond their contigs.

    Args:
        start: (rows,) first base, 0-based.
        end: (rows,) the base after the last one.
        contig_length: (rows,) bases of the contig; negative for an unknown contig.
        edge: "pad" keeps the window, to be filled with N; "shift" moves it inward by as much as
            it reaches out (and fills what is left where the contig is shorter than the window);
            "drop" gives the row the status `crosses_edge`; "error" stops.
        describe: names a row for the message of "error".

    Returns:
        The windows, one per row. A window with no base on its contig is `out_of_range`.

    Raises:
        UserError: an unknown `edge`, or a window that reaches out where `edge` is "error".
    """
    if edge not in get_args(Edge):
        raise UserError(f"edge is {edge!r}; it is one of: {', '.join(get_args(Edge))}")
    status = np.full(len(start), Status.OK, STATUS_DTYPE)
    status[(end <= 0) | (start >= contig_length)] = Status.OUT_OF_RANGE
    status[contig_length < 0] = Status.UNKNOWN_CHROM
    crossing = (status == Status.OK) & ((start < 0) | (end > contig_length))
    if edge == "error" and crossing.any():
        row = int(crossing.argmax())
        raise UserError(
            f"{describe(row)} needs bases {start[row]:,} to {end[row]:,} (0-based) of a contig of "
            f"{contig_length[row]:,}: choose edge pad, shift or drop"
        )
    if edge == "drop":
        status[crossing] = Status.CROSSES_EDGE
    if edge == "shift":
        moved = np.maximum(np.minimum(start, contig_length - (end - start)), 0)
        by = np.where(crossing, moved - start, 0)
        start, end = start + by, end + by
    padding = np.maximum(-start, 0) + np.maximum(end - contig_length, 0)
    return Windows(start, end, np.where(status == Status.OK, padding, 0), status)


def centred(position: Positions, length: int) -> tuple[Positions, Positions]:
    """Returns start and end of windows whose base `length // 2` is `position`; all 0-based."""
    start = position - length // 2
    return start, start + length


def middle(
    start: Positions, span: Positions, length: int, extra_left: Bool[np.ndarray, " rows"]
) -> tuple[Positions, Positions]:
    """Returns start and end of windows with a stretch in their middle; all 0-based.

    Args:
        start: (rows,) first base of the stretch.
        span: (rows,) its bases.
        length: bases of the windows.
        extra_left: (rows,) where `length - span` is odd, whether the base that one side has more
            than the other is on the left.
    """
    first = start - (length - span + extra_left) // 2
    return first, first + length


def extra_left(
    genome: Genome,
    contig: Positions,
    start: Positions,
    alleles: list[tuple[bytes, ...]],
    length: int,
    *,
    even_too: bool = False,
) -> Bool[np.ndarray, " rows"]:
    """Finds out on which side a window has one base more, for `middle`.

    The side is chosen by the sequences, so that both strands choose the same one: on the left
    where the sequences around, read with the alleles in place, come before their reverse
    complements in the alphabet. (Where they are equal, both strands show the model the same.)
    A window of an even length has it on the left unless `even_too`.

    Args:
        genome: the genome of the alleles.
        contig: (rows,) numbers in `genome.names`.
        start: (rows,) first base of the reference's allele.
        alleles: (rows,) of the alleles of each, the reference's first; any byte besides ACGT
            stands for something that both strands have.
        length: bases of the window.
        even_too: choose the side of windows of an even length by the sequences, too.
    """
    left = np.ones(len(start), bool)
    if length % 2 == 0 and not even_too:
        return left
    flank = length // 2 + 1
    for row, (number, first) in enumerate(zip(contig.tolist(), start.tolist(), strict=True)):
        if all(len(allele) % 2 == length % 2 for allele in alleles[row]):
            continue
        end = first + len(alleles[row][0])
        before = genome.bases(number, first - flank, first).tobytes()
        after = genome.bases(number, end, end + flank).tobytes()
        read = [before + allele + after for allele in alleles[row]]
        left[row] = read < [bases.translate(COMPLEMENT)[::-1] for bases in read]
    return left


def locate(
    variants: Variants,
    genome: Genome,
    *,
    indels: bool,
    longest: int = 1 << 20,
    max_ref_mismatch: float = 1.0,
    source: str = "variants",
    declared: Mapping[str, int] | None = None,
) -> polars.DataFrame:
    """Places variants on a genome and marks those that cannot be scored.

    Args:
        variants: one row per ALT.
        genome: the reference they were called on.
        indels: insertions, deletions and structural variants can be scored; otherwise they get a
            status.
        longest: bases of the longest structural variant that is read from the genome.
        max_ref_mismatch: share of records whose REF may differ from the genome.
        source: name of the variants in error messages.
        declared: lengths of contigs as the variants' header has them.

    Returns:
        The change that each variant makes, one row per variant in their order: `row` (its number,
        from 0), `status` ("ok" where the variant can be scored), `contig` (its number in the
        genome, -1 if unknown), `start` (of the first changed base, 0-based), `ref` (the changed
        bases, upper case; empty for an insertion) and `alt` (what they become; empty for a
        deletion).

    Raises:
        UserError: REF differs too often, so that it must be the wrong genome.
    """
    kind = functools.cache(change)
    changes = [kind(ref, alt) for ref, alt in zip(variants.ref, variants.alt, strict=True)]
    contig = genome.contigs(variants.chrom, declared)
    for row in variants.events:
        changes[row] = _change_of_event(variants, row, genome, int(contig[row]), longest)
    offset = np.array([c.offset for c in changes], np.int64)
    status = _statuses(variants, contig, changes, genome, indels=indels)
    _check_reference(variants, contig, status, genome, max_ref_mismatch, source)
    return polars.DataFrame(
        {
            "row": polars.Series(np.arange(len(changes)), dtype=polars.Int64),
            "status": polars.Series(status.tolist(), dtype=polars.String),
            "contig": polars.Series(contig, dtype=polars.Int64),
            "start": polars.Series(variants.position + offset, dtype=polars.Int64),
            "ref": polars.Series([c.ref for c in changes], dtype=polars.String),
            "alt": polars.Series([c.alt for c in changes], dtype=polars.String),
        }
    )


def name_row(variants: Variants, source: str) -> Callable[[int], str]:
    """Returns a function that names a row for an error message."""

    def describe(row: int) -> str:
        """Names a variant for an error message."""
        name = f"{variants.chrom[row]}:{variants.position[row] + 1}"
        return f"{source}:{variants.line[row]} ({name} {variants.ref[row]}>{variants.alt[row]})"

    return describe


def _change_of_event(
    variants: Variants, row: int, genome: Genome, contig: int, longest: int
) -> Change:
    """Finds what a structural variant changes; its contig is negative where it is unknown."""
    position = int(variants.position[row])
    if contig < 0 or position < 0:
        return Change(Status.SYMBOLIC)

    def bases(start: int, end: int) -> str:
        """Reads bases of the contig."""
        return genome.bases(contig, start, end).tobytes().decode()

    event, ref, length = variants.events[row], variants.ref[row], int(genome.lengths[contig])
    return change_of(event, ref, position, length, bases, longest)


def _statuses(
    variants: Variants, contig: np.ndarray, changes: list[Change], genome: Genome, *, indels: bool
) -> np.ndarray:
    """Finds what becomes of each row, from its place, its alleles and the genome's bases."""
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    placed = place(variants.position, variants.position + 1, lengths).status
    kinds = np.array([c.status for c in changes], placed.dtype)
    if not indels:
        differ = np.array([len(c.ref) != len(c.alt) for c in changes], bool)
        kinds[differ] = Status.INDEL
        structural = [r for r in variants.events if changes[r].status != Status.SYMBOLIC]
        kinds[structural] = Status.INDEL
    status = np.where(placed == Status.OK, kinds, placed)

    @functools.lru_cache(1)  # the ALTs of a record follow one another
    def found(contig: int, start: int, end: int) -> str:
        return genome.bases(contig, start, end).tobytes().decode()

    numbers, starts = contig.tolist(), variants.position.tolist()
    with_change = np.isin(status, (Status.OK, Status.AMBIGUOUS, Status.TOO_LONG))
    for row in np.flatnonzero(with_change).tolist():
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
    return status


def _check_reference(
    variants: Variants,
    contig: np.ndarray,
    status: np.ndarray,
    genome: Genome,
    max_ref_mismatch: float,
    source: str,
) -> None:
    """Stops where REF differs from the genome so often that it must be the wrong genome."""
    wrong = np.flatnonzero(status == Status.REF_MISMATCH)
    known = (Status.OK, Status.REF_MISMATCH, Status.TOO_LONG)
    checked = np.flatnonzero(np.isin(status, known))
    mismatches = len(np.unique(variants.record[wrong]))
    records = len(np.unique(variants.record[checked]))
    if mismatches <= max_ref_mismatch * records:
        return
    cause = f"{genome.path} is most likely another assembly than the variants were called on"
    tried = checked[np.linspace(0, len(checked) - 1, min(len(checked), _SITES_TRIED)).astype(int)]
    first = np.array([ord(variants.ref[row][0].upper()) for row in tried.tolist()])
    for shift, says in ((1, "one too small, counted from 0"), (-1, "one too large")):
        there = genome.windows(contig[tried], variants.position[tried] + shift, 1)[:, 0]
        if len(tried) > 9 and np.mean(there == first) > _AGREEMENT:
            cause = f"the positions are most likely {says}"
    row = int(wrong[0])
    start = int(variants.position[row])
    end = start + min(len(variants.ref[row]), _BASES_SHOWN)
    bases = genome.bases(int(contig[row]), start, end).tobytes().decode()
    raise UserError(
        f"{source}: REF differs from the genome in {mismatches:,} of {records:,} records, first at "
        f"{name_row(variants, source)(row)} where the genome has {bases}: {cause} "
        f"(max_ref_mismatch, now {max_ref_mismatch:g}, sets how many are accepted)"
    )
