import pathlib

import pytest

from caduceus_jax.configs import recipes, resolve, resolve_data

HERE = pathlib.Path(resolve("quickstart")).parent


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml"])
def test_shipped_recipes_are_found_from_anywhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert resolve(name) == HERE / "quickstart.yaml"


def test_shipped_genomes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = resolve_data("configs/data/yeast_mitochondrion.fa")
    assert found == HERE / "data" / "yeast_mitochondrion.fa"
    assert found.is_file()


def test_a_file_that_is_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text("steps: 1\n")
    assert resolve("quickstart.yaml") == pathlib.Path("quickstart.yaml")


def test_a_folder_of_the_recipe_s_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert resolve("quickstart") == HERE / "quickstart.yaml"
    # A prepared genome is a folder.
    assert resolve_data("quickstart") == pathlib.Path("quickstart")


def test_what_is_nowhere_is_returned_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for find in (resolve, resolve_data):
        assert find("configs/nothing.yaml") == pathlib.Path("configs/nothing.yaml")
        # An absolute path is never looked up elsewhere.
        assert find("/configs/quickstart.yaml") == pathlib.Path("/configs/quickstart.yaml")


def test_recipes_are_listed_with_those_in_folders():
    assert {"quickstart", "finetune/splice", "finetune/eqtl"} <= set(recipes())
    assert all(resolve(name).is_file() for name in recipes())
