"""Options of the verbs: checked where they are made, and documented where they are taken."""

import inspect

import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.options import (
    Embedding,
    Masking,
    Prediction,
    VariantScoring,
    chosen,
)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Embedding(pooling="median"), "pooling is 'median'; it is one of: mean, center"),
        (lambda: Embedding(pooling="window"), "pooling window and a window, its length"),
        (lambda: Embedding(window=4), "pooling window and a window, its length"),
        (lambda: Embedding(tile=200, max_length=100), "tile is 200, more than max_length, 100"),
        (lambda: Embedding(overlap=4), "overlap is what tiles share"),
        (lambda: Embedding(tile=8, overlap=8), "overlap is 8; it must be from 0 to 7"),
        (lambda: Prediction(context_length=0), "context_length is 0; it must be at least 1"),
        (lambda: VariantScoring(max_ref_mismatch=2), "max_ref_mismatch is 2; it is a share"),
        (lambda: Masking(masks_per_pass=8, context_length=15), "must be at least twice"),
        (lambda: Masking(edge="wrap"), "edge is 'wrap'; it is one of: pad, shift, drop, error"),
    ],
)
def test_values_that_make_no_sense_are_one_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_the_window_has_to_fit_only_where_it_is_read():
    options = VariantScoring(window=65, context_length=63)
    options.check_window("llr")
    with pytest.raises(UserError, match="window is 65; it must be from 1 to context_length"):
        options.check_window("pll")


def test_keywords_replace_fields():
    options = Masking(context_length=255, batch_size=4)
    assert chosen(Masking, options, {"batch_size": 8}) == Masking(context_length=255, batch_size=8)
    assert chosen(Masking, None, {}) == Masking()
    with pytest.raises(TypeError, match="windows is not an option; there are context_length"):
        chosen(Masking, None, {"windows": 3})


@pytest.mark.parametrize("verb", [cj.embed, cj.predict, cj.score_variants, cj.likelihood])
def test_verbs_have_their_options_in_signature_and_docstring(verb):
    parameters = inspect.signature(verb).parameters
    assert parameters["batch_size"].default is None
    assert "fields" not in parameters
    assert "batch_size: " in verb.__doc__ and "**fields" not in verb.__doc__
