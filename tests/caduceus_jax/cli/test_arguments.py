import dataclasses

import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.arguments import parse, read_config
from caduceus_jax.cli.signature import config_signature, signature
from caduceus_jax.train.config import PretrainConfig


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows.

    Args:
        first: where it begins.
    """

    first: int = 1


def command(model: str, *, out: str, batch_size: int = 1, rows: Rows = Rows()) -> None:
    """Does something."""


def read(*words):
    return parse("prog", signature(command), words)


def test_words_become_the_function_s_arguments():
    found = read("m", "--out", "o", "--batch_size", "3", "--first", "2")
    expected = {"model": "m", "out": "o", "batch_size": 3, "rows": Rows(2)}
    assert found.keywords == expected and found.lines == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "MODEL and --out are missing; see prog --help"),
        (["m"], "--out is missing; see prog --help"),
        (["m", "-o", "o", "--batch-size", "x"], "--batch-size is x, but it takes a whole number"),
    ],
)
def test_wrong_words_are_one_sentence(words, message):
    with pytest.raises(UserError) as error:
        read(*words)
    assert str(error.value) == message


def test_settings_that_a_recipe_has_the_last_word_on_have_a_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\nsteps: 4\n")
    words = ["--steps", "5", "--config", str(recipe), "--seed", "6"]
    found = parse("prog", config_signature(PretrainConfig), words)
    assert (found.keywords["config"].steps, found.keywords["config"].seed) == (4, 6)
    assert found.lines == {"steps": f"{recipe}:2"}


def test_a_recipe_s_error_names_its_line(run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\nsteps: 0\n")
    message = f"caduceus-jax pretrain: {recipe}:2: steps is 0; it is at least 1\n"
    assert run("pretrain", "--config", recipe) == (2, "", message)
    message = "caduceus-jax pretrain: --steps is 0; it is at least 1\n"
    assert run("pretrain", "--steps", "0") == (2, "", message)


def test_what_is_not_an_option_is_a_setting_of_recipes(run, tmp_path):
    message = "--model.dt-init-floor is a setting of recipes (--config), not an option"
    assert message in run("pretrain", "--model.dt-init-floor", "0.1")[2]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  dt_init_floor: 0.1\n  rcps: false\n")
    config = read_config(PretrainConfig, ["--config", str(recipe), "--data.rc-mode", "none"])
    assert config.model.dt_init_floor == 0.1
