import dataclasses
from typing import Literal

import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.signature import config_signature


@dataclasses.dataclass(frozen=True)
class Inner:
    """What is inside.

    Args:
        width: how wide.
        rank: a number or auto.
    """

    width: float = 0.5
    rank: int | Literal["auto"] = "auto"


@dataclasses.dataclass(frozen=True)
class Outer:
    """The whole.

    Args:
        inner: a group.
        steps: how many.
        names: one or more.
        fast: in a hurry.
    """

    inner: Inner = Inner()
    steps: int = 3
    names: str | list[str] = ""
    fast: bool = False

    def __post_init__(self):
        if self.steps == 13:
            raise UserError("steps is 13")


def read(*words):
    signature = config_signature(Outer, "What it does.")
    return parse("prog", signature, words).keywords["config"]


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_no_words_are_the_defaults():
    assert read() == Outer()


def test_options_reach_nested_settings():
    found = read("--inner.width", "8e-3", "--inner.rank=4", "--names", "[a,b]", "--fast", "true")
    assert found == Outer(Inner(0.008, 4), names=["a", "b"], fast=True)


def test_what_comes_later_wins(tmp_path):
    path = written(tmp_path, "steps: 5\ninner:\n  width: 2\nnames: [x]\n")
    assert read("--config", str(path)) == Outer(Inner(2.0), steps=5, names=["x"])
    assert read("--config", str(path), "--steps", "6").steps == 6
    assert read("--steps", "6", f"--config={path}").steps == 5
    assert read("--config", str(path), "--inner.rank", "2").inner == Inner(2.0, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "3"], "there is no option --step; did you mean --steps?"),
        (["--width=3"], "there is no option --width; did you mean --inner.width?"),
        (["--steps", "many"], "--steps is many, but it takes a whole number"),
        (["--steps", "2.5"], "--steps is 2.5, but it takes a whole number"),
        (["--inner.width", "x"], "--inner.width is x, but it takes a number"),
        (["--inner.rank", "x"], "--inner.rank is x, but it takes a whole number or auto"),
        (["--fast", "maybe"], "--fast is maybe, but it takes true or false"),
        (["--steps"], "--steps needs a value"),
        (["loose"], "there is one word too many: loose; the command takes only options"),
        (["--config", "quickstrat"], "there is no recipe quickstrat; did you mean quickstart?"),
        (["--config", "splice"], "there is no recipe splice; did you mean finetune/splice?"),
        (["--steps", "13"], "--steps is 13"),
    ],
)
def test_wrong_words_are_explained(words, message):
    with pytest.raises(UserError) as error:
        read(*words)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nstepz: 2\n", ":2: there is no setting stepz; did you mean steps?"),
        ("width: 2\n", ":1: there is no setting width; did you mean inner.width?"),
        ("inner:\n  withd: 2\n", ":2: there is no setting inner.withd; did you mean inner.width?"),
        ("inner: 3\n", ":1: inner is a group of settings such as inner.width"),
        ("fast: true\nsteps: x\n", ":2: steps is x, but it takes a whole number"),
        ("steps: [1\n", ":2: not YAML (expected ',' or ']', but got '<stream end>')"),
        ("- a\n", ": a recipe is a list of settings such as 'steps: 100'"),
        ("", ": a recipe is a list of settings such as 'steps: 100'"),
    ],
)
def test_wrong_recipes_are_explained_with_file_and_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        read("--config", str(path))
    assert str(error.value) == f"{path}{message}"


def test_help_is_made_of_the_docstrings(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "What it does." in shown
    assert "--inner.rank" in shown and "a number or auto" in shown
