import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import caduceus_jax as cj
from caduceus_jax.model import convert
from tests.models import classifier, forward, language_model


def stored(golden, name="ps"):
    config = cj.CaduceusConfig.from_hf(json.loads((golden / name / "config.json").read_text()))
    return config, load_file(golden / name / "model.safetensors")


def folder(tmp_path, golden, tensors, name="ps", **config):
    """A copy of a golden model with other tensors."""
    hf = json.loads((golden / name / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(hf))
    save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, tmp_path / "model.safetensors"
    )
    return str(tmp_path)


LAYER = "caduceus.backbone.layers.0.mixer.submodule."


def test_missing_and_unexpected_names_are_listed_together(golden):
    config, tensors = stored(golden)
    tensors["surprise"] = tensors.pop(LAYER + "mamba_fwd.A_log")
    del tensors[LAYER + "mamba_rev.D"]
    with pytest.raises(cj.UserError) as error:
        convert.from_torch(config, tensors)
    message = str(error.value)
    assert f"2 missing: {LAYER}mamba_fwd.A_log, {LAYER}mamba_rev.D" in message
    assert "1 unexpected: surprise" in message


def test_shapes_that_do_not_fit_are_listed(golden):
    config, tensors = stored(golden)
    tensors[LAYER + "mamba_fwd.A_log"] = np.zeros((64, 8), np.float32)
    tensors[LAYER + "mamba_fwd.x_proj.weight"] = np.zeros((3, 64), np.float32)
    with pytest.raises(cj.UserError, match="another shape") as error:
        convert.from_torch(config, tensors)
    assert f"{LAYER}mamba_fwd.A_log is (64, 8), expected (64, 16)" in str(error.value)
    assert f"{LAYER}mamba_fwd.x_proj.weight is (3, 64), expected (34, 64)" in str(error.value)


def test_a_state_of_another_architecture_is_refused(golden):
    config, tensors = stored(golden)
    state = convert.from_torch(config, tensors)
    with pytest.raises(cj.UserError, match="2 missing: .*'norm_f', 'bias'"):
        convert.to_torch(dataclasses.replace(config, rms_norm=False), state)


def test_another_complement_is_refused(golden):
    config, tensors = stored(golden)
    tensors["lm_head.complement_map"] = np.arange(16)
    with pytest.raises(cj.UserError, match="lm_head.complement_map is .* but the config says"):
        convert.from_torch(config, tensors)


def test_tied_duplicates_may_be_stored(golden, tmp_path):
    config, tensors = stored(golden)
    for layer in range(3):
        mixer = f"caduceus.backbone.layers.{layer}.mixer.submodule."
        for name in ("in_proj.weight", "out_proj.weight"):
            tensors[f"{mixer}mamba_rev.{name}"] = tensors[f"{mixer}mamba_fwd.{name}"]
    embedding = tensors["caduceus.backbone.embeddings.word_embeddings.embedding.weight"]
    tensors["lm_head.lm_head.weight"] = embedding
    model = cj.CaduceusForMaskedLM.from_pretrained(folder(tmp_path, golden, tensors))
    assert model.config == config and model.lm_head is None


def test_broken_ties_load_as_an_untied_model_with_one_warning(golden, tmp_path):
    config, tensors = stored(golden)
    broken = LAYER + "mamba_rev.out_proj.weight"
    tensors[broken] = tensors[LAYER + "mamba_fwd.out_proj.weight"] + 1
    tensors["lm_head.lm_head.weight"] = np.ones((16, 32), np.float32)
    path = folder(tmp_path, golden, tensors)
    with pytest.warns(UserWarning, match="in_proj and out_proj and the embedding") as warnings:
        model = cj.CaduceusForMaskedLM.from_pretrained(path)
    assert len(warnings) == 1
    assert not model.config.bidirectional_weight_tie and not model.config.tie_word_embeddings
    np.testing.assert_array_equal(model.lm_head[...], 1)
    mixer = model.caduceus.layers.mixer
    np.testing.assert_array_equal(mixer.rev.out_proj.kernel[0].T, tensors[broken])
    # The other layers' projections were tied: both directions hold them now.
    np.testing.assert_array_equal(mixer.rev.out_proj.kernel[1], mixer.fwd.out_proj.kernel[1])
    model.save_pretrained(str(tmp_path / "again"))
    again = cj.CaduceusForMaskedLM.from_pretrained(str(tmp_path / "again"))
    one, other = nnx.state(model), nnx.state(again)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))


