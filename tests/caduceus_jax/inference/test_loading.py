"""Models of every kind come with their tokenizers, and say which strands they read."""

import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax import CaduceusConfig, Tokenizer, UserError, inference
from caduceus_jax.inference.embeddings import reading
from caduceus_jax.inference.loading import as_pretrained, resolve_rc_mode
from tests.models import classifier

PS, PH = CaduceusConfig(rcps=True), CaduceusConfig()


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


@pytest.mark.parametrize(
    ("config", "rc_mode", "scores", "expected"),
    [
        (PS, None, True, "equivariant"),
        (PH, None, True, "posthoc"),
        (PS, "equivariant", True, "equivariant"),
        (PH, "posthoc", False, "posthoc"),
        (PH, "none", True, "none"),
        (PS, "none", False, "none"),
    ],
)
def test_modes(config, rc_mode, scores, expected):
    assert resolve_rc_mode(config, rc_mode, scores=scores) == expected


@pytest.mark.parametrize(
    ("config", "rc_mode", "says"),
    [
        (PS, "posthoc", "rc_mode is 'posthoc', which contradicts an equivariant model"),
        (PS, "none", "rc_mode is 'none', which contradicts an equivariant model"),
        (PH, "equivariant", "rc_mode is 'equivariant', which contradicts a model that is not eq"),
        (PH, "augment", "rc_mode is 'augment'; it is one of: none, posthoc, equivariant"),
    ],
)
def test_contradictions_are_one_sentence(config, rc_mode, says):
    with pytest.raises(UserError, match=f"^{says}"):
        resolve_rc_mode(config, rc_mode, scores=True)


def test_both_strands_side_by_side_need_both(build):
    with pytest.raises(UserError, match="^concatenate needs both strands, and rc_mode is 'none'"):
        reading(build(), None, rc_mode="none", concatenate=True)
    assert reading(build(), None, concatenate=True).channels == 32
