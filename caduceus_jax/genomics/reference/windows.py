"""Windows on contigs, and those that extend past an end."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.status import STATUS_DTYPE
from caduceus_jax.genomics.status import Status as Status

Edge = Literal["pad", "shift", "drop", "error"]
Positions = Int[np.ndarray, " rows"]


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