def test_the_untied_form_of_a_tied_model_computes_the_same(golden, tmp_path):
    config, tensors = stored(golden)
    for layer in range(3):
        mixer = f"caduceus.backbone.layers.{layer}.mixer.submodule."
        for name in ("in_proj.weight", "out_proj.weight"):
            tensors[f"{mixer}mamba_rev.{name}"] = tensors[f"{mixer}mamba_fwd.{name}"]
    path = folder(tmp_path, golden, tensors, bidirectional_weight_tie=False)
    untied = cj.CaduceusForMaskedLM.from_pretrained(path)
    tied = cj.CaduceusForMaskedLM.from_pretrained(str(golden / "ps"))
    ids = jnp.asarray(load_file(golden / "ps" / "golden.safetensors")["input_ids"], jnp.int32)
    np.testing.assert_allclose(forward(untied, ids).logits, forward(tied, ids).logits, atol=1e-5)


def test_gradients_of_tied_tensors_appear_once(golden):
    model = language_model(n_layer=2)
    gradient = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    names = convert.to_torch(model.config, gradient).keys()
    assert names == convert.to_torch(model.config, model).keys()
    assert not [name for name in names if "mamba_rev.in_proj" in name or "lm_head" in name]


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True, "conv_bias": False, "rcps": False},
        {"bidirectional_weight_tie": False, "fused_add_norm": True},
        {"bidirectional": False, "rms_norm": False},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_every_architecture_survives_files(tmp_path, options):
    model = language_model(n_layer=2, **options)
    model.save_pretrained(str(tmp_path))
    again = cj.CaduceusForMaskedLM.from_pretrained(str(tmp_path))
    assert again.config == model.config
    one, other = (nnx.to_flat_state(nnx.state(m)) for m in (model, again))
    for (path, a), (path_again, b) in zip(one, other, strict=True):
        assert path == path_again
        np.testing.assert_array_equal(a[...], b[...])


def test_a_backbone_gets_a_new_head_and_a_stored_head_is_kept(golden, tmp_path):
    fresh = cj.CaduceusForSequenceClassification.from_pretrained(str(golden / "ps"), num_labels=5)
    assert fresh.score.shape == (5, 32)
    assert 0.01 < np.asarray(fresh.score[...]).std() < 0.03
    model = classifier(num_labels=4)
    model.save_pretrained(str(tmp_path))
    hf = json.loads((tmp_path / "config.json").read_text())
    assert hf["architectures"] == ["CaduceusForSequenceClassification"]
    assert len(hf["id2label"]) == 4
    again = cj.CaduceusForSequenceClassification.from_pretrained(str(tmp_path))
    np.testing.assert_array_equal(again.score[...], model.score[...])
    with pytest.raises(cj.UserError, match="holds a head of 4 labels, not 2"):
        cj.CaduceusForSequenceClassification.from_pretrained(str(tmp_path), num_labels=2)
    with pytest.raises(cj.UserError, match="is a classifier"):
        cj.CaduceusForMaskedLM.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", ["ps", "ps_unfused", "ph", "unidirectional_layernorm"])
def test_the_architecture_can_be_read_off_the_tensors(golden, name):
    config, tensors = stored(golden, name)
    inferred = convert.infer_config(tensors)
    same = dataclasses.replace(inferred, pad_vocab_size_multiple=8)
    assert dataclasses.replace(same, dt_rank="auto") == config
    with pytest.raises(cj.UserError, match="not a Caduceus model's weights"):
        convert.infer_config({"bert.weight": np.zeros(3)})


def test_names_of_training_frameworks_are_stripped(golden):
    config, tensors = stored(golden)
    wrapped = {f"model._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    one, other = convert.from_torch(config, wrapped), convert.from_torch(config, tensors)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))
    bare = {name.removeprefix("caduceus."): t for name, t in tensors.items()}
    del bare["lm_head.complement_map"]
    convert.from_torch(config, bare)
