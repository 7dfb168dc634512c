"""Indexes of FASTA files, against samtools' and against files that they do not fit."""

import os

import pysam
import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.reference import fasta_index
from caduceus_jax.genomics.reference.fasta_index import Record

TEXT = ">chr1 first\nACGTA\nCGTAC\nGT\n>chr2\r\nAC\r\nGT\r\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(TEXT, newline="")
    return path


def test_the_index_is_that_of_samtools(path):
    built = fasta_index.build(Input(path))
    assert built == {"chr1": Record(12, 12, 5, 6), "chr2": Record(4, 34, 2, 4)}
    pysam.faidx(str(path))
    assert fasta_index.read_fai(path.with_name("a.fa.fai")) == built


def test_a_base_is_where_its_line_is():
    assert [Record(12, 12, 5, 6).byte(base) for base in (0, 4, 5, 11)] == [12, 16, 18, 25]


def test_an_index_is_written_once_and_believed_where_it_fits(path):
    index = fasta_index.open_index(Input(path))
    fai = path.with_name("a.fa.fai")
    assert index.read(12, 17) == b"ACGTA"
    written = fai.stat().st_mtime_ns
    fasta_index.open_index(Input(path))
    assert fai.stat().st_mtime_ns == written
    fai.write_text("chr1\t12\t11\t5\t6\nchr2\t4\t34\t2\t4\n")  # one byte too early
    assert fasta_index.open_index(Input(path)).records["chr1"].offset == 12


def test_an_index_goes_to_the_cache_where_the_folder_may_not_be_written(path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "cache"))
    write, tried = fasta_index._write, []

    def refusing(base, records, blocks):
        tried.append(base)
        if base == path:
            raise PermissionError(13, "Permission denied")
        write(base, records, blocks)

    monkeypatch.setattr(fasta_index, "_write", refusing)
    fasta_index.open_index(Input(path))
    assert len(tried) == 2 and os.path.exists(f"{tried[1]}.fai")


@pytest.mark.parametrize(
    "text",
    [">a\nACGT\nAC\nACGT\n", ">a\nACGT\nACGTA\n", ">a\nAC\n\nAC\n"],
)
def test_lines_of_unequal_length_are_named(tmp_path, text):
    (tmp_path / "a.fa").write_text(text)
    with pytest.raises(UserError, match=r"a\.fa:\d: the lines of a record differ in length"):
        fasta_index.build(Input(tmp_path / "a.fa"))


def test_what_is_not_an_index(tmp_path):
    (tmp_path / "a.fai").write_text("chr1\t0\t11\t5\t6\n")
    with pytest.raises(ValueError, match="is not an index of a FASTA file"):
        fasta_index.read_fai(tmp_path / "a.fai")
