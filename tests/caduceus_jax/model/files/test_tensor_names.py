import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.model.files import tensor_names

NAMES = [
    "caduceus.backbone.embeddings.word_embeddings.weight",
    "caduceus.backbone.layers.0.mixer.mamba_fwd.A_log",
    "caduceus.backbone.norm_f.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "module.", "_forward_module.", "module.model.", "base_model.model.", "net."],
)
def test_prefixes_of_trainers(prefix):
    found, stripped = tensor_names.canonical({prefix + name: 0 for name in NAMES})
    assert list(found) == NAMES and stripped == prefix


def test_wrappers_of_single_modules():
    name = "module.caduceus.backbone.layers.0._orig_mod.mixer.mamba_fwd.A_log"
    found, _ = tensor_names.canonical(
        {name.replace("layers.0.", "layers.0._fsdp_wrapped_module."): 0}
    )
    assert list(found) == [NAMES[1]]


def test_a_backbone_alone_is_put_under_its_model():
    found, prefix = tensor_names.canonical({"module.backbone.norm_f.weight": 0})
    assert list(found) == ["caduceus.backbone.norm_f.weight"] and prefix == "module."


@pytest.mark.parametrize("head", ["decoder.0.output_transform.", "classifier.", "score."])
def test_heads_of_fine_tunes(head):
    tensors = {"model." + NAMES[2]: 0, f"{head}weight": 1, f"{head}bias": 2}
    found, _ = tensor_names.canonical(tensors)
    assert found["score.weight"] == 1 and found["score.bias"] == 2 and len(found) == 3


def test_a_head_beside_the_model_in_a_wrapper():
    """DDP around the original's Lightning module."""
    tensors = {"module.model." + NAMES[2]: 0, "module.decoder.0.output_transform.weight": 1}
    found, prefix = tensor_names.canonical(tensors)
    assert found == {NAMES[2]: 0, "score.weight": 1} and prefix == "module.model."


def test_counters_of_metrics_are_left_out():
    found, _ = tensor_names.canonical({NAMES[0]: 0, "train_torchmetrics.num_tokens.count": 1})
    assert list(found) == [NAMES[0]]


def test_two_models_in_one_file_are_refused():
    tensors = {f"{who}.{NAMES[2]}": 0 for who in ("student", "teacher")}
    with pytest.raises(cj.UserError, match="2 models, under the prefixes 'student.', 'teacher.'"):
        tensor_names.canonical(tensors)


def test_an_adapter_that_is_not_merged_is_refused():
    name = "base_model.model.caduceus.backbone.layers.0.mixer.mamba_fwd.in_proj.lora_A.weight"
    with pytest.raises(cj.UserError, match=r"save it after merge_and_unload\(\)"):
        tensor_names.canonical({name: np.zeros(1)})
