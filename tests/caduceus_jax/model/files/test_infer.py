import json

import pytest
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.model.files.infer import infer_config

PS = "caduceus.backbone.layers.1.mixer.submodule.mamba_"


@pytest.mark.parametrize("name", ["ps", "ps_unfused", "ps_vocabulary8", "ph"])
def test_shapes_and_names_tell_the_architecture(golden, name):
    config = cj.CaduceusConfig.from_hf(json.loads((golden / name / "config.json").read_text()))
    found = infer_config(load_file(golden / name / "model.safetensors"))
    for field in ("d_model", "n_layer", "rcps", "bidirectional", "rms_norm", "fused_add_norm"):
        assert getattr(found, field) == getattr(config, field), field
    assert found.complement_map == config.complement_map
    assert found.delta_rank == config.delta_rank and found.bidirectional_weight_tie


def test_one_pair_that_differs_unties_all(golden):
    tensors = load_file(golden / "ps" / "model.safetensors")
    tensors[PS + "rev.out_proj.weight"] = tensors[PS + "fwd.out_proj.weight"] + 1
    assert not infer_config(tensors).bidirectional_weight_tie


def test_a_small_vocabulary_without_complements_has_none(golden):
    tensors = load_file(golden / "ph" / "model.safetensors")
    name = "caduceus.backbone.embeddings.word_embeddings.weight"
    tensors[name] = tensors[name][:8]
    assert infer_config(tensors).complement_map == tuple(range(8))


def test_a_trainers_settings_tell_the_rest(golden):
    tensors = load_file(golden / "ph" / "model.safetensors")
    config = {"bidirectional_strategy": "ew_multiply", "fused_add_norm": "false", "d_model": 999}
    found = infer_config(tensors, {"model": {"config": config}})
    assert found.bidirectional_strategy == "ew_multiply" and not found.fused_add_norm
    assert found.d_model == 32
    assert infer_config(tensors, {"model": "caduceus"}) == infer_config(tensors)
