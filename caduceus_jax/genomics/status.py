"""The one list of what can become of a row, and the sentence that sums it up."""

import enum
import logging
from collections.abc import Sequence

import numpy as np

from caduceus_jax.errors import UserError

log = logging.getLogger(__name__)


class Status(enum.StrEnum):
    """Says what became of a row of the input; every row of the output has one."""

    OK = "ok"  # computed
    UNKNOWN_CHROM = "unknown_chrom"  # the genome has no such contig
    OUT_OF_RANGE = "out_of_range"  # entirely outside the contig
    CROSSES_EDGE = "crosses_edge"  # the window reaches beyond the contig, and edge is "drop"
    REF_MISMATCH = "ref_mismatch"  # the genome has another base than REF
    AMBIGUOUS = "ambiguous"  # REF, ALT or the genome's base is not A, C, G or T
    INDEL = "indel"  # REF and ALT differ in length, or <INV>; modes pll and embedding score it
    TOO_LONG = "too_long"  # the changed bases do not fit into the window or the context
    SYMBOLIC = "symbolic"  # a breakend, <CNV>, a <DEL> of unknown length
    SPANNING_DELETION = "spanning_deletion"  # ALT is *
    MISSING_ALT = "missing_alt"  # ALT is .
    UNPHASED = "unphased"  # with `phased`: the sample's GT is missing or does not tell haplotypes
    NOT_CARRIED = "not_carried"  # with `phased`: neither haplotype has ALT
    CONFLICT = "conflict"  # with `phased`: another change of the haplotype overlaps this one


# Nothing that can be computed: most likely another genome was meant.
WRONG_GENOME = (Status.UNKNOWN_CHROM, Status.OUT_OF_RANGE)
# A dtype that holds every status as text.
STATUS_DTYPE = f"<U{max(map(len, Status))}"


def summarise(
    what: str,
    names: Sequence[str],
    status: np.ndarray,
    out: Sequence[object],
    genome: object,
    *,
    skip_bad: bool,
    more: str = "",
) -> None:
    """Logs what became of the rows and where they are.

    Args:
        what: the rows are, for example "variants".
        names: name of each of the rows.
        status: (rows,) of `Status`.
        out: the files that hold them.
        genome: the genome they were looked up in.
        skip_bad: rows that are not on the genome are not an error.
        more: comes after the counts.

    Raises:
        UserError: rows are not on the genome; everything is written all the same.
    """
    files = ", ".join(map(str, out))
    log.info(f"{what}: {counted(status)}{more}; written to {files}")
    lost = np.flatnonzero(np.isin(status, WRONG_GENOME))
    if len(lost) and not skip_bad:
        kinds = " or ".join(s for s in WRONG_GENOME if (status == s).any())
        raise UserError(
            f"{len(lost):,} of {len(status):,} {what} are not on {genome}, first {names[lost[0]]}: "
            f"they have the status {kinds} in {files}; `skip_bad` accepts that"
        )


def tell_how_to_read_scores() -> None:
    """Logs where it is written what scores mean."""
    log.info("how to read the scores: https://caduceus-jax.github.io/caduceus-jax/reading-scores/")


def counted(status: np.ndarray) -> str:
    """Counts the rows of each status, in words."""
    counts = [(int((status == s).sum()), s) for s in Status]
    return ", ".join(f"{count:,} {s}" for count, s in counts if count) or "none"
