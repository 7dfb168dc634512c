"""Where variants lie, and what becomes of each."""

import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.locate import locate, name_row
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
