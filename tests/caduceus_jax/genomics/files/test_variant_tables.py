"""Tables of variants: read with every column, refused with the row, written as they came."""

import gzip

import polars
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.tables import Table, read_table
from caduceus_jax.genomics.files.variant_tables import (
    frame_of,
    variants_of,
    vcf_lines,
)
from caduceus_jax.genomics.variant import Variant, Variants

TEXT = "#chrom\tpos\tnote\tref\talt\tllr\n1\t007\tx\tA\tC\told\nchr2\t3\t1.50\tac\t\told\n"


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.parquet"])
def test_what_is_read(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        columns = {"chrom": [1, 2], "pos": [7, 3], "ref": ["A", "ac"], "alt": ["C", None]}
        polars.DataFrame(columns).write_parquet(path)
    else:
        path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith("gz") else TEXT.encode())
    table = read_table(path)
    variants = variants_of(table)
    assert variants.chrom == (["1", "2"] if name.endswith("parquet") else ["1", "chr2"])
    assert variants.position.tolist() == [6, 2]
    assert variants.ref == ["A", "ac"] and variants.alt == ["C", None]
    assert variants.line.tolist() == ([1, 2] if name.endswith("parquet") else [2, 3])
    assert len(table.frame) == 2


def test_a_vcf_of_a_table_declares_contigs_as_its_records_name_them(tmp_path):
    (tmp_path / "a.tsv").write_text(TEXT)
    variants = variants_of(read_table(tmp_path / "a.tsv"))
    contigs = [("chr1", 4), ("chr3", 9)]
    assert list(vcf_lines(variants, contigs, {"1": 0, "chr2": None})) == [
        "##fileformat=VCFv4.2",
        "##contig=<ID=1,length=4>",
        "##contig=<ID=chr2>",
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
        "1\t7\t.\tA\tC\t.\t.\t.",
        "chr2\t3\t.\tac\t.\t.\t.\t.",
    ]


def test_variants_as_a_table_count_from_1():
    frame = frame_of(Variants.of([Variant("a", 3, "A", "C"), Variant("b", 1, "AT", ".")]))
    assert frame.rows() == [("a", 3, "A", "C"), ("b", 1, "AT", None)]
    assert variants_of(Table(frame)).alt == ["C", None]


HEAD = "chrom\tpos\tref\talt\n"
BAD = {
    "": " is empty: its first line names the columns",
    "chrom,pos,ref,alt\n": (
        " has no column chrom, pos, ref, alt: a table of variants has chrom, pos, ref and alt"
    ),
    "chrom\tpos\tpos\n": ":1: two columns have the same name, pos: rename one of them",
    HEAD + "1\t2\tA\n": (":2: 3 columns, where the first line names 4; they are separated by tabs"),
    HEAD + "1\t2\tA\tC\n\t2\tA\tC\n": ":3: chrom is empty",
    HEAD + "\n1\t2\tA\tC\n\n\t2\tA\tC\n": ":5: chrom is empty",
    HEAD + "1\t2.0\tA\tC\n": ":2: pos is '2.0', not a whole number from 1 up",
    HEAD + "1\t3000000000\tA\tC\n": ":2: pos is 3000000000, beyond 2^31: no contig is that long",
    HEAD + "1\t2\t\tC\n": ":2: ref is '': it must be the reference's bases",
    HEAD + "1\t2\tA\tC,G\n": ":2: alt is 'C,G': a table has one row per ALT",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables_are_one_sentence(tmp_path, text):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        variants_of(read_table(path))
    assert str(error.value) == f"{path}{BAD[text]}"


@pytest.mark.parametrize("alt", ["C<ctg1>", "X", "I", "<ctg1>C", "A<INS>", "A/C", "-"])
def test_an_odd_alt_stops_nothing(alt):
    table = Table(polars.DataFrame({"chrom": "1", "pos": [2], "ref": "A", "alt": alt}))
    assert variants_of(table).alt == [alt]


def test_bad_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(UserError, match=r"a\.parquet does not exist$"):
        read_table(path)
    path.write_text("chrom")
    with pytest.raises(UserError, match=r"^.*a\.parquet cannot be read as parquet: "):
        read_table(path)
    columns = {"chrom": ["1"], "pos": [2.0], "ref": ["A"], "alt": ["C"]}
    polars.DataFrame(columns).write_parquet(path)
    with pytest.raises(UserError) as error:
        variants_of(read_table(path))
    assert str(error.value) == f"{path}: row 1: pos is 2.0, not a whole number from 1 up"
