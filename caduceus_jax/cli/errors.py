"""Errors of the library name arguments; those of the command line name options."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from caduceus_jax.cli.signature import Signature
from caduceus_jax.errors import UserError


@contextlib.contextmanager
def in_options(signature: Signature, lines: Mapping[str, str]) -> Iterator[None]:
    """Rewrites the message of a UserError that the block raises, as `rewritten` does."""
    try:
        yield
    except UserError as error:
        error.args = (rewritten(str(error), signature, lines),)
        raise


def rewritten(message: str, signature: Signature, lines: Mapping[str, str]) -> str:
    """Rewrites the names of arguments in an error as options of the command line.

    Rewritten are names in backticks, names with an underscore or a dot, and a name that the
    sentence starts with ("window is 0"); other words, such as "the genome", stay.

    Args:
        message: the library's sentence.
        signature: the command's signature.
        lines: file and line of settings that come from a recipe: a sentence that starts with one
            of them gets its place in front instead.
    """
    first = re.match(r"`?([\w.]+)`? (?:is|are|has|have|must|needs?)\b", message)
    if first and first[1] in lines:
        return f"{lines[first[1]]}: {message}"
    for name, setting in signature.settings.items():
        if setting.place == "recipe":
            continue
        message = re.sub(rf"`{re.escape(name)}`", setting.shown, message)
        if first and first[1] == name and message.startswith(name):
            message = setting.shown + message[len(name) :]
        if "_" in name or "." in name:
            message = re.sub(
                rf"(?<![\w./'\"-]){re.escape(name)}(?![\w/'\"-]|\.\w)", setting.shown, message
            )
    return message
