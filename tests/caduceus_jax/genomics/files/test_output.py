"""Outputs are refused before the work or whole after it."""

import errno
import os
import sys

import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.output import check_output, check_outputs, replacing

FORMATS = {".parquet": "polars", ".npz": None}


def test_a_missing_package_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    assert check_output(tmp_path / "a.npz", FORMATS) == ".npz"
    with pytest.raises(UserError) as error:
        check_output(tmp_path / "a.parquet", FORMATS)
    assert str(error.value) == (
        "writing .parquet needs polars: pip install 'caduceus-jax[genomics]'"
    )


def test_what_is_not_a_file_is_no_output(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(UserError, match=r"^cannot write .*a\.npz: .*a\.npz is a directory$"):
        check_output(tmp_path / "a.npz", FORMATS)
    os.mkfifo(tmp_path / "b.npz")
    with pytest.raises(UserError, match=r"b\.npz: it is not a regular file$"):
        check_output(tmp_path / "b.npz", FORMATS)


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "a.tsv").symlink_to("a.tsv")
    with pytest.raises(UserError, match="a.tsv: it is a symbolic link to itself$"):
        check_output(tmp_path / "a.tsv", {".tsv": None})


def test_several_outputs_are_checked_together(tmp_path):
    a, b, read = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "in.npz"
    assert check_outputs([a, str(b)], FORMATS, [read, None]) == {a: ".npz", b: ".npz"}
    assert check_outputs(a, FORMATS, []) == {a: ".npz"}
    with pytest.raises(UserError, match="a.npz is named twice: give each output a name of its own"):
        check_outputs([a, a], FORMATS, [])
    (tmp_path / "link.npz").symlink_to(read)
    for path in (read, tmp_path / "link.npz"):
        with pytest.raises(UserError, match="npz is the input: choose another name for the output"):
            check_outputs(path, FORMATS, [read])


def test_an_output_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "out.txt", tmp_path / "out.txt"
    link.symlink_to(target)
    for text in ("first", "second"):
        with replacing(link) as partial:
            partial.write_text(text)
        assert link.is_symlink() and target.read_text() == text
    assert [p.name for p in target.parent.iterdir()] == ["out.txt"]


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(UserError) as error, replacing(path) as partial:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(error.value) == f"{path} cannot be written: No space left on device"
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
