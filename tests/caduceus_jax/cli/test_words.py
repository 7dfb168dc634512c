import pathlib
from typing import Literal

import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.signature import signature
from caduceus_jax.cli.words import sort_words, unknown


def command(
    model: str,
    sequences: str | None = None,
    *,
    out: list[pathlib.Path],
    batch_size: int = 1,
    skip_bad: bool = False,
    spikes: bool | float = False,
    mode: Literal["a", "b"] = "a",
    seeds: list[int] | None = None,
) -> None:
    """Does something."""


def sort(*words):
    return [tuple(word) for word in sort_words(signature(command), words)]


def test_positional_arguments_may_stand_anywhere():
    expected = [("batch_size", "3"), ("model", "m"), ("sequences", "s")]
    assert sort("m", "s", "--batch-size", "3") == expected
    assert sort("m", "--batch-size", "3", "s") == expected
    assert sort("--batch-size=3", "m", "--", "s") == expected
    assert sort("-") == [("model", "-")]


@pytest.mark.parametrize("option", ["--batch-size", "--batch_size"])
def test_options_take_hyphens_and_underscores(option):
    assert sort(option, "3") == sort(f"{option}=3") == [("batch_size", "3")]
    assert sort(option, "-3") == [("batch_size", "-3")]


def test_flags():
    assert sort("--skip-bad", "m") == [("skip_bad", "true"), ("model", "m")]
    assert sort("--skip_bad", "false", "m") == [("skip_bad", "false"), ("model", "m")]
    assert sort("--no-skip-bad", "m") == [("skip_bad", "false"), ("model", "m")]
    assert sort("--spikes") == [("spikes", "true")]
    assert sort("--spikes", "4.5") == [("spikes", "4.5")]


def test_lists_are_several_words_or_one():
    assert sort("--out", "a b", "c", "--skip-bad") == [
        ("out", '["a b", "c"]'),
        ("skip_bad", "true"),
    ]
    assert sort("-o", "a") == [("out", '["a"]')]
    assert sort("--out=[a,b]") == sort("--out", "[a,b]") == [("out", "[a,b]")]
    assert sort("--seeds", "1", "2") == sort("--seeds", "[1,2]") == [("seeds", "[1,2]")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batchsize", "2"], "there is no option --batchsize; did you mean --batch-size?"),
        (["--no-mode"], "there is no option --no-mode; did you mean --mode?"),
        (["--config", "x"], "there is no option --config; --help lists all"),
        (["--mode"], "--mode needs a value"),
        (["--mode", "--skip-bad"], "--mode needs a value"),
        (["m", "--model", "n"], "MODEL is given twice: m and n"),
        (
            ["m", "s", "out"],
            "there is one word too many: out; the command takes MODEL, SEQUENCES; "
            "did you mean --out out?",
        ),
    ],
)
def test_wrong_words_are_explained(words, message):
    with pytest.raises(UserError) as error:
        sort(*words)
    assert str(error.value) == message


def test_near_matches_look_into_other_groups():
    known = ["--optimizer.lr", "--lora"]
    assert unknown("option", "--lr", known) == (
        "there is no option --lr; did you mean --optimizer.lr?"
    )
    assert unknown("setting", "zzz", ["steps"]) == "there is no setting zzz; --help lists all"


def test_a_group_is_not_an_option():
    said = unknown("option", "--optimizer", ["--optimizer.lr", "--steps"])
    assert said == (
        "there is no option --optimizer, but a group of them such as --optimizer.lr; --help lists "
        "all"
    )
