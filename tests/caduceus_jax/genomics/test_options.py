"""Options of the verbs: checked where they are made, and fitted to a model."""

import pytest

import caduceus_jax as cj
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.options import (
    Embedding,
    Masking,
    Prediction,
    VariantScoring,
    chosen,
    fitted,
    resolved,
)
from caduceus_jax.model.files.task import TaskDescription
from tests.models import classifier, kinds


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
    sentence = (
        "window is 65; it must be from 1 to context_length, which is 63: pass a smaller window"
    )
    with pytest.raises(UserError, match=sentence):
        options.check_window("pll")
    wide = VariantScoring(window=1025)
    wide.check_window("embedding")  # a fine-tuned model may have been trained at more
    for mode, left in (("pll", wide), ("embedding", resolved(wide))):
        with pytest.raises(UserError, match="window is 1025; .* context_length, which is 1023"):
            left.check_window(mode)


def test_keywords_replace_fields():
    options = Masking(context_length=255, batch_size=4)
    assert chosen(Masking, options, {"batch_size": 8}) == Masking(context_length=255, batch_size=8)
    assert chosen(Masking, None, {}) == Masking()
    with pytest.raises(TypeError, match="windows is not an option; there are context_length"):
        chosen(Masking, None, {"windows": 3})


def described(**task) -> cj.Pretrained:
    model = classifier()
    model.task = TaskDescription(**task)
    return cj.Pretrained(model, cj.Tokenizer())


def test_the_context_is_what_the_model_was_trained_on_unless_it_is_set():
    default = VariantScoring(context_length=1023)
    assert fitted(described(), None, VariantScoring()) == ("output", default)
    trained = described(max_length=500)
    assert fitted(trained, None, Masking())[1].context_length == 500
    assert fitted(trained, "output", VariantScoring(context_length=99))[1].context_length == 99
    with pytest.raises(UserError, match="more than the 500 bases that the model was trained on"):
        fitted(trained, None, VariantScoring(context_length=501))
    tracks = cj.Pretrained(kinds()["tracks"], cj.Tokenizer())
    assert fitted(tracks, None, VariantScoring())[1].context_length == 1020
    with pytest.raises(UserError, match="not a multiple of the model's bins of 4"):
        fitted(tracks, None, VariantScoring(context_length=22))


def test_a_length_that_is_passed_is_never_taken_for_the_default():
    """1,023 bases are refused of a model that was trained at 500, and read where it has 2,000."""
    with pytest.raises(UserError, match="context_length is 1,023, more than the 500 bases"):
        fitted(described(max_length=500), None, VariantScoring(context_length=1023))
    passed = fitted(described(max_length=2000), None, Masking(context_length=1023))[1]
    assert passed.context_length == 1023
    tracks = cj.Pretrained(kinds()["tracks"], cj.Tokenizer())
    with pytest.raises(UserError, match="context_length is 1,023, which is not a multiple"):
        fitted(tracks, None, VariantScoring(context_length=1023))


@pytest.mark.parametrize("kind", [VariantScoring, Masking])
def test_a_length_that_is_not_passed_is_the_models(kind, capsys):
    language = cj.Pretrained(kinds()["ps"], cj.Tokenizer())
    assert kind().context_length is None and kind().context == 1023
    assert fitted(language, None, kind())[1] == kind(context_length=1023) == resolved(kind())
    assert fitted(described(max_length=500), None, kind())[1].context == 500
    assert resolved(kind(context_length=7), 500).context_length == 7
    if kind is VariantScoring:
        trained = described(max_length=500)
        assert fitted(trained, "embedding", kind())[1].context_length == 500
        assert fitted(trained, "embedding", kind(context_length=1023))[1].context_length == 1023


def test_modes_and_options_that_a_model_does_not_have_are_refused():
    language = cj.Pretrained(kinds()["ps"], cj.Tokenizer())
    assert fitted(language, None, VariantScoring())[0] == "llr"
    with pytest.raises(UserError, match="mode is output, which is for fine-tuned models"):
        fitted(language, "output", VariantScoring())
    for mode in ("llr", "pll"):
        with pytest.raises(UserError, match=f"mode is {mode}, which reads a language-model head"):
            fitted(described(), mode, VariantScoring())
    assert fitted(described(), "embedding", VariantScoring())[0] == "embedding"
    with pytest.raises(UserError, match="rc_mode is for language models"):
        fitted(described(), None, VariantScoring(rc_mode="none"))
