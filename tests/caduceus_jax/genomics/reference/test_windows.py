"""Windows at the ends of contigs, literally."""

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.reference.windows import centred, place


def array(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# Windows of 4 on contigs of 10: inside, over the start, over the end, just outside on either side,
# on no contig; then on a contig of 3.
START = array(3, -1, 8, -4, 10, 2, -1)
LENGTH = array(10, 10, 10, 10, 10, -1, 3)
OUTSIDE = ["ok", "ok", "ok", "out_of_range", "out_of_range", "unknown_chrom", "ok"]


def test_pad_keeps_windows_and_counts_what_is_outside():
    windows = place(START, START + 4, LENGTH, edge="pad")
    assert windows.start.tolist() == START.tolist()
    assert windows.end.tolist() == (START + 4).tolist()
    assert windows.padding.tolist() == [0, 1, 2, 0, 0, 0, 1]
    assert windows.status.tolist() == OUTSIDE


def test_shift_moves_windows_inward():
    windows = place(START, START + 4, LENGTH, edge="shift")
    assert windows.start.tolist() == [3, 0, 6, -4, 10, 2, 0]
    assert (windows.end - windows.start).tolist() == [4] * 7
    assert windows.padding.tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert windows.status.tolist() == OUTSIDE


def test_drop_says_so():
    windows = place(START, START + 4, LENGTH, edge="drop")
    crossing = {1, 2, 6}
    assert windows.status.tolist() == [
        "crosses_edge" if i in crossing else status for i, status in enumerate(OUTSIDE)
    ]
    assert windows.padding.tolist() == [0] * 7


def test_error_names_the_first_row():
    with pytest.raises(UserError) as error:
        place(START, START + 4, LENGTH, edge="error", describe=lambda row: f"a.bed:{row + 1}")
    assert str(error.value) == (
        "a.bed:2 needs bases -1 to 3 (0-based) of a contig of 10: choose edge pad, shift or drop"
    )
    inside = START[[0, 3, 4, 5]]
    windows = place(inside, inside + 4, LENGTH[[0, 3, 4, 5]], edge="error")
    assert windows.status.tolist() == ["ok", "out_of_range", "out_of_range", "unknown_chrom"]


def test_centred_windows_have_their_position_at_half_their_length():
    start, end = centred(array(10, 0), 5)
    assert (start.tolist(), end.tolist()) == ([8, -2], [13, 3])
    start, end = centred(array(10, 0), 4)
    assert (start.tolist(), end.tolist()) == ([8, -2], [12, 2])
