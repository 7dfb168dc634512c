import sys

import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.commands import COMMANDS, Command, load, signature_of


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_it_is_said_to_be(name):
    command = COMMANDS[name]
    assert callable(load(command.function))
    assert len(command.summary) <= 60 and not command.summary.endswith(".")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.config])
def test_the_config_is_that_of_the_function(name):
    command = COMMANDS[name]
    quick, slow = signature_of(command), signature_of(Command(command.function, ""))
    assert quick.settings == slow.settings and quick.recipes == slow.recipes
    assert (quick.description, quick.examples) == (slow.description, slow.examples)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UserError, match=r"needs polars: pip install 'caduceus-jax\[genomics\]'"):
        load("polars:read_csv")


def test_other_missing_modules_are_faults():
    with pytest.raises(ModuleNotFoundError, match="caduceus_jax.nowhere"):
        load("caduceus_jax.nowhere:function")
