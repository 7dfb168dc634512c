"""Reverse-complement equivariance: by hand, as a property, and shown to be able to fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.model import mamba
from caduceus_jax.model.rcps import (
    embed_strands,
    from_original_layout,
    strand_logits,
    swap_strands,
    to_original_layout,
)
from tests.models import COMPLEMENT, forward, language_model, random_ids, reverse_complement
from tests.tolerances import EQUIVARIANCE


def equivariance_error(model, forward=forward):
    ids = random_ids()
    plain, other = forward(model, ids), forward(model, reverse_complement(ids))
    logits = np.abs(np.asarray(other.logits)[:, ::-1][..., COMPLEMENT] - plain.logits).max()
    # In the original's layout the reverse complement of a state flips length and channels.
    hidden = np.asarray(other.last_hidden_state)[:, ::-1, ::-1] - plain.last_hidden_state
    return np.maximum(logits, np.abs(hidden).max())


def test_embedding_by_hand():
    embedding = jnp.asarray([[10.0, 11.0], [20.0, 21.0]])  # two tokens, each other's complement
    strands = embed_strands(embedding, jnp.asarray([[0, 0, 1]]), jnp.asarray([1, 0]))
    np.testing.assert_array_equal(strands[0, 0], [[10, 11], [10, 11], [20, 21]])
    np.testing.assert_array_equal(strands[0, 1], [[20, 21], [20, 21], [10, 11]])
    # The original reverses the second strand's channels.
    original = to_original_layout(strands)
    np.testing.assert_array_equal(original[0, 0], [10, 11, 21, 20])
    np.testing.assert_array_equal(from_original_layout(original, 2), strands)
    np.testing.assert_array_equal(swap_strands(strands)[0, 0, 0], [21, 20])


def test_logits_by_hand():
    hidden = jnp.asarray([[[[1.0]], [[100.0]]]])  # batch, strand, length, d_model
    weight = jnp.asarray([[2.0], [3.0]])
    logits = strand_logits(hidden, weight, jnp.asarray([1, 0]))
    np.testing.assert_array_equal(logits[0, 0, 0], [2, 3])
    np.testing.assert_array_equal(logits[0, 1, 0], [300, 200])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fused_add_norm": True},
        {"bidirectional_strategy": "ew_multiply"},
        {"bidirectional_weight_tie": False},
        {"bidirectional": False},
        {"bias": True, "rms_norm": False, "d_conv": 3, "expand": 3},
    ],
    ids=str,
)
def test_the_reverse_complement_gives_the_reverse_complement(options):
    assert equivariance_error(language_model(**options)) < EQUIVARIANCE


def test_trained_weights(golden):
    """The original's own, after thirty steps of its optimizer."""
    model = cj.CaduceusForMaskedLM.from_pretrained(str(golden / "ps_training"))
    arrays = load_file(golden / "ps_training" / "golden.safetensors")
    final = {k.removeprefix("final."): v for k, v in arrays.items() if k.startswith("final.")}
    nnx.update(model, cj.convert.from_torch(model.config, final))
    assert equivariance_error(model) < EQUIVARIANCE


def test_a_model_of_one_strand_is_not_equivariant():
    ids = random_ids()
    model = language_model(rcps=False)
    logits = forward(model, ids).logits
    other = forward(model, reverse_complement(ids)).logits
    assert np.abs(np.asarray(other)[:, ::-1][..., COMPLEMENT] - logits).max() > 0.1


def test_equivariance_breaks_when_the_directions_keep_their_roles_on_strand_1(monkeypatch):
    monkeypatch.setattr(
        mamba, "_cores_by_strand", lambda fwd, rev, n, reverse: [(fwd, rev)[reverse]] * n
    )
    assert equivariance_error(language_model(), jax.jit(lambda m, i: m(i))) > 0.01


def test_the_strand_swap_is_another_function_and_is_equivariant_too():
    ids = random_ids()
    plain, swapped = language_model(), language_model(fused_add_norm=True)
    assert plain.config.strand_swap is False and swapped.config.strand_swap is True
    assert np.abs(forward(plain, ids).logits - forward(swapped, ids).logits).max() > 0.1


def test_both_strands_of_a_model_of_one_strand():
    """Strand 1 is what the model makes of the reverse complement, in + coordinates."""
    ids = random_ids()
    model = language_model(rcps=False)
    hidden, _ = jax.jit(lambda m, i: m.caduceus(i, both_strands=True))(model, ids)
    other, _ = jax.jit(lambda m, i: m.caduceus(i))(model, reverse_complement(ids))
    np.testing.assert_allclose(hidden[:, 1], other[:, 0, ::-1], atol=EQUIVARIANCE)
    logits = model.head(hidden)[:, 1]
    expected = np.asarray(model.head(other)[:, 0])[:, ::-1][..., COMPLEMENT]
    np.testing.assert_allclose(logits, expected, atol=EQUIVARIANCE)
