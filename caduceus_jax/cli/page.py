"""The manual page of a command, made of its docstrings."""

import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

from caduceus_jax.cli.signature import Setting, Signature
from caduceus_jax.cli.words import is_list, members

_LEFT = 26  # columns for the names of options


def page(prog: str, signature: Signature, *, everything: bool = False) -> str:
    """Writes the manual page.

    Args:
        prog: the command as it is typed, such as "caduceus-jax embed".
        signature: the command's signature.
        everything: also list advanced options.
    """
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    settings = [_in_options(s, signature) for s in signature.settings.values()]
    shown = ("option", "advanced") if everything else ("option",)
    options = [s for s in settings if s.place in shown]
    sections = [
        _usage(prog, signature, width),
        signature.description,
        _section("arguments", [s for s in settings if s.place == "positional"], width),
        _section("required options", [s for s in settings if s.place == "required"], width),
        _section("options", [s for s in options if not s.group], width, _common(signature)),
    ]
    for title in dict.fromkeys(s.group for s in options if s.group):
        sections.append(_section(title, [s for s in options if s.group == title], width))
    if signature.examples:
        sections.append(f"examples:\n{signature.examples}")
    if not everything and any(s.place == "advanced" for s in settings):
        sections.append(f"{prog} --help-all lists more options, which are rarely needed.")
    return "\n\n".join(section for section in sections if section)


def _in_options(setting: Setting, signature: Signature) -> Setting:
    """Writes settings that a setting's help has in backticks as options."""
    group = setting.name.rpartition(".")[0]

    def option(match: re.Match) -> str:
        """Names a setting of the same group, or any setting, as an option."""
        near = signature.settings.get(f"{group}.{match[1]}") if group else None
        other = near or signature.settings.get(match[1])
        return other.shown if other else match[0]

    return setting._replace(help=re.sub(r"`([\w.]+)`", option, setting.help))


def plain_type(hint: Any) -> str:
    """Describes a type in plain words: "a whole number or null"."""
    return " or ".join(dict.fromkeys(_plain(member) for member in members(hint)))


def _plain(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (list, tuple):
        return f"a list of {_PLURAL.get(typing.get_args(hint)[0], 'values')}: [a,b]"
    return _PLAIN.get(hint, "a path" if _is_path(hint) else str(hint))


def _is_path(hint: Any) -> bool:
    return getattr(hint, "__module__", "").startswith(("pathlib", "os"))


_PLAIN = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    types.NoneType: "null",
}
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts"}


def _common(signature: Signature) -> list[tuple[str, str]]:
    """Lists the options that are not settings."""
    rows = [("-h, --help", "show this page")]
    if signature.recipes:
        text = "YAML recipe: a file, or the name of a shipped one; options override it"
        rows.insert(0, ("--config RECIPE", text))
    return rows


def _usage(prog: str, signature: Signature, width: int) -> str:
    words = [s.name.upper() if s.required else f"[{s.name.upper()}]" for s in signature.positional]
    words += [_left(s) for s in signature.settings.values() if s.place == "required"]
    words += ["[--config RECIPE]"] if signature.recipes else []
    if any(s.place in ("option", "advanced") for s in signature.settings.values()):
        words.append("[--OPTION VALUE ...]")
    line = " ".join([f"usage: {prog}", *words])
    return textwrap.fill(
        line, width, subsequent_indent=" " * 7, break_on_hyphens=False, break_long_words=False
    )


def _section(
    title: str, settings: list[Setting], width: int, more: list[tuple[str, str]] | None = None
) -> str:
    rows = [(_left(s), _right(s)) for s in settings] + (more or [])
    lines = [line for left, right in rows for line in _entry(left, right, width)]
    return "\n".join([f"{title}:", *lines]) if rows else ""


def _entry(left: str, right: str, width: int) -> Iterator[str]:
    text = textwrap.wrap(right, width - _LEFT, break_on_hyphens=False, break_long_words=False)
    if len(left) + 4 > _LEFT:
        yield f"  {left}"
    elif text:
        yield f"  {left:{_LEFT - 2}}{text.pop(0)}"
    else:
        yield f"  {left}"
    yield from (" " * _LEFT + line for line in text)


def _left(setting: Setting) -> str:
    if setting.place == "positional":
        return setting.shown
    if setting.hint is bool and setting.default is True:
        return f"--[no-]{setting.shown[2:]}"
    return f"{setting.shown} {_value(setting)}".rstrip()


def _value(setting: Setting) -> str:
    """Returns what stands for the value of an option."""
    kinds = [member for member in members(setting.hint) if member is not types.NoneType]
    if kinds == [bool]:
        return ""
    choices = [
        str(c) for k in kinds if typing.get_origin(k) is typing.Literal for c in typing.get_args(k)
    ]
    if choices:
        choices += [_SHORT[k] for k in kinds if k in _SHORT]
        return "{" + ",".join(choices) + "}"
    name = setting.name.rpartition(".")[2].upper()
    if is_list(setting.hint):
        inner = [typing.get_args(k) for k in kinds if is_list(k)][0][0]
        name = _SHORT.get(inner, name)
        return f"{name} ..."
    return "|".join(_SHORT.get(kind, name) for kind in dict.fromkeys(kinds))


_SHORT = {int: "N", float: "X", bool: "true,false"}


def _right(setting: Setting) -> str:
    text, default = setting.help.rstrip("."), setting.default
    if setting.required or default is None or default is False or default in ("", [], ()):
        return text
    many = isinstance(default, list | tuple)
    shown = " ".join(map(str, default)) if many else str(default).replace("True", "true")
    return f"{text} (default: {shown})".strip()
