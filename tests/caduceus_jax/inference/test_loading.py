"""Models of every kind come with their tokenizers."""

import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax import Tokenizer, UserError, inference
from caduceus_jax.inference.loading import as_pretrained
from tests.models import classifier


def test_load_brings_the_tokenizer_of_the_folder(ps, tmp_path, draw):
    ps.save_pretrained(str(tmp_path))
    model, tokenizer = inference.load(tmp_path)
    assert tokenizer.vocabulary == Tokenizer().vocabulary
    np.testing.assert_array_equal(inference.embed(model, draw(24)), inference.embed(ps, draw(24)))
    model, _ = inference.load(tmp_path, dtype="bfloat16")
    assert model.caduceus.dtype == jnp.bfloat16
    exact, close = (inference.embed(m, draw(24)) for m in (ps, model))
    assert 0 < np.abs(exact - close).max() < 0.1


def test_every_kind_of_model_is_loaded_as_what_it_is(tmp_path, ps):
    ps.save_pretrained(tmp_path / "lm")
    classifier(rcps=True).save_pretrained(tmp_path / "classifier")
    tracks = cj.CaduceusForTracks.from_pretrained(tmp_path / "lm", num_tracks=2, bin_size=4)
    tracks.save_pretrained(tmp_path / "tracks")
    kinds = {name: type(cj.load(tmp_path / name).model) for name in ("lm", "classifier", "tracks")}
    assert kinds == {
        "lm": cj.CaduceusForMaskedLM,
        "classifier": cj.CaduceusForSequenceClassification,
        "tracks": cj.CaduceusForTracks,
    }
    assert cj.load(tmp_path / "tracks").model.bin_size == 4
    with pytest.raises(UserError, match="nowhere does not exist"):
        cj.load(tmp_path / "nowhere")


def test_a_verb_takes_a_model_however_it_is_given(tmp_path, ps):
    ps.save_pretrained(tmp_path)
    m = cj.load(tmp_path)
    assert as_pretrained(m) is m
    assert as_pretrained(ps).model is ps
    assert as_pretrained(str(tmp_path)).model.config == ps.config
