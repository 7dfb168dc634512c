import dataclasses

import pytest

from caduceus_jax import settings


@dataclasses.dataclass(frozen=True)
class Run:
    """A run."""

    model: str = settings.positional()
    rare: int = settings.advanced(3)
    names: list[str] = settings.advanced(default_factory=list)
    internal: str = settings.recipe_only("x")


def test_fields_keep_their_defaults():
    assert Run("m") == Run("m", 3, [], "x")
    with pytest.raises(TypeError, match="model"):
        Run()


def test_fields_say_where_the_command_line_shows_them():
    places = {field.name: field.metadata["place"] for field in dataclasses.fields(Run)}
    expected = {"model": "positional", "rare": "advanced", "names": "advanced"}
    assert places == expected | {"internal": "recipe"}
