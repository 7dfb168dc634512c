"""Outputs are refused before the work or whole after it."""

import sys

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.files.output import check_output, finish, replacing


def test_a_missing_package_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    formats = {".parquet": "polars", ".npz": None}
    assert check_output(tmp_path / "a.npz", formats) == ".npz"
    with pytest.raises(UserError) as error:
        check_output(tmp_path / "a.parquet", formats)
    assert str(error.value) == (
        "writing .parquet needs polars: pip install 'caduceus-jax[genomics]'"
    )


def test_a_folder_is_no_output(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(UserError, match=r"^cannot write .*a\.npz: .*a\.npz is a folder$"):
        check_output(tmp_path / "a.npz", {".npz": None})


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


def test_the_last_line_counts_statuses(tmp_path, capsys):
    status = np.array(["ok", "indel", "ok"])
    finish("variants", ["a", "b", "c"], status, tmp_path / "o.vcf", None, skip_bad=False)
    assert capsys.readouterr().err == f"variants: 2 ok, 1 indel; written to {tmp_path / 'o.vcf'}\n"
