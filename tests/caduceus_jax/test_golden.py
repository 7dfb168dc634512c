"""Equal to the original: logits, hidden states, losses, gradients, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from tests import parity
from tests.parity import CLASSIFIERS, LANGUAGE_MODELS, worst
from tests.tolerances import (
    DIVERGENCE_BF16,
    DIVERGENCE_FP32,
    PADDING_TWICE,
    PARITY_GRADIENT,
    PARITY_LOGITS,
    PARITY_LOSS,
    SAME_TOKEN_BF16,
)

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models(golden, name):
    errors = parity.language_model(golden / name)
    assert errors.logits < PARITY_LOGITS
    assert worst(errors.hidden_states) < PARITY_LOGITS, errors.hidden_states
    assert errors.losses < PARITY_LOSS
    assert worst(errors.gradients) < PARITY_GRADIENT, errors.gradients


@pytest.mark.parametrize("name", ["ps", "ph"])
def test_bfloat16_says_what_float32_and_the_original_say(golden, name):
    case = load_file(golden / name / "golden.safetensors")
    ids = jnp.asarray(case["input_ids"], jnp.int32)
    said = {"original": jax.nn.log_softmax(case["logits"].astype(np.float64))}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = cj.CaduceusForMaskedLM.from_pretrained(str(golden / name), dtype=dtype)
        said[dtype] = jax.nn.log_softmax(jax.jit(lambda m, i: m(i).logits)(model, ids))
    said = {key: np.asarray(values, np.float64) for key, values in said.items()}

    def divergence(of, beside):
        return (np.exp(said[of]) * (said[of] - said[beside])).sum(-1).max()

    assert divergence("original", jnp.float32) < DIVERGENCE_FP32
    assert 1e-7 < divergence(jnp.float32, jnp.bfloat16) < DIVERGENCE_BF16
    likeliest = {key: values.argmax(-1) for key, values in said.items()}
    assert (likeliest[jnp.bfloat16] == likeliest[jnp.float32]).mean() >= SAME_TOKEN_BF16


@pytest.mark.optimised  # without, sums are taken in another order for another length
@pytest.mark.parametrize("name", ["ps", "ph"])
def test_padding_to_twice_the_length_is_not_seen(golden, name):
    ids = load_file(golden / name / "golden.safetensors")["input_ids"].astype(np.int32)
    model = cj.CaduceusForMaskedLM.from_pretrained(str(golden / name))
    forward = jax.jit(lambda m, i, mask: m(i, mask).logits)
    alone, length = forward(model, jnp.asarray(ids), None), ids.shape[1]
    for left in (length, 0, length // 2):
        real = slice(left, left + length)
        padded = np.full((len(ids), 2 * length), model.config.pad_token_id, np.int32)
        mask = np.zeros(padded.shape, bool)
        padded[:, real], mask[:, real] = ids, True
        out = forward(model, jnp.asarray(padded), jnp.asarray(mask))[:, real]
        assert np.abs(out - alone).max() <= PADDING_TWICE


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(golden, name):
    errors = parity.classifier(golden / name)
    assert errors.logits < PARITY_LOGITS
    assert errors.losses < PARITY_LOSS
    assert worst(errors.gradients) < PARITY_GRADIENT, errors.gradients


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
    # The order counts too: the original reads the values of complement_map as they come.
    assert (tmp_path / "config.json").read_text() == (golden / name / "config.json").read_text()


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
