"""`caduceus-jax completion SHELL`: completes commands and options by the tab key."""

import argparse
import types
import typing
from typing import Literal

import shtab

from caduceus_jax.cli.commands import COMMANDS, signature_of
from caduceus_jax.cli.signature import Setting, Signature
from caduceus_jax.cli.words import members
from caduceus_jax.errors import UserError

Shell = Literal["bash", "zsh", "tcsh", "fish"]


def completion(shell: Shell) -> None:
    """Prints a script that lets the tab key complete commands, options, choices and files.

    The script knows the commands and options of this version; print it again after an upgrade.
    Commands whose optional dependencies are not installed are completed without their options.

    examples:
      caduceus-jax completion bash > ~/.local/share/bash-completion/completions/caduceus-jax
      caduceus-jax completion zsh > ~/.zfunc/_caduceus-jax
      caduceus-jax completion fish > ~/.config/fish/completions/caduceus-jax.fish

    Args:
        shell: the shell that the script is for.
    """
    print(script(shell))


def script(shell: Shell) -> str:
    """Returns the completion script of a shell."""
    return shtab.complete(_parser(), shell)


def _parser() -> argparse.ArgumentParser:
    """Lists the commands and options as shtab reads them; it parses nothing."""
    top = argparse.ArgumentParser(prog="caduceus-jax", add_help=False)
    top.add_argument("--help", action="store_true", help="show all commands")
    top.add_argument("--version", action="store_true", help="show the version")
    commands = top.add_subparsers()
    groups: dict[str, typing.Any] = {}
    for name in sorted(COMMANDS, key=lambda name: name.count(" ")):
        first, _, second = name.partition(" ")
        if second and first not in groups:
            group = commands.add_parser(first, help=f"{first} ...", add_help=False)
            groups[first] = group.add_subparsers()
        where = groups[first] if second else commands
        parser = where.add_parser(second or first, help=COMMANDS[name].summary, add_help=False)
        has_subcommands = any(other.startswith(f"{name} ") for other in COMMANDS)
        _add_settings(parser, name, positional=not has_subcommands)
        if has_subcommands:
            groups[name] = parser.add_subparsers()
    return top


def _add_settings(parser: argparse.ArgumentParser, name: str, *, positional: bool) -> None:
    try:
        signature = signature_of(COMMANDS[name])
    except UserError:  # an optional dependency is not installed
        signature = Signature("", "", {}, False, lambda values: values)
    parser.add_argument("--help", action="store_true", help="show the manual page")
    if signature.recipes:
        recipe = parser.add_argument("--config", help="YAML recipe")
        recipe.complete = shtab.FILE  # type: ignore[attr-defined]
    for setting in signature.settings.values():
        if setting.place != "recipe" and (positional or setting.place != "positional"):
            _add_setting(parser, setting)


def _add_setting(parser: argparse.ArgumentParser, setting: Setting) -> None:
    called = setting.name if setting.place == "positional" else setting.option
    kinds = [kind for kind in members(setting.hint) if kind is not types.NoneType]
    literals = [kind for kind in kinds if typing.get_origin(kind) is typing.Literal]
    choices = [str(choice) for kind in literals for choice in typing.get_args(kind)]
    text = setting.help.replace("%", "%%")
    if kinds == [bool] and setting.place != "positional":
        parser.add_argument(called, action="store_true", help=text)
        return
    action = parser.add_argument(called, help=text, choices=choices or None)
    if not choices and any(kind not in (int, float, bool) for kind in kinds):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
