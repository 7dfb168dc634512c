"""Turns the words of a command line into the arguments of the command's function."""

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jsonargparse

from caduceus_jax.cli import recipe
from caduceus_jax.cli.errors import in_options
from caduceus_jax.cli.page import page, plain_type
from caduceus_jax.cli.signature import Signature, config_signature
from caduceus_jax.cli.words import CONFIG, HELP, HELP_ALL, Word, sort_words
from caduceus_jax.errors import UserError

T = TypeVar("T")


class Arguments(NamedTuple):
    """Holds what a command is called with.

    Attributes:
        keywords: the function's arguments, by name.
        lines: file and line of each setting that a recipe has the last word on.
    """

    keywords: dict[str, Any]
    lines: dict[str, str]


def parse(prog: str, signature: Signature, words: Sequence[str]) -> Arguments:
    """Reads a command line.

    Args:
        prog: the command as it is typed, such as "caduceus-jax embed".
        signature: the command's signature.
        words: words of the command line after the command's name. Later words win; recipes that are
            not found as files are looked up among those that are shipped.

    Returns:
        The arguments of the function.

    Raises:
        UserError: an option or a recipe that does not exist, a value of the wrong type, or a
            required one that is missing.
        SystemExit: the manual page was asked for, and has been printed.
    """
    found = sort_words(signature, words)
    if found and found[0].name in (HELP, HELP_ALL):
        print(page(prog, signature, everything=found[0].name == HELP_ALL))
        raise SystemExit(0)
    lines: dict[str, str] = {}
    checked = []
    for word in found:
        if word.name == CONFIG:
            file, written = recipe.check(word.text, signature)
            lines |= written
            checked.append(Word(CONFIG, str(file)))
        else:
            lines.pop(word.name, None)
            checked.append(word)
    values = _typed(signature, checked, lines)
    missing = [s for s in signature.settings.values() if s.required and values[s.name] is None]
    if missing:
        *most, last = [s.shown for s in missing]
        names = f"{', '.join(most)} and {last} are" if most else f"{last} is"
        raise UserError(f"{names} missing; see {prog} --help")
    with in_options(signature, lines):
        return Arguments(signature.build(values), lines)


def read_config(config: type[T], words: Sequence[str]) -> T:
    """Reads the words of a command line into a dataclass.

    Args:
        config: the dataclass, whose fields may be dataclasses.
        words: options such as `--optimizer.lr 1e-3`, and recipes (`--config quickstart`).

    Raises:
        UserError: an unknown setting, or a value of the wrong type.
    """
    return parse(config.__name__, config_signature(config), words).keywords["config"]


def _typed(signature: Signature, words: list[Word], lines: dict[str, str]) -> dict[str, Any]:
    """Converts the values of all settings to their types."""
    parser = _parser(signature)
    try:
        values = parser.parse_args([f"--{word.name}={word.text}" for word in words])
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        raise UserError(_explained(str(error), parser, signature, words, lines)) from None
    return {name: values[name] for name in signature.settings}


def _parser(signature: Signature) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(exit_on_error=False, add_help=False)
    if signature.recipes:
        parser.add_argument("--config", action="config")
    for setting in signature.settings.values():
        parser.add_argument(f"--{setting.name}", type=setting.hint, default=setting.default)
    return parser


def _explained(
    message: str,
    parser: jsonargparse.ArgumentParser,
    signature: Signature,
    words: Iterable[Word],
    lines: dict[str, str],
) -> str:
    """Turns the parser's complaint into one sentence."""
    for word in words:
        if word.name != CONFIG and not _fits(parser, word):
            setting = signature.settings[word.name]
            return f"{setting.shown} is {word.text}, but it takes {plain_type(setting.hint)}"
    key = re.search(r'key "([\w.]+)"', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if key and value and key[1] in signature.settings:
        setting, where = signature.settings[key[1]], lines.get(key[1], "recipe")
        return f"{where}: {key[1]} is {value[1]}, but it takes {plain_type(setting.hint)}"
    return " ".join(message.split())


def _fits(parser: jsonargparse.ArgumentParser, word: Word) -> bool:
    try:
        parser.parse_args([f"--{word.name}={word.text}"])
    except (argparse.ArgumentError, jsonargparse.ArgumentError):
        return False
    return True
