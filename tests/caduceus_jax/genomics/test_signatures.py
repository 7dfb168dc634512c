"""Signatures and docstrings of the verbs, made of their options."""

import dataclasses
import inspect
from typing import get_type_hints

import pytest

import caduceus_jax as cj
from caduceus_jax.genomics import options, signatures


@pytest.mark.parametrize("verb", [cj.embed, cj.predict, cj.score_variants, cj.likelihood])
def test_verbs_have_their_options_in_signature_and_docstring(verb):
    parameters = inspect.signature(verb).parameters
    assert parameters["batch_size"].default is None
    assert "fields" not in parameters
    assert "batch_size: " in verb.__doc__ and "**fields" not in verb.__doc__


@pytest.mark.parametrize(
    "name", ["Embedding", "Prediction", "VariantScoring", "Masking", "Attribution"]
)
def test_type_checkers_see_the_fields_of_the_options(name):
    kind = getattr(options, name)
    fields = get_type_hints(getattr(signatures, f"{name}Fields"))
    assert fields == get_type_hints(kind)
    assert list(fields) == [field.name for field in dataclasses.fields(kind)]
