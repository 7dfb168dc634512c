"""What an installation holds, and how type checkers find it."""

import pathlib
import tomllib

import pytest

import caduceus_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "caduceus_jax"


@pytest.mark.parametrize("room", ["configs", "kernels", "train"])
def test_rooms_are_links_so_that_an_editable_install_is_a_plain_path(room):
    assert (PACKAGE / room).is_symlink() and (PACKAGE / room).readlink() == pathlib.Path("..", room)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {"": "."}


def test_every_folder_of_sources_is_a_package():
    for room in ("caduceus_jax", "kernels", "train"):
        folders = {path.parent for path in (ROOT / room).rglob("*.py")}
        assert [str(f) for f in folders if not (f / "__init__.py").is_file()] == []


def test_every_shipped_file_is_covered_by_a_pattern():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    configs = ROOT / "configs"
    patterns = settings["package-data"]["caduceus_jax.configs"]
    shipped = {path for pattern in patterns for path in configs.glob(pattern)}
    indexes = {".fai", ".py", ".pyc"}  # an index is made beside a genome when it is first used
    left = {path for path in configs.rglob("*") if path.is_file()} - shipped
    assert [str(path) for path in left if path.suffix not in indexes] == []


def test_the_package_is_marked_as_typed():
    assert (pathlib.Path(caduceus_jax.__file__).parent / "py.typed").is_file()
