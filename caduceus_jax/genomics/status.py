"""The one list of what can become of a row, and the sentence that sums it up."""

import enum
import logging

log = logging.getLogger(__name__)


class Status(enum.StrEnum):
    """What became of a row of the input; every row of the output has one."""

    OK = "ok"  # computed
    UNKNOWN_CHROM = "unknown_chrom"  # the genome has no such contig
    OUT_OF_RANGE = "out_of_range"  # entirely outside the contig
    CROSSES_EDGE = "crosses_edge"  # the window reaches beyond the contig, and edge is "drop"
    REF_MISMATCH = "ref_mismatch"  # the genome has another base than REF
    AMBIGUOUS = "ambiguous"  # REF, ALT or the genome's base is not A, C, G or T
    INDEL = "indel"  # REF and ALT differ in length; modes pll and embedding score it
    TOO_LONG = "too_long"  # the changed bases do not fit into the window or the context
    SYMBOLIC = "symbolic"  # <DEL>, a breakend
    SPANNING_DELETION = "spanning_deletion"  # ALT is *
    MISSING_ALT = "missing_alt"  # ALT is .


# Nothing that can be computed: most likely another genome was meant.
WRONG_GENOME = (Status.UNKNOWN_CHROM, Status.OUT_OF_RANGE)
# A dtype that holds every status as text.
STATUS_DTYPE = f"<U{max(map(len, Status))}"
