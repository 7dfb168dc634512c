"""Every example of a manual page is read by the real parser; nothing is run."""

import shlex

import pytest

from caduceus_jax.cli import main
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.commands import COMMANDS, signature_of


def commands(text):
    """The words of each command in an example, `caduceus-jax` left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words):
            if word == "caduceus-jax":
                end = next((j for j in range(i, len(words)) if words[j] in (">", "|")), None)
                yield words[i + 1 : end]


def check(words):
    name, rest = main._split(words)
    assert name in COMMANDS, words
    parse(f"caduceus-jax {name}", signature_of(COMMANDS[name]), rest)
    return name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_manual_page_has_examples_that_parse(name):
    signature = signature_of(COMMANDS[name])
    found = [check(words) for words in commands(signature.examples)]
    assert name in found, f"{name} has no example of itself"
    # None hides outside the block, where nothing would check it.
    assert "caduceus-jax " not in signature.description.replace("`caduceus-jax", "`")
