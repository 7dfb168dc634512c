"""Compression is told from the first bytes, and damage from the last ones."""

import gzip
import os
import sys
import tempfile

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.inputs import Input, check_text, open_binary
from tests.disks import files_of_at_most


@pytest.fixture
def files(tmp_path):
    pysam = pytest.importorskip("pysam")
    (tmp_path / "plain.gz").write_bytes(b"text, whatever its name says")
    (tmp_path / "gzip").write_bytes(gzip.compress(b"text, whatever its name says"))
    pysam.tabix_compress(str(tmp_path / "plain.gz"), str(tmp_path / "bgzip"))
    return tmp_path


def test_compression_is_told_from_the_content(files):
    kinds = {"plain.gz": None, "gzip": "gzip", "bgzip": "bgzip"}
    for name, kind in kinds.items():
        assert Input(files / name).compression == kind
        with open_binary(files / name) as file:
            assert file.read() == b"text, whatever its name says"


def test_text_has_no_zero_bytes():
    check_text("a.gtf", b"text\n", "a GTF file")
    with pytest.raises(UserError, match=r"^a\.gtf:3: a zero byte: this is not text, so not a GTF"):
        check_text("a.gtf", b"1\n2\n3\0", "a GTF file")


def test_short_files_are_no_compression(tmp_path):
    for content in (b"", b"\x1f"):
        (tmp_path / "short").write_bytes(content)
        assert Input(tmp_path / "short").compression is None


@pytest.mark.parametrize("name", ["gzip", "bgzip"])
def test_damage_is_one_sentence(files, name):
    path = files / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"^{path} is cut short .*: fetch it again"):
        with open_binary(path) as file:
            file.read()


def test_a_pipe_that_finds_no_room_is_one_sentence(monkeypatch):
    """Even where not a byte can be written, so that no folder for temporary files is known."""
    for folder, shown in ((tempfile.gettempdir(),) * 2, (None, "a temporary file")):
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as file:
            file.write(b"more than one byte")
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with files_of_at_most(0), pytest.raises(UserError, match=f"^a pipe is copied to {shown}, "):
            Input(f"/dev/fd/{reading}")
        os.close(reading)


def test_standard_input_is_read_by_one_input(monkeypatch):
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert Input("-").raw(0) == b""
        with pytest.raises(UserError, match="^standard input is a pipe, which is read once, and"):
            Input("/dev/stdin")
