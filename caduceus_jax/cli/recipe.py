"""A dataclass from YAML recipes and `--nested.setting value`, with errors one can act on."""

import argparse
import dataclasses
import difflib
import pathlib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import jsonargparse
import yaml

from caduceus_jax.configs import find, recipes
from caduceus_jax.errors import UserError


class _Help(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of a docstring apart."""


def parse(prog: str, description: str, config: type, words: Sequence[str]) -> Any:
    """Reads a command line into a dataclass.

    Args:
        prog: what the user typed before the words.
        description: what `--help` says first.
        config: a dataclass, whose fields may be dataclasses; their docstrings are the help.
        words: `--config recipe.yaml` and `--nested.setting value`, of which later ones win.
            Recipes that are not found here are looked up among those that are shipped.

    Returns:
        An instance of `config`.

    Raises:
        UserError: a recipe that does not exist or is no YAML, a setting that does not exist, or
            a value of the wrong type.
    """
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [--config RECIPE] [--SETTING VALUE ...]",
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", action="config", help="a YAML recipe; what follows overrides it"
    )
    parser.add_class_arguments(config)
    settings = dict(_settings(config))
    known = {option for action in parser._actions for option in action.option_strings}
    written: dict[tuple[str, str], str] = {}
    checked = list(_checked(words, settings, known, written))
    try:
        arguments = parser.instantiate(parser.parse_args(checked))
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        raise UserError(_explained(str(error), prog, settings, written)) from None
    return config(**{field.name: arguments[field.name] for field in dataclasses.fields(config)})


def _settings(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and type of each setting; a group of them has the type None."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        name, hint = prefix + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield name, None
            yield from _settings(hint, name + ".")
        else:
            yield name, hint


def _checked(
    words: Sequence[str],
    settings: dict[str, Any],
    known: set[str],
    written: dict[tuple[str, str], str],
) -> Iterator[str]:
    """The words, with recipes found and checked, if every option among them exists.

    `written` gets the file and line of each (setting, value) that a recipe has.
    """
    before = ""
    for word, after in zip(words, (*words[1:], "--"), strict=False):
        option, equals, value = word.partition("=")
        if before == "--config" or (option == "--config" and equals):
            path = _recipe(value if option == "--config" else word, settings, written)
            yield f"--config={path}" if option == "--config" else str(path)
        else:
            if option.startswith("--") and option not in known:
                raise UserError(f"there is no option {option}{_near(option, known)}")
            alone = not equals and after.startswith("--")
            yield f"{word}=true" if alone and settings.get(option[2:]) is bool else word
        before = word


def _recipe(
    name: str, settings: dict[str, Any], written: dict[tuple[str, str], str]
) -> pathlib.Path:
    """The file of a recipe, after a look at every key in it."""
    path = find(name)
    if not path.is_file():
        shipped = recipes()
        near = difflib.get_close_matches(pathlib.Path(name).stem, shipped, n=1)
        hint = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped)}"
        raise UserError(f"there is no recipe {name}; {hint}")
    try:
        root = yaml.compose(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or "not text"
        raise UserError(f"{where}: not YAML ({reason})") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: a recipe is a list of settings such as 'steps: 100'")
    for line, key, node in _keys(root):
        if key not in settings:
            raise UserError(f"{path}:{line}: there is no setting {key}{_near(key, settings)}")
        if settings[key] is None and not isinstance(node, yaml.MappingNode):
            first = next(s for s in settings if s.startswith(f"{key}."))
            raise UserError(f"{path}:{line}: {key} is a group of settings such as {first}")
        written[key, str(node.value)] = f"{path}:{line}: "
    return path


def _keys(root: yaml.Node, prefix: str = "") -> Iterator[tuple[int, str, yaml.Node]]:
    """Line (from 1), dotted name and value of every key in a YAML document, outer ones first."""
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        yield key.start_mark.line + 1, f"{prefix}{key.value}", value
        yield from _keys(value, f"{prefix}{key.value}.")


def _near(word: str, known: typing.Iterable[str]) -> str:
    """The hint that ends an error about a name."""
    # First the right name in the wrong group, or in none.
    last = word.lstrip("-").split(".")[-1]
    near = [name for name in known if name.lstrip("-").split(".")[-1] == last]
    near = near or difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; --help lists all"


def _explained(
    message: str, prog: str, settings: dict[str, Any], written: dict[tuple[str, str], str]
) -> str:
    """The parser's complaint as one sentence."""
    key = re.search(r'key "([\w.]+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and value and settings.get(key[1]) is not None:
        where = written.get((key[1], value[1]), "")
        return f"{where}{key[1]} is {value[1]}, but it takes {_wanted(settings[key[1]])}"
    return f"{' '.join(message.split())}; see {prog} --help"


def _wanted(hint: Any) -> str:
    """A type in plain words."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_wanted(h) for h in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (list, tuple):
        return f"a list of {_PLURAL.get(typing.get_args(hint)[0], 'values')}: [a,b]"
    return _PLAIN.get(hint, str(hint))


_PLAIN = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
}
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts"}
