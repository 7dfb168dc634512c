import dataclasses
import os
import pathlib
from typing import Literal

import pytest

from caduceus_jax import settings
from caduceus_jax.cli.page import page, plain_type
from caduceus_jax.cli.signature import signature


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows.

    Args:
        first: where it begins, within `out`; see `nothing`.
        rare: seldom needed.
    """

    first: int = 1
    rare: bool = settings.advanced(False)


def command(
    model: str,
    other: str = "",
    *,
    out: pathlib.Path,
    mode: Literal["a", "b"] = "a",
    sizes: list[int] | None = None,
    rank: int | Literal["auto"] = "auto",
    quick: bool = False,
    careful: bool = True,
    rows: Rows = Rows(),
) -> None:
    """Does a thing.

    In detail.

    examples:
      caduceus-jax thing m --out o

    Args:
        model: a model, of which a long description is given here to see that lines are broken where
            they have to be.
        other: another.
        out: a file.
        mode: a or b.
        sizes: of what.
        rank: a number.
        quick: in a hurry.
        careful: with care.
    """


PAGE = """\
usage: caduceus-jax thing MODEL [OTHER] --out OUT [--OPTION VALUE ...]

Does a thing.

In detail.

arguments:
  MODEL                   a model, of which a long description is given here to
                          see that lines are broken where they have to be
  OTHER                   another

required options:
  --out OUT               a file

options:
  --mode {a,b}            a or b (default: a)
  --sizes N ...           of what
  --rank {auto,N}         a number (default: auto)
  --quick                 in a hurry
  --[no-]careful          with care (default: true)
  -h, --help              show this page

Which rows:
  --first N               where it begins, within --out; see `nothing` (default:
                          1)

examples:
  caduceus-jax thing m --out o

caduceus-jax thing --help-all lists more options, which are rarely needed."""


def test_page(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert page("caduceus-jax thing", signature(command)) == PAGE
    everything = page("caduceus-jax thing", signature(command), everything=True)
    assert "  --rare                  seldom needed\n" in everything
    assert "--help-all" not in everything


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (Literal["a", "b"] | bool, "a or b or true or false"),
        (list[int], "a list of whole numbers: [a,b]"),
        (str | list[str], "text or a list of texts: [a,b]"),
        (pathlib.Path, "a path"),
        (str | os.PathLike, "text or a path"),
    ],
)
def test_types_are_plain_words(hint, words):
    assert plain_type(hint) == words
