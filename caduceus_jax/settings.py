"""Marks fields of a dataclass as positional, advanced or recipe-only on the command line.

A field stays an ordinary field with an ordinary default; the mark decides only where the command
line shows it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


def positional(default: Any = dataclasses.MISSING) -> Any:
    """Makes a field that may also be written as a positional argument: `finetune MODEL`.

    Args:
        default: the field's default; without one the command line requires it.
    """
    return dataclasses.field(default=default, metadata={"place": "positional"})


def advanced(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
) -> Any:
    """Makes a field that `--help-all` shows and `--help` does not.

    Args:
        default: the field's default.
        default_factory: makes the default, where it is mutable.
    """
    return dataclasses.field(
        default=default, default_factory=default_factory, metadata={"place": "advanced"}
    )


def recipe_only(default: Any = dataclasses.MISSING) -> Any:
    """Makes a field that recipes may set and that is not an option of the command line.

    Args:
        default: the field's default.
    """
    return dataclasses.field(default=default, metadata={"place": "recipe"})
