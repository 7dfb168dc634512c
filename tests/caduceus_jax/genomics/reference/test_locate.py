"""Where windows and variants lie, and what becomes of each."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.locate import (
    centred,
    extra_left,
    locate,
    middle,
    name_row,
    place,
)
from caduceus_jax.genomics.structural import Event
from tests.genomes import genome


@pytest.fixture(scope="module")
def chr1(tmp_path_factory):
    return genome(tmp_path_factory.mktemp("genome") / "a.fa", {"chr1": "ACGTNACGTACGTACG"})


def variants(*texts):
    return cj.Variants.of([cj.Variant.from_str(text) for text in texts])


@pytest.mark.parametrize(
    ("text", "status", "start", "ref", "alt"),
    [
        ("chr1:2:C>T", "ok", 1, "C", "T"),
        ("chr1:2:CG>CA", "ok", 2, "G", "A"),  # what both share is not changed
        ("chr1:2:CG>TA", "ok", 1, "CG", "TA"),
        ("chr1:2:C>CTT", "ok", 2, "", "TT"),
        ("chr1:2:CGT>C", "ok", 2, "GT", ""),
        ("chr1:2:A>T", "ref_mismatch", 1, "A", "T"),
        ("chr1:5:N>T", "ambiguous", 4, "N", "T"),
        ("chr1:17:A>T", "out_of_range", 16, "A", "T"),
        ("chr9:2:C>T", "unknown_chrom", 1, "C", "T"),
    ],
)
def test_a_change_and_its_status(chr1, text, status, start, ref, alt):
    row = locate(variants(text), chr1, indels=True).row(0, named=True)
    assert (row["status"], row["start"], row["ref"], row["alt"]) == (status, start, ref, alt)
    assert row["contig"] == (-1 if status == "unknown_chrom" else 0)


def test_structural_variants_are_read_from_the_genome(chr1):
    events = {0: Event("DEL", 3), 1: Event("DUP", 2), 2: Event("INV", 3), 3: Event("DEL", 6)}
    rows = variants("chr1:6:A><DEL>", "chr1:6:A><DUP>", "chr1:6:C><INV>", "chr1:6:A><DEL>")
    rows = rows._replace(events=events)
    found = locate(rows, chr1, indels=True, longest=5)
    assert found["status"].to_list() == ["ok", "ok", "ref_mismatch", "too_long"]
    assert found["start"].to_list()[:3] == [6, 8, 6]
    assert found["ref"].to_list() == ["CGT", "", "CGT", ""]
    assert found["alt"].to_list() == ["", "CG", "ACG", ""]
    assert locate(rows, chr1, indels=False)["status"].to_list() == ["indel"] * 4


def test_indels_have_a_status_where_they_cannot_be_scored(chr1):
    rows = variants("chr1:2:C>CT", "chr1:2:C>T")
    assert locate(rows, chr1, indels=False)["status"].to_list() == ["indel", "ok"]


def test_too_many_mismatches_stop_with_the_first_example(chr1):
    rows = variants("chr1:2:C>T", "chr1:3:T>A")
    with pytest.raises(UserError, match=r"in 1 of 2 records, first at .*chr1:3 T>A.* has G"):
        locate(rows, chr1, indels=True, max_ref_mismatch=0.1)
    assert locate(rows, chr1, indels=True, max_ref_mismatch=0.5)["status"][1] == "ref_mismatch"


def test_positions_that_are_off_by_one_are_recognised(chr1):
    bases = chr1.fetch("chr1", 5, 16)
    rows = [f"chr1:{5 + i}:{base}>{'A' if base != 'A' else 'C'}" for i, base in enumerate(bases)]
    with pytest.raises(UserError, match="most likely one too small, counted from 0"):
        locate(variants(*rows), chr1, indels=True, max_ref_mismatch=0.1)


def test_a_row_is_named_with_its_line(chr1):
    assert name_row(variants("chr1:2:C>T"), "a.vcf")(0).endswith("(chr1:2 C>T)")


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


def test_a_stretch_lies_in_the_middle_of_its_window():
    """Two bases of 5 leave 3 others: one left and two right of them, or the other way round."""
    starts, ends = middle(
        np.array([10, 10, 10]), np.array([2, 2, 3]), 5, np.array([False, True, True])
    )
    np.testing.assert_array_equal(starts, [9, 8, 9])
    np.testing.assert_array_equal(ends, [14, 13, 14])


def test_both_strands_put_the_base_that_is_left_over_on_the_same_side(tmp_path):
    """AACC before CG: read from the other strand it is CGGGTT, which comes later."""
    forward = genome(tmp_path / "a.fa", {"1": "AACCCG"})
    reverse = genome(tmp_path / "b.fa", {"1": "CGGGTT"})
    zero = np.zeros(1, np.int64)
    assert extra_left(forward, zero, zero + 2, [(b"CC",)], 3).tolist() == [True]
    assert extra_left(reverse, zero, zero + 2, [(b"GG",)], 3).tolist() == [False]
    # One base leaves as many on both sides; windows of an even length are not asked about.
    assert extra_left(reverse, zero, zero + 2, [(b"G",)], 3).tolist() == [True]
    assert extra_left(reverse, zero, zero + 2, [(b"G",)], 4).tolist() == [True]
    assert extra_left(reverse, zero, zero + 2, [(b"G",)], 4, even_too=True).tolist() == [False]
