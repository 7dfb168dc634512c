"""Embeddings: right by hand, on both strands, in any batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusForMaskedLM, Tokenizer, UserError, inference
from caduceus_jax.inference.embeddings import reading
from tests.genomes import reverse_complement


def first_blocks(model: CaduceusForMaskedLM, count: int) -> CaduceusForMaskedLM:
    """A model of that many blocks with the parameters of `model`'s first ones and its norm."""
    config = dataclasses.replace(model.config, n_layer=count)
    small = CaduceusForMaskedLM(config, rngs=nnx.Rngs(1))
    small.caduceus.embedding, small.caduceus.norm_f = (
        model.caduceus.embedding,
        model.caduceus.norm_f,
    )
    small.caduceus.layers = jax.tree.map(lambda stacked: stacked[:count], model.caduceus.layers)
    return small


def test_no_rows_give_no_rows(ps):
    ids, positions = np.empty((0, 24), np.int32), np.empty(0, np.int64)
    assert inference.masked_log_probabilities(ps, ids, positions).shape == (0, 4)
    assert inference.embed(ps, [], concatenate=True).shape == (0, 32)
    assert inference.embed_tokens(ps, []) == []


def test_embeddings_are_the_models_hidden_states(ps, draw, run):
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    state = np.asarray(
        run(ps, ids).last_hidden_state[0]
    )  # the original's layout: second half reversed
    first, second = state[:, :16], state[:, :15:-1]
    (tokens,) = inference.embed_tokens(ps, draw(24), concatenate=True)
    np.testing.assert_allclose(tokens, np.concatenate([first, second], axis=1), atol=1e-5)
    (tokens,) = inference.embed_tokens(ps, draw(24))
    np.testing.assert_allclose(tokens, (first + second) / 2, atol=1e-5)
    got = inference.embed(ps, draw(24), rc_mode="none")
    np.testing.assert_allclose(got, first.mean(axis=0)[None], atol=1e-5)
    got = inference.embed(ps, draw(24), pooling="center")
    np.testing.assert_allclose(got, (first + second)[None, 12] / 2, atol=1e-5)


def test_forward_embeddings_read_one_strand_of_a_model_that_has_one(build, draw, run):
    model = build()
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    expected = np.asarray(run(model, ids).last_hidden_state[0])
    (tokens,) = inference.embed_tokens(model, draw(24), rc_mode="none")
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    assert np.abs(inference.embed_tokens(model, draw(24))[0] - expected).max() > 1e-2


def test_the_other_strand_exchanges_the_halves_of_an_embedding(model, draw):
    """And so leaves their average as it is."""
    sequences = draw(33, 33)
    others = [reverse_complement(sequence) for sequence in sequences]
    both = inference.embed(model, sequences, concatenate=True)
    swapped = inference.embed(model, others, concatenate=True)
    np.testing.assert_allclose(np.roll(swapped, 16, axis=1), both, atol=1e-5)
    assert np.abs(both[:, :16] - both[:, 16:]).max() > 1e-2


def test_averaged_embeddings_do_not_depend_on_the_strand(ps, draw):
    sequences = draw(33, 33)
    others = [reverse_complement(sequence) for sequence in sequences]
    for pooling in ("mean", "center"):  # of an odd length, the centre is the same base
        got = inference.embed(ps, others, pooling=pooling)
        np.testing.assert_allclose(got, inference.embed(ps, sequences, pooling=pooling), atol=1e-5)


def test_lengths_mix_and_padding_does_not_show(ps, draw):
    sequences = draw(40, 1, 33, 40, 2)
    got = inference.embed(ps, sequences, batch_size=2)
    tokens = inference.embed_tokens(ps, sequences, batch_size=2)
    assert [state.shape for state in tokens] == [(len(s), 16) for s in sequences]
    np.testing.assert_allclose(got, [state.mean(axis=0) for state in tokens], atol=1e-5)
    for i in (1, 2):
        alone = inference.embed_tokens(ps, [sequences[i]])
        np.testing.assert_allclose(tokens[i], alone[0], atol=1e-5)


def test_center_is_counted_on_real_tokens(ps, draw):
    got = inference.embed(ps, draw(24, 9), pooling="center")
    tokens = inference.embed_tokens(ps, draw(24, 9))
    np.testing.assert_allclose(got, np.stack([tokens[0][12], tokens[1][4]]), atol=1e-5)


def test_text_bytes_and_token_ids_are_the_same_sequence(ps, draw):
    text = draw(24)[0]
    forms = [text, text.lower().encode(), Tokenizer().encode(text)]
    got = inference.embed(ps, forms)
    np.testing.assert_array_equal(got, got[:1].repeat(3, axis=0))


