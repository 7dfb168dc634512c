"""Recipes: YAML files of settings, checked key by key before they are read."""

import pathlib
from collections.abc import Iterator

import yaml

from caduceus_jax.cli.signature import Signature
from caduceus_jax.cli.words import unknown
from caduceus_jax.configs import recipes, resolve
from caduceus_jax.errors import UserError


def check(name: str, signature: Signature) -> tuple[pathlib.Path, dict[str, str]]:
    """Finds a recipe and checks that the command has every setting in it.

    Args:
        name: a file, or the name of a shipped recipe.
        signature: the command's signature.

    Returns:
        The file, and the file and line of each setting in it.

    Raises:
        UserError: the recipe does not exist, is not YAML, or has a setting that does not exist.
    """
    path = resolve(name)
    if not path.is_file():
        shipped = recipes()
        otherwise = f"shipped are {', '.join(shipped)}"
        raise UserError(unknown("recipe", name, shipped, otherwise))
    settings, lines = signature.settings, {}
    groups = {key.rpartition(".")[0] for key in settings if "." in key}
    for line, key, node in _keys(_root(path)):
        where = f"{path}:{line}"
        if key in settings:
            lines[key] = where
        elif key not in groups:
            if not any(key.startswith(f"{inside}.") for inside in settings):
                raise UserError(f"{where}: {unknown('setting', key, settings)}")
        elif not isinstance(node, yaml.MappingNode):
            first = next(name for name in settings if name.startswith(f"{key}."))
            raise UserError(f"{where}: {key} is a group of settings such as {first}")
    return path, lines


def _root(path: pathlib.Path) -> yaml.MappingNode:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or "not text"
        raise UserError(f"{where}: not YAML ({reason})") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: a recipe is a list of settings such as 'steps: 100'")
    return root


def _keys(root: yaml.Node, prefix: str = "") -> Iterator[tuple[int, str, yaml.Node]]:
    """Returns line (from 1), dotted name and value of every key of a YAML document, outer first."""
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        yield key.start_mark.line + 1, f"{prefix}{key.value}", value
        yield from _keys(value, f"{prefix}{key.value}.")
