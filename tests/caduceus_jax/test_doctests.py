"""The examples in docstrings."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    ["tokenizer", "model.config", "model.convert", "model.losses", "model.files.hf_config"],
)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(f"caduceus_jax.{name}"))
    assert found.attempted > 0 and not found.failed
