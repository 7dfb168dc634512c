"""Variants: positions from 1, as a VCF has them."""

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.variant import Variant, Variants


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1:123:A>G", Variant("chr1", 123, "A", "G")),
        ("chr1:123:A:G", Variant("chr1", 123, "A", "G")),
        ("1-1000-AT-A", Variant("1", 1000, "AT", "A")),
        ("chr1:30,000,001:A>GTT", Variant("chr1", 30_000_001, "A", "GTT")),
        ("HLA:1:7:c>t", Variant("HLA:1", 7, "c", "t")),
        ("chr1:9:A><DEL>", Variant("chr1", 9, "A", "<DEL>")),
        ("chr1:9:A>*", Variant("chr1", 9, "A", "*")),
        ("chr1:9:A>A[chr2:5[", Variant("chr1", 9, "A", "A[chr2:5[")),
    ],
)
def test_text(text, expected):
    assert Variant.from_str(text) == expected
    assert Variant.from_str(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "chr1:123", "chr1:A>G", "chr1:12:>G", "chr1:12:A>", "A>G"])
def test_text_that_is_not_a_variant(text):
    with pytest.raises(UserError, match=f"^'{text}' is not a variant: variants are written like"):
        Variant.from_str(text)


def test_where_it_is_counted_from_0():
    assert (Variant("chr1", 123, "AT", "G").start, Variant("chr1", 123, "AT", "G").end) == (
        122,
        124,
    )


def test_values_are_checked():
    with pytest.raises(UserError, match="^pos is -1; positions of variants are counted from 1$"):
        Variant("chr1", -1, "A", "G")
    with pytest.raises(UserError, match="^ref is empty: it must be the reference's bases$"):
        Variant("chr1", 1, "", "G")


def test_columns():
    columns = Variants.of([Variant("a", 3, "A", "C"), Variant("b", 1, "AT", ".")])
    assert columns.record.tolist() == [0, 1] and columns.position.tolist() == [2, 0]
    assert (columns.chrom, columns.ref, columns.alt) == (["a", "b"], ["A", "AT"], ["C", None])
