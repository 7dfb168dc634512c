"""The words of a command line, sorted: which setting each belongs to, and with what value."""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable
from typing import Any, NamedTuple

from caduceus_jax.cli.signature import Setting, Signature
from caduceus_jax.errors import UserError

HELP, HELP_ALL, CONFIG = "help", "help_all", "config"
_SHORT = {"h": HELP, "o": "out"}
_BOOLEANS = ("true", "false", "yes", "no")


class Word(NamedTuple):
    """A setting and the text of its value; `config` is a recipe's name."""

    name: str
    text: str


def sort_words(signature: Signature, words: Iterable[str]) -> list[Word]:
    """Assigns every word of a command line to a setting.

    Options may be written with hyphens or underscores, with their value behind `=` or as the next
    word; lists also as several words. Words that belong to no option are positional arguments.

    Args:
        signature: the command's signature.
        words: the words after the command.

    Returns:
        Settings and values in the order of the command line. `help` or `help_all` is among them
        where the manual page is asked for, whatever else is wrong.

    Raises:
        UserError: an option that does not exist or lacks its value, or too many words.
    """
    queue = list(words)
    asked = [_name(word) for word in queue if word.startswith("-")]
    if HELP in asked or HELP_ALL in asked:
        return [Word(HELP_ALL if HELP_ALL in asked else HELP, "")]
    found: list[Word] = []
    loose: list[str] = []
    while queue:
        word = queue.pop(0)
        if word == "--":
            loose += queue
            break
        if not word.startswith("-") or word == "-" or _is_number(word):
            loose.append(word)
        else:
            found.append(_option(signature, word, queue))
    placed = _positional(signature, loose)
    for word in placed:
        if twice := next((other for other in found if other.name == word.name), None):
            raise UserError(f"{word.name.upper()} is given twice: {word.text} and {twice.text}")
    return [*found, *placed]  # a recipe may name the model too: the command line wins


def unknown(kind: str, name: str, known: Iterable[str], otherwise: str = "--help lists all") -> str:
    """Says that a name does not exist, and which one was probably meant.

    Args:
        kind: kind of name that was expected, such as "option".
        name: the name that was given.
        known: the names that exist, in groups (`optimizer.lr`, `finetune/splice`) or not.
        otherwise: said where no name is near.
    """
    plain = {other.lstrip("-").replace("-", "_"): other for other in known}
    asked = name.removesuffix(".yaml").lstrip("-").replace("-", "_")
    group = [other for key, other in plain.items() if key.startswith(f"{asked}.")]
    if group:
        return f"there is no {kind} {name}, but a group of them such as {group[0]}; {otherwise}"
    # First the right name in the wrong group, or in none.
    near = [other for key, other in plain.items() if _last(key) == _last(asked)]
    near = near or [plain[key] for key in difflib.get_close_matches(asked, list(plain), n=1)]
    return f"there is no {kind} {name}; {f'did you mean {near[0]}?' if near else otherwise}"


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def members(hint: Any) -> tuple[Any, ...]:
    """Lists the types that a type is the union of; itself where it is not a union."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def is_list(hint: Any) -> bool:
    """Tells whether a setting of this type may have several values."""
    return any(typing.get_origin(member) in (list, tuple) for member in members(hint))


def _name(word: str) -> str:
    """Returns the setting's name in Python that an option stands for."""
    option = word.partition("=")[0]
    if not option.startswith("--"):
        return _SHORT.get(option[1:], option)
    return option[2:].replace("-", "_")


def _option(signature: Signature, word: str, queue: list[str]) -> Word:
    """Parses one option; takes the words of its value from the queue."""
    name, (option, equals, value) = _name(word), word.partition("=")
    if name == CONFIG and signature.recipes:
        return Word(CONFIG, value if equals else _next(option, queue))
    setting = signature.settings.get(name) or next(
        (setting for setting in signature.settings.values() if setting.alias == name), None
    )
    if setting is None and name.startswith("no_") and not equals:
        setting = signature.settings.get(name[3:])
        if setting is not None and bool in members(setting.hint):
            return Word(setting.name, "false")
        setting = None
    if setting is not None and setting.place == "recipe":
        raise UserError(f"{option} is a setting of recipes (--config), not an option")
    if setting is None:
        options = [s.option for s in signature.settings.values() if s.place != "recipe"]
        options += ["--config"] if signature.recipes else []
        if name == "model" and "init" in signature.settings:
            raise UserError(
                "--model is not an option here; did you mean --init, which begins from a model?"
            )
        raise UserError(unknown("option", option, options))
    if equals:
        return Word(setting.name, value)
    if bool in members(setting.hint) and not _has_boolean(signature, setting, queue):
        return Word(setting.name, "true")
    if is_list(setting.hint):
        return Word(setting.name, _list(setting, option, queue))
    return Word(setting.name, _next(option, queue))


def _has_boolean(signature: Signature, setting: Setting, queue: list[str]) -> bool:
    """Tells whether the next word is the value of a yes-or-no option."""
    if not queue or _is_option(queue[0]):
        return False
    if setting.hint is bool and signature.positional:
        return queue[0].lower() in _BOOLEANS
    return True


def _list(setting: Setting, option: str, queue: list[str]) -> str:
    values = [_next(option, queue)]
    while queue and not _is_option(queue[0]):
        values.append(queue.pop(0))
    if len(values) == 1 and (str in members(setting.hint) or values[0].startswith(("[", "null"))):
        return values[0]
    inner = [typing.get_args(m) for m in members(setting.hint) if is_list(m)][0][0]
    if inner in (int, float):
        return f"[{','.join(values)}]"
    return json.dumps(values)


def _next(option: str, queue: list[str]) -> str:
    if not queue or _is_option(queue[0]):
        raise UserError(f"{option} needs a value")
    return queue.pop(0)


def _positional(signature: Signature, loose: list[str]) -> list[Word]:
    places = signature.positional
    if places and is_list(places[-1].hint) and len(loose) >= len(places):
        # The last one takes all that are left: `runs FOLDER FOLDER`.
        *loose, last = [*loose[: len(places) - 1], json.dumps(loose[len(places) - 1 :])]
        loose = [*loose, last]
    if len(loose) > len(places):
        extra = loose[len(places)]
        takes = ", ".join(s.shown for s in places) or "only options"
        hint = f"; did you mean --out {extra}?" if "out" in signature.settings else ""
        raise UserError(f"there is one word too many: {extra}; the command takes {takes}{hint}")
    return [Word(setting.name, text) for setting, text in zip(places, loose, strict=False)]


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