def test_a_model_without_complements_has_no_second_strand(build):
    model = build(complement_map=tuple(range(16)))
    with pytest.raises(UserError, match=r"^the model's complement_map does not pair A with T"):
        inference.embed(model, ["ACGT"])
    assert inference.embed(model, ["ACGT"], rc_mode="none").shape == (1, 16)


def test_bad_arguments_are_one_sentence(ps):
    with pytest.raises(UserError, match=r"^sequence 1 \(0-based\) is empty$"):
        inference.embed(ps, ["ACGT", ""])
    with pytest.raises(UserError, match=r"^batch_size is 0; it must be at least 1$"):
        inference.embed(ps, ["ACGT"], batch_size=0)
    ids = np.full((2, 8), 7)
    with pytest.raises(UserError, match=r"^positions must be 2 indices from 0 to 7, one per sequ"):
        inference.masked_log_probabilities(ps, ids, np.array([0, 8]))


@pytest.mark.parametrize(("kind", "layer", "count"), [("ps released", 1, 1), ("ph", -2, 2)])
def test_a_layer_is_a_model_of_its_first_blocks(kind, layer, count, build, draw, kinds):
    """An odd number of strand swaps included."""
    model = build(**kinds[kind], n_layer=3)
    embed_tokens = functools.partial(inference.embed_tokens, sequences=draw(24), concatenate=True)
    got = embed_tokens(model, layer=layer)
    np.testing.assert_allclose(got, embed_tokens(first_blocks(model, count)), atol=1e-6)
    final = embed_tokens(model)
    np.testing.assert_array_equal(embed_tokens(model, layer=-1), final)
    np.testing.assert_array_equal(embed_tokens(model, layer=3), final)
    assert np.abs(got[0] - final[0]).max() > 1e-2


def test_every_layer_exchanges_its_halves_on_the_other_strand(model, draw):
    (sequence,) = draw(33)
    both = inference.embed(model, [sequence], concatenate=True, layer=1)
    other = inference.embed(model, [reverse_complement(sequence)], concatenate=True, layer=1)
    np.testing.assert_allclose(np.roll(other, 16, axis=1), both, atol=1e-5)


def test_a_layer_is_not_the_originals_hidden_state(ps, draw):
    """The stream holds the embedding and every block's output, the original's the last of them."""
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    inputs = ps(ids, output_hidden_states=True).hidden_states
    assert inputs is not None
    stream = inputs[0] + inputs[1]  # d_model 16 of strand 0, in front
    norm = ps.caduceus.norm_f(stream[0, :, :16])
    got = inference.embed_tokens(ps, draw(24), layer=1, rc_mode="none")
    np.testing.assert_allclose(got[0], norm, atol=1e-5)


def test_a_window_in_the_middle(ps, draw):
    """Of 24 and 9 tokens: windows of 5 and 4 around indices 12 and 4, and all of them."""
    tokens = inference.embed_tokens(ps, draw(24, 9))
    for window, spans in {
        5: ((10, 15), (2, 7)),
        4: ((10, 14), (2, 6)),
        30: ((0, 24), (0, 9)),
    }.items():
        got = inference.embed(ps, draw(24, 9), pooling="window", window=window)
        expected = [tokens[i][slice(*spans[i])].mean(axis=0) for i in range(2)]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_half_a_base_counts_half(ps, draw):
    (states,) = inference.embed_tokens(ps, draw(24))
    ((_, got),) = inference.iterate_embeddings(ps, draw(24), np.array([[3, 8]]), reading(ps, None))
    np.testing.assert_allclose(got, (states[1] / 2 + states[2] + states[3]) / 2.5, atol=1e-5)


def test_layers_and_windows_that_are_not_there(ps):
    for layer in (0, 3, -3):
        with pytest.raises(
            UserError, match=f"^layer is {layer} and the model has 2 blocks: it is f"
        ):
            inference.embed(ps, ["ACGT"], layer=layer)
    with pytest.raises(UserError, match=r"^pooling window and a window, its length in bases, go"):
        inference.embed(ps, ["ACGT"], pooling="window")
    with pytest.raises(UserError, match=r"^pooling window and a window, its length in bases, go"):
        inference.embed(ps, ["ACGT"], window=5)
    with pytest.raises(UserError, match=r"^window is 0; it must be at least 1$"):
        inference.embed(ps, ["ACGT"], pooling="window", window=0)
