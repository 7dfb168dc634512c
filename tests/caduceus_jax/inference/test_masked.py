"""Masked log-probabilities: right by hand, on both strands, in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, Tokenizer, UserError, inference
from caduceus_jax.inference import masked
from caduceus_jax.inference.batches import plan, run

PLANT_TOKENS = {t: i for i, t in enumerate(("[PAD]", "[MASK]", "[UNK]", *"acgt"))}


def handmade(rcps: bool) -> CaduceusForMaskedLM:
    """A model that says nothing of the context: h = E[MASK] / rms(E[MASK]) = sqrt(2) (0.6, 0.8)."""
    model = CaduceusForMaskedLM(CaduceusConfig(d_model=2, n_layer=1, rcps=rcps), rngs=nnx.Rngs(0))
    kernel = model.caduceus.layers.mixer.out_proj.kernel
    kernel[...] = jnp.zeros_like(kernel[...])
    rows = {3: (3, 4), 7: (1, 0), 8: (0, 1), 10: (2, 0)}  # [MASK], A, C, T; all others are 0
    embedding = jnp.zeros((16, 2)).at[jnp.array(list(rows))].set(jnp.array(list(rows.values())))
    model.caduceus.embedding[...] = embedding
    return model


def test_masked_log_probabilities_by_hand_equivariant():
    """Summed logits of A, C, G, T: h (E[A] + E[T]), h (E[C] + E[G]), and the same reversed."""
    ids = Tokenizer().encode("ACGTA")[None]
    got = inference.masked_log_probabilities(handmade(rcps=True), ids, np.array([2]))
    root = 2**0.5
    logits = root * np.array([1.8, 0.8, 0.8, 1.8])
    # Both strands read E[MASK] as 5 sqrt(2) / 2, twice; eleven more tokens get 0.
    total = np.log(np.exp(logits).sum() + np.exp(2 * root * 5) + 11)
    np.testing.assert_allclose(got, (logits - total)[None], rtol=1e-5)
    np.testing.assert_allclose(got[0, 1] - got[0, 0], -root, rtol=1e-5)


def test_masked_log_probabilities_by_hand_averaged_over_strands():
    ids = Tokenizer().encode("ACGTA")[None]
    got = inference.masked_log_probabilities(handmade(rcps=False), ids, np.array([2]))
    root = 2**0.5
    forward = root * np.array([0.6, 0.8, 0, 1.2])  # h E[A], h E[C], h E[G], h E[T]
    total = np.log(np.exp(forward).sum() + np.exp(root * 5) + 11)
    # The other strand votes for the complements, with the same total.
    np.testing.assert_allclose(got, ((forward + forward[::-1]) / 2 - total)[None], rtol=1e-5)
    np.testing.assert_allclose(got[0, 1] - got[0, 0], -root / 2, rtol=1e-5)


def test_the_masked_base_is_not_seen(model):
    ids = np.stack([Tokenizer().encode(f"ACGTACG{base}TTGACA") for base in "ACGTN"])
    got = inference.masked_log_probabilities(model, ids, np.full(5, 7))
    np.testing.assert_array_equal(got, got[:1].repeat(5, axis=0))
    other = inference.masked_log_probabilities(model, ids[:1], np.array([6]))
    assert np.abs(other - got[:1]).max() > 1e-3


def test_masked_log_probabilities_are_the_same_from_the_other_strand(model, draw):
    tokenizer = Tokenizer()
    ids = np.stack([tokenizer.encode(sequence) for sequence in draw(41, 41, 41, 41)])
    positions = np.array([0, 7, 20, 40])
    got = inference.masked_log_probabilities(model, ids, positions)
    other = inference.masked_log_probabilities(
        model, tokenizer.reverse_complement(ids), 40 - positions
    )
    np.testing.assert_allclose(other[:, ::-1], got, atol=1e-5)


def test_both_strands_matter(build, draw, run):
    """A model that is not equivariant says something else from one strand alone."""
    model = build()
    ids = Tokenizer().encode(draw(41)[0])[None]
    got = inference.masked_log_probabilities(model, ids, np.array([20]))
    logits = run(model, jnp.asarray(ids).at[0, 20].set(3)).logits[0, 20]
    alone = jax.nn.log_softmax(logits)[jnp.array([7, 8, 9, 10])]
    assert np.abs(got[0] - alone).max() > 1e-2


def test_masked_log_probabilities_of_an_equivariant_model_are_its_own(ps, draw, run):
    ids = Tokenizer().encode(draw(41)[0])[None]
    got = inference.masked_log_probabilities(ps, ids, np.array([20]))
    logits = run(ps, jnp.asarray(ids).at[0, 20].set(3)).logits[0, 20]
    expected = jax.nn.log_softmax(logits)[jnp.array([7, 8, 9, 10])]
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_rows_out_are_rows_in(ps, batch_size, draw):
    """Whatever the batch, and whether or not it divides among the four devices."""
    ids = np.stack([Tokenizer().encode(sequence) for sequence in draw(*[24] * 7)])
    positions = np.arange(7) * 3
    got = inference.masked_log_probabilities(ps, ids, positions, batch_size=batch_size)
    one_by_one = [
        inference.masked_log_probabilities(ps, ids[i : i + 1], positions[i : i + 1], batch_size=1)
        for i in range(7)
    ]
    np.testing.assert_allclose(got, np.concatenate(one_by_one), atol=1e-5)


def test_several_masks_of_one_sequence_hide_each_other(model, draw):
    ids = np.stack([Tokenizer().encode(text) for text in draw(24, 24)]).astype(np.int32)
    positions = np.array([[8, 9], [20, -1]])
    got = inference.masked_log_probabilities(model, ids, positions)
    hidden = ids.copy()
    hidden[0, 8] = Tokenizer().mask_id
    alone = inference.masked_log_probabilities(model, hidden[:1], np.array([9]))
    np.testing.assert_allclose(got[0, 1], alone[0], atol=1e-5)
    single = inference.masked_log_probabilities(model, ids[1:], np.array([20]))
    np.testing.assert_allclose(got[1, 0], single[0], atol=1e-5)
    assert np.isnan(got[1, 1]).all()
    seen = np.abs(got[0, 1] - inference.masked_log_probabilities(model, ids[:1], np.array([9]))[0])
    assert seen.max() > 1e-3


def test_another_vocabulary(build, draw):
    """PlantCaduceus numbers the bases otherwise and has no N."""
    fields = {"vocab_size": 7, "pad_token_id": 0, "complement_map": (0, 1, 2, 6, 5, 4, 3)}
    model, tokenizer = build(rcps=True, **fields), Tokenizer(PLANT_TOKENS)
    ids = np.stack([tokenizer.encode(sequence) for sequence in [*draw(21), "N" * 21]])
    assert ids[1].tolist() == [2] * 21
    got = inference.masked_log_probabilities(model, ids, np.full(2, 10), tokenizer=tokenizer)
    other = inference.masked_log_probabilities(
        model, tokenizer.reverse_complement(ids), np.full(2, 10), tokenizer=tokenizer
    )
    np.testing.assert_allclose(other[:, ::-1], got, atol=1e-5)
    with pytest.raises(UserError, match=r"^the tokenizer's ids reach 10 and the model has 8 tok"):
        inference.embed(model, ["ACGT"])


def test_many_passes_end_the_last_block_at_the_masks(ps, monkeypatch, draw):
    """Where all masks of a batch are near to the middle; the numbers stay what they are."""
    bounds = []

    def forward(*arguments, within, **static):
        bounds.append(within)
        return masked.masked_batch(*arguments, within=within, **static)

    ids = np.stack([Tokenizer().encode(x) for x in draw(*[600] * 8)])
    positions = np.array([300, 299, 256, 383, 300, 192, 10, 599])
    masks = np.stack([positions, np.where(positions < 300, -1, 301)], axis=1)
    few = inference.masked_log_probabilities(ps, ids, masks, batch_size=2)
    monkeypatch.setattr(masked, "_WORTH_COMPILING", {"cpu": 8})
    static = masked.masked_options(ps, None, None, passes=8)
    rows = run(forward, ps, plan(np.full(8, 600), 2), masked.masked_inputs(ids, masks), **static)
    many = np.stack([values for _, values in rows])
    # Compiled once for each: rows 0 to 5, and the last two.
    assert bounds == [(192, 384), None]
    np.testing.assert_allclose(many, few, rtol=0, atol=2e-6)
    assert masked.masked_options(ps, None, None, passes=7)["within"] is None
