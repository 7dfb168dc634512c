"""Recipes for `--config`, and the small genomes and tables that they name.

The recipes here are for `caduceus-jax pretrain`; those in finetune/ say at their head whether they
are for `finetune` or for `evaluate`. The files are part of the installed package, so that
`--config quickstart` works anywhere.
"""

import pathlib

_HERE = pathlib.Path(__file__).parent


def resolve(name: str) -> pathlib.Path:
    """Finds a recipe.

    Args:
        name: a path; or the name of a shipped recipe, as in a checkout
            (`configs/quickstart.yaml`) or without its folder and ending (`quickstart`,
            `finetune/splice`).

    Returns:
        The path itself if it is a file; else the shipped file of that name; else the path as it was
        given. A folder of the recipe's name does not hide the recipe.
    """
    given = pathlib.Path(name)
    if given.is_file():
        return given
    return _shipped(given) or _shipped(pathlib.Path(f"{given}.yaml")) or given


def resolve_data(name: str) -> pathlib.Path:
    """Finds a file or folder of data that a command line or a recipe names.

    Args:
        name: a path; or a shipped file as in a checkout, `configs/data/yeast_mitochondrion.fa`.

    Returns:
        The path itself if it exists; else the shipped file of that name; else the path as it was
        given.
    """
    given = pathlib.Path(name)
    return given if given.exists() else _shipped(given) or given


def _shipped(given: pathlib.Path) -> pathlib.Path | None:
    inside = pathlib.Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    path = _HERE / inside
    return path if not given.is_absolute() and path.is_file() else None


def recipes() -> list[str]:
    """Returns the names of the shipped recipes, such as `quickstart` and `finetune/splice`."""
    paths = _HERE.rglob("*.yaml")
    return sorted(path.relative_to(_HERE).with_suffix("").as_posix() for path in paths)
