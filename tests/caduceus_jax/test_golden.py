"""Equal to the original: logits, hidden states, losses, gradients, files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from tests.tolerances import PARITY_GRADIENT, PARITY_LOGITS, PARITY_LOSS, relative_error

pytestmark = pytest.mark.parity

LANGUAGE_MODELS = ["ps", "ps_unfused", "ps_vocabulary8", "ph", "unidirectional_layernorm"]
CLASSIFIERS = ["ps_classifier", "ph_classifier_conjoin"]


def load_case(folder):
    case = load_file(folder / "golden.safetensors")
    gradients = {k.removeprefix("grad."): v for k, v in case.items() if k.startswith("grad.")}
    return case, gradients


def int32(array):
    return jnp.asarray(array, jnp.int32)


def assert_gradients(config, found, expected):
    found = cj.convert.to_torch(config, found)
    assert found.keys() == expected.keys()
    for name in expected:
        assert relative_error(found[name], expected[name]) < PARITY_GRADIENT, name


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models(golden, name):
    case, expected_gradients = load_case(golden / name)
    model = cj.CaduceusForMaskedLM.from_pretrained(str(golden / name))
    ids, labels = int32(case["input_ids"]), int32(case["labels"])
    weights = jnp.asarray(case["loss_weights"])
    ignored = model.config.pad_token_id
    graphdef, params = nnx.split(model, nnx.Param)

    @jax.jit
    def run(params):
        def loss(params):
            out = nnx.merge(graphdef, params)(ids, output_hidden_states=True)
            return cj.masked_lm_loss(out.logits, labels, ignore_index=ignored), out

        (loss, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return loss, out, gradients

    loss, out, gradients = run(params)
    assert np.abs(out.logits - case["logits"]).max() < PARITY_LOGITS
    stored = [k for k in case if k.startswith("hidden_states.")]
    assert len(out.hidden_states) == len(stored)
    for i, hidden in enumerate(out.hidden_states):
        assert np.abs(hidden - case[f"hidden_states.{i}"]).max() < PARITY_LOGITS, i
    assert relative_error(loss, case["loss"][0]) < PARITY_LOSS
    weighted = cj.masked_lm_loss(out.logits, labels, weights, ignore_index=ignored)
    assert relative_error(weighted, case["weighted_loss"][0]) < PARITY_LOSS
    assert_gradients(model.config, gradients, expected_gradients)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(golden, name):
    case, expected_gradients = load_case(golden / name)
    ids, labels = case["input_ids"], jnp.asarray(case["labels"])
    conjoined = ids.ndim == 3
    model = cj.CaduceusForSequenceClassification.from_pretrained(
        str(golden / name), rc_mode="posthoc" if conjoined else None
    )
    if conjoined:
        complement = np.asarray(model.config.complement_map)
        np.testing.assert_array_equal(complement[ids[:, ::-1, 0]], ids[..., 1])
        ids = ids[..., 0]
    labels = labels if jnp.issubdtype(labels.dtype, jnp.floating) else int32(labels)

    @jax.jit
    def run(model):
        def loss(model):
            logits = model(int32(ids)).logits
            return cj.classification_loss(logits, labels), logits

        return jax.value_and_grad(loss, has_aux=True)(model)

    (loss, logits), gradients = run(model)
    assert np.abs(logits - case["logits"]).max() < PARITY_LOGITS
    assert relative_error(loss, case["loss"][0]) < PARITY_LOSS
    assert_gradients(model.config, gradients, expected_gradients)


@pytest.mark.parametrize("name", LANGUAGE_MODELS + CLASSIFIERS)
def test_there_and_back_is_bit_identical(golden, tmp_path, name):
    kind = cj.CaduceusForSequenceClassification if name in CLASSIFIERS else cj.CaduceusForMaskedLM
    kind.from_pretrained(str(golden / name)).save_pretrained(str(tmp_path))
    ours, theirs = (
        load_file(tmp_path / "model.safetensors"),
        load_file(golden / name / "model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        np.testing.assert_array_equal(ours[key], theirs[key])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == json.loads((golden / name / "config.json").read_text())


@pytest.mark.parametrize(
    ("d_model", "n_layer", "vocab_size", "parameters"),
    [
        (118, 4, 16, 470_702),
        (256, 4, 16, 1_934_592),
        (256, 8, 16, 3_864_832),
        (256, 16, 16, 7_725_312),
        (384, 20, 8, 20_870_016),
        (768, 28, 8, 112_107_264),
        (1024, 32, 8, 225_354_752),
    ],
)
def test_parameter_counts_of_the_released_models(d_model, n_layer, vocab_size, parameters):
    config = cj.CaduceusConfig(
        d_model=d_model,
        n_layer=n_layer,
        rcps=True,
        vocab_size=vocab_size,
        complement_map=tuple(range(vocab_size)),
    )
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameters


def test_a_released_model_at_its_full_length_has_the_right_shapes():
    config = cj.CaduceusConfig(d_model=256, n_layer=16, rcps=True, fused_add_norm=True)
    ids = jax.ShapeDtypeStruct((1, 131_072), jnp.int32)
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    out = jax.eval_shape(lambda m, i: m(i, output_hidden_states=True), model, ids)
    assert out.logits.shape == (1, 131_072, 16) and out.logits.dtype == jnp.float32
    assert out.last_hidden_state.shape == (1, 131_072, 512)
    assert [h.shape for h in out.hidden_states] == [(1, 131_072, 512)] * 17
