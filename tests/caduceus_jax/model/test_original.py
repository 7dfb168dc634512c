"""Every setting of the architecture against the original's equations in NumPy."""

import json

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from tests import original
from tests.models import forward, language_model, random_ids
from tests.tolerances import PARITY_LOGITS

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", ["ps", "ps_unfused", "ph", "unidirectional_layernorm"])
def test_the_equations_are_those_of_the_original(golden, name):
    config = cj.CaduceusConfig.from_hf(json.loads((golden / name / "config.json").read_text()))
    case = load_file(golden / name / "golden.safetensors")
    ids = case["input_ids"].astype(int)
    found = original.logits(config, load_file(golden / name / "model.safetensors"), ids)
    np.testing.assert_allclose(found, case["logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fused_add_norm": True, "n_layer": 1},
        {"rcps": False},
        {"bidirectional": False},
        {"bidirectional": False, "rcps": False},
        {"bidirectional_strategy": "ew_multiply"},
        {"bidirectional_strategy": "ew_multiply", "rcps": False, "bias": True},
        {"bidirectional_weight_tie": False},
        {"bidirectional_weight_tie": False, "bias": True, "bidirectional_strategy": "ew_multiply"},
        {"bias": True},
        {"conv_bias": False, "d_conv": 3},
        {"d_conv": 2, "rcps": False},
        {"expand": 3, "d_state": 8},
        {"dt_rank": 5},
        {"rms_norm": False, "fused_add_norm": True},
        {"rms_norm": False, "norm_epsilon": 1e-2},
        {"tie_word_embeddings": False},
        {"tie_word_embeddings": False, "rcps": False},
        {"residual_in_fp32": True},
    ],
    ids=str,
)
def test_every_setting(options):
    model, ids = language_model(**options), random_ids(length=37)
    tensors = cj.convert.to_torch(model.config, nnx.state(model, nnx.Param))
    expected = original.logits(model.config, tensors, ids)
    assert np.abs(expected).max() > 1
    found = np.asarray(forward(model, ids).logits)
    np.testing.assert_allclose(found, expected, atol=PARITY_LOGITS, rtol=0)
