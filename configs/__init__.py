"""Recipes for `caduceus-jax pretrain --config`, and the small genomes that they name.

Those in finetune/ are for `caduceus-jax evaluate --config finetune/NAME`.

The files are part of the installed package, so that `--config quickstart` works anywhere.
"""

import pathlib


def find(name: str) -> pathlib.Path:
    """The file that a command line or a recipe names.

    Args:
        name: a path; or the name of a shipped file, as in a checkout (`configs/quickstart.yaml`,
            `configs/data/lambda.fa`) or bare (`quickstart`).

    Returns:
        That path where it exists, else the shipped file, else the path as it was given.
    """
    given = pathlib.Path(name)
    if given.exists():
        return given
    inside = pathlib.Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    for shipped in (_HERE / inside, _HERE / f"{inside}.yaml"):
        if not given.is_absolute() and shipped.is_file():
            return shipped
    return given


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


_HERE = pathlib.Path(__file__).parent
