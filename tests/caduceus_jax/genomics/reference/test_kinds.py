"""Kinds of files: told by their first bytes, their names, or their columns."""

import gzip
import os

import polars
import pytest

from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.reference.kinds import is_table, kind_of
from tests.genomes import fasta, write_bed, write_vcf

VARIANTS = ("chrom", "pos", "ref", "alt")


def test_kinds_of_files(tmp_path):
    files = {
        "FASTA": fasta(tmp_path / "a", one="ACGT"),
        "VCF": write_vcf(tmp_path / "b", "chr1\t3\t.\tG\tT\t.\t.\t."),
        "BED": write_bed(tmp_path / "c", "chr1\t2\t5"),
    }
    for kind, path in files.items():
        assert kind_of(Input(path)).upper() == kind


def test_tables_are_told_by_their_first_bytes_or_their_name(tmp_path):
    polars.DataFrame({"x": [1]}).write_parquet(tmp_path / "fd")
    (tmp_path / "a.fa").write_text(">a\nACGT\n")
    (tmp_path / "a.tsv.gz").write_text("x\n1\n")
    (tmp_path / "a.txt").write_text("sequence\nACGT\n")
    assert is_table(Input(tmp_path / "fd"), ["y"])
    assert is_table(Input(tmp_path / "a.tsv.gz"), ["y"])
    assert not is_table(Input(tmp_path / "a.fa"), ["a"])
    assert kind_of(Input(tmp_path / "a.txt")) == "FASTA"  # to be refused by its first line


def piped(data: bytes) -> Input:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(data)
    try:
        return Input(f"/dev/fd/{reading}")
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    "text",
    [
        "chrom\tpos\tref\talt\n1\t3\tA\tC\n",
        "\ufeff#chrom,pos,ref,alt,x\r\n1,3,A,C,5\r\n",
        '\n"pos","chrom","alt","ref"\n3,1,C,A\n',
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_tables_in_pipes_are_told_by_their_columns(text, pack):
    source = piped(pack(text.encode()))
    assert is_table(source, VARIANTS)
    assert not is_table(source, ["sequence"])


def test_what_is_in_a_pipe_is_told_by_its_first_lines():
    assert kind_of(piped(b"name\tbases\na\tACGT\n"), "bases") == "table"
    assert kind_of(piped(b">sequence\nACGT\n")) == "FASTA"
    assert kind_of(piped(b"chr1\t0\t5\n")) == "BED"
    assert kind_of(piped(b"##fileformat=VCFv4.2\n")) == "VCF"
