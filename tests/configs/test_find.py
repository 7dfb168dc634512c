import pathlib

import pytest

from caduceus_jax.configs import find, recipes

HERE = pathlib.Path(find("quickstart")).parent


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml"])
def test_shipped_recipes_are_found_from_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find(name) == HERE / "quickstart.yaml"


def test_shipped_genomes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find("configs/data/yeast_mitochondrion.fa")
    assert found == HERE / "data" / "yeast_mitochondrion.fa"
    assert found.is_file()


def test_a_file_that_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("steps: 1\n")
    assert find("quickstart.yaml") == pathlib.Path("quickstart.yaml")


def test_what_is_nowhere_is_returned_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("configs/nothing.yaml") == pathlib.Path("configs/nothing.yaml")
    # An absolute path is never looked up elsewhere.
    assert find("/configs/quickstart.yaml") == pathlib.Path("/configs/quickstart.yaml")


def test_recipes_are_listed():
    assert "quickstart" in recipes()
