import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.errors import in_options, rewritten
from caduceus_jax.cli.signature import signature


def command(model: str, *, genome: str = "", max_length: int = 1, window: int = 3) -> None:
    """Does a thing."""


@pytest.mark.parametrize(
    ("library", "shell"),
    [
        (
            "max_length is 10, and a sequence is longer",
            "--max-length is 10, and a sequence is longer",
        ),
        ("window is 0; it is at least 1", "--window is 0; it is at least 1"),
        ("a sequence is longer: raise `window`", "a sequence is longer: raise --window"),
        ("the genome is another one", "the genome is another one"),
        ("`model` is missing: pass `genome` too", "MODEL is missing: pass --genome too"),
        ("/data/max_length/x.fa is empty", "/data/max_length/x.fa is empty"),
        ("max_length.txt is empty", "max_length.txt is empty"),
        ("'max_length' is not a contig", "'max_length' is not a contig"),
    ],
)
def test_arguments_become_options(library, shell):
    assert rewritten(library, signature(command), {}) == shell


def test_settings_of_recipes_keep_their_name_and_get_their_line():
    lines = {"window": "recipe.yaml:3"}
    message = "window is 0; it is at least 1"
    assert rewritten(message, signature(command), lines) == f"recipe.yaml:3: {message}"


def test_errors_are_rewritten_as_they_pass():
    with pytest.raises(UserError, match="^--window is 0$") as error:
        with in_options(signature(command), {}):
            raise UserError("window is 0")
    assert error.value.exit_status == 2
