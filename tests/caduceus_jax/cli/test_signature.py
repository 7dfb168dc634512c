import dataclasses
import inspect

import pytest

from caduceus_jax import settings
from caduceus_jax.cli.signature import config_signature, signature


@dataclasses.dataclass(frozen=True)
class Pooling:
    """How vectors are pooled.

    Args:
        kind: of pooling.
        window: bases.
    """

    kind: str = "mean"
    window: int | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """A run.

    Args:
        model: what is trained.
        pooling: a group.
        rare: seldom needed.
        internal: for recipes.
    """

    model: str = settings.positional("")
    pooling: Pooling = Pooling("center")
    rare: int = settings.advanced(3)
    internal: str = settings.recipe_only("x")
    names: list[str] = settings.advanced(default_factory=lambda: ["a"])


def command(model: str, n: int = 2, *, out: str, how: Pooling = Pooling(window=7)) -> None:
    """Does a thing.

    In detail.

    examples:
      caduceus-jax thing m --out o

    More detail.

    Args:
        model: a model.
        n: how
            many.
        out: a file.
        how: not shown.
    """


def test_a_function_s_parameters_are_its_settings():
    found = signature(command)
    assert found.description == "Does a thing.\n\nIn detail.\n\nMore detail."
    assert found.examples == "  caduceus-jax thing m --out o"
    rows = {s.name: (s.place, s.required, s.default, s.help) for s in found.settings.values()}
    assert rows == {
        "model": ("positional", True, None, "a model."),
        "n": ("positional", False, 2, "how many."),
        "out": ("required", True, None, "a file."),
        "kind": ("option", False, "mean", "of pooling."),
        "window": ("option", False, 7, "bases."),
    }
    assert found.settings["kind"].group == "How vectors are pooled"
    values = {"model": "m", "n": 1, "out": "o", "kind": "max", "window": None}
    built = found.build(values)
    assert built == {"model": "m", "n": 1, "out": "o", "how": Pooling("max")}
    inspect.signature(command).bind(**built)


def test_one_dataclass_keeps_its_groups_and_takes_recipes():
    def train(config: Run) -> None:
        """Trains."""

    found = signature(train)
    assert found.recipes and found.description == "Trains."
    places = {s.name: (s.place, s.default) for s in found.settings.values()}
    assert places == {
        "model": ("positional", ""),
        "pooling.kind": ("option", "center"),
        "pooling.window": ("option", None),
        "rare": ("advanced", 3),
        "internal": ("recipe", "x"),
        "names": ("advanced", ["a"]),
    }
    values = {name: default for name, (_, default) in places.items()}
    assert found.build(values) == {"config": Run()}
    assert Run().rare == 3 and Run().names == ["a"]


def test_only_the_outermost_fields_are_positional():
    @dataclasses.dataclass(frozen=True)
    class Outer:
        name: str
        run: Run = Run()

    places = {s.name: s.place for s in config_signature(Outer).settings.values()}
    assert (places["name"], places["run.model"]) == ("positional", "option")


def test_the_dataclass_s_own_docstring_is_the_page():
    assert config_signature(Run).description == "A run."


def test_two_settings_of_one_name_are_a_mistake_of_ours():
    def twice(kind: str, *, how: Pooling = Pooling()) -> None:
        """Does."""

    with pytest.raises(TypeError, match="twice has two settings called kind"):
        signature(twice)
