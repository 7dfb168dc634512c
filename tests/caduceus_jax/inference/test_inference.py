"""Embeddings and masked log-probabilities: right by hand, on both strands, in any batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from caduceus_jax import CaduceusConfig, CaduceusForMaskedLM, Tokenizer, UserError, inference
from caduceus_jax.inference import batches
from caduceus_jax.inference.batches import plan
from tests.models import randomised

KINDS = {
    "ps": {"rcps": True},
    "ps released": {"rcps": True, "fused_add_norm": True},
    "ph": {},
    "one direction": {"bidirectional": False},
}
PLANT_TOKENS = {t: i for i, t in enumerate(("[PAD]", "[MASK]", "[UNK]", *"acgt"))}


run = jax.jit(lambda model, ids: model(ids))


@functools.cache
def build(**fields) -> CaduceusForMaskedLM:
    config = CaduceusConfig(**{"d_model": 16, "n_layer": 2} | fields)
    return randomised(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))


@pytest.fixture(params=KINDS)
def model(request):
    return build(**KINDS[request.param])


@pytest.fixture
def ps():
    return build(rcps=True)


def draw(*lengths: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), length)) for length in lengths]


def reverse_complement(sequence: str) -> str:
    return sequence.translate(str.maketrans("ACGT", "TGCA"))[::-1]


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


def test_masked_log_probabilities_are_the_same_from_the_other_strand(model):
    tokenizer = Tokenizer()
    ids = np.stack([tokenizer.encode(sequence) for sequence in draw(41, 41, 41, 41)])
    positions = np.array([0, 7, 20, 40])
    got = inference.masked_log_probabilities(model, ids, positions)
    other = inference.masked_log_probabilities(
        model, tokenizer.reverse_complement(ids), 40 - positions
    )
    np.testing.assert_allclose(other[:, ::-1], got, atol=1e-5)


def test_both_strands_matter():
    """A model that is not equivariant says something else from one strand alone."""
    model = build()
    ids = Tokenizer().encode(draw(41)[0])[None]
    got = inference.masked_log_probabilities(model, ids, np.array([20]))
    logits = run(model, jnp.asarray(ids).at[0, 20].set(3)).logits[0, 20]
    alone = jax.nn.log_softmax(logits)[jnp.array([7, 8, 9, 10])]
    assert np.abs(got[0] - alone).max() > 1e-2


def test_masked_log_probabilities_of_an_equivariant_model_are_its_own(ps):
    ids = Tokenizer().encode(draw(41)[0])[None]
    got = inference.masked_log_probabilities(ps, ids, np.array([20]))
    logits = run(ps, jnp.asarray(ids).at[0, 20].set(3)).logits[0, 20]
    expected = jax.nn.log_softmax(logits)[jnp.array([7, 8, 9, 10])]
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_rows_out_are_rows_in(ps, batch_size):
    """Whatever the batch, and whether or not it divides among the four devices."""
    ids = np.stack([Tokenizer().encode(sequence) for sequence in draw(*[24] * 7)])
    positions = np.arange(7) * 3
    got = inference.masked_log_probabilities(ps, ids, positions, batch_size=batch_size)
    one_by_one = [
        inference.masked_log_probabilities(ps, ids[i : i + 1], positions[i : i + 1], batch_size=1)
        for i in range(7)
    ]
    np.testing.assert_allclose(got, np.concatenate(one_by_one), atol=1e-5)


def test_no_rows_give_no_rows(ps):
    ids, positions = np.empty((0, 24), np.int32), np.empty(0, np.int64)
    assert inference.masked_log_probabilities(ps, ids, positions).shape == (0, 4)
    assert inference.embed(ps, [], strands="concatenate").shape == (0, 32)
    assert inference.embed_tokens(ps, []) == []


def test_a_batch_that_divides_is_spread_over_all_devices(ps, monkeypatch):
    seen, rows = [], batches._rows
    monkeypatch.setattr(
        batches, "_rows", lambda batch, out: seen.append(len(out.devices())) or rows(batch, out)
    )
    inference.embed(ps, draw(*[24] * 8), batch_size=8)
    inference.embed(ps, draw(*[24] * 3), batch_size=3)
    assert seen == [4, 1]


def test_embeddings_are_the_models_hidden_states(ps):
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    state = np.asarray(
        run(ps, ids).last_hidden_state[0]
    )  # the original's layout: second half reversed
    first, second = state[:, :16], state[:, :15:-1]
    (tokens,) = inference.embed_tokens(ps, draw(24), strands="concatenate")
    np.testing.assert_allclose(tokens, np.concatenate([first, second], axis=1), atol=1e-5)
    (tokens,) = inference.embed_tokens(ps, draw(24))
    np.testing.assert_allclose(tokens, (first + second) / 2, atol=1e-5)
    got = inference.embed(ps, draw(24), strands="forward")
    np.testing.assert_allclose(got, first.mean(axis=0)[None], atol=1e-5)
    got = inference.embed(ps, draw(24), pooling="center")
    np.testing.assert_allclose(got, (first + second)[None, 12] / 2, atol=1e-5)


def test_forward_embeddings_read_one_strand_of_a_model_that_has_one():
    model = build()
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    expected = np.asarray(run(model, ids).last_hidden_state[0])
    (tokens,) = inference.embed_tokens(model, draw(24), strands="forward")
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    assert np.abs(inference.embed_tokens(model, draw(24))[0] - expected).max() > 1e-2


def test_the_other_strand_exchanges_the_halves_of_an_embedding(model):
    """And so leaves their average as it is."""
    sequences = draw(33, 33)
    others = [reverse_complement(sequence) for sequence in sequences]
    both = inference.embed(model, sequences, strands="concatenate")
    swapped = inference.embed(model, others, strands="concatenate")
    np.testing.assert_allclose(np.roll(swapped, 16, axis=1), both, atol=1e-5)
    assert np.abs(both[:, :16] - both[:, 16:]).max() > 1e-2


def test_averaged_embeddings_do_not_depend_on_the_strand(ps):
    sequences = draw(33, 33)
    others = [reverse_complement(sequence) for sequence in sequences]
    for pooling in ("mean", "center"):  # of an odd length, the centre is the same base
        got = inference.embed(ps, others, pooling=pooling)
        np.testing.assert_allclose(got, inference.embed(ps, sequences, pooling=pooling), atol=1e-5)


def test_lengths_mix_and_padding_does_not_show(ps):
    sequences = draw(40, 1, 33, 40, 2)
    got = inference.embed(ps, sequences, batch_size=2)
    tokens = inference.embed_tokens(ps, sequences, batch_size=2)
    assert [state.shape for state in tokens] == [(len(s), 16) for s in sequences]
    np.testing.assert_allclose(got, [state.mean(axis=0) for state in tokens], atol=1e-5)
    for i in (1, 2):
        alone = inference.embed_tokens(ps, [sequences[i]])
        np.testing.assert_allclose(tokens[i], alone[0], atol=1e-5)


def test_center_is_counted_on_real_tokens(ps):
    got = inference.embed(ps, draw(24, 9), pooling="center")
    tokens = inference.embed_tokens(ps, draw(24, 9))
    np.testing.assert_allclose(got, np.stack([tokens[0][12], tokens[1][4]]), atol=1e-5)


def test_text_bytes_and_token_ids_are_the_same_sequence(ps):
    text = draw(24)[0]
    forms = [text, text.lower().encode(), Tokenizer().encode(text)]
    got = inference.embed(ps, forms)
    np.testing.assert_array_equal(got, got[:1].repeat(3, axis=0))


def test_few_shapes_are_compiled(monkeypatch):
    monkeypatch.setattr(batches, "_TOKENS_A_SHAPE", {"cpu": 0})
    lengths = np.random.default_rng(0).integers(1, 5_000, 2_000)
    planned = plan(lengths, batch_size=8)
    assert sorted(row for batch in planned for row in batch.rows) == list(range(2_000))
    shapes = {(batch.size, batch.length) for batch in planned}
    assert len(shapes) <= 18
    assert all(batch.length >= lengths[batch.rows].max() for batch in planned)
    long = [batch for batch in planned if batch.length > 32]
    assert all(batch.length < 2 * lengths[batch.rows].min() for batch in long)
    assert plan(np.full(5, 77), batch_size=None)[0].length == 77


def test_padding_replaces_a_shape_where_it_costs_less(monkeypatch):
    """Up to 64 for two rows are 32 tokens more, up to 200 for four rows are 544 more."""
    lengths = np.array([40, 64, 200, 60, 48])
    for most, expected in {100: [64, 64, 200, 64, 64], 10: [48, 64, 200, 64, 48]}.items():
        monkeypatch.setattr(batches, "_TOKENS_A_SHAPE", {"cpu": most})
        planned = {row: batch.length for batch in plan(lengths, 2) for row in batch.rows.tolist()}
        assert [planned[row] for row in range(5)] == expected


def test_several_masks_of_one_sequence_hide_each_other(model):
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


def test_another_vocabulary():
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


def test_a_model_without_complements_has_no_second_strand():
    model = build(complement_map=tuple(range(16)))
    with pytest.raises(UserError, match=r"^the model's complement_map does not pair A with T"):
        inference.embed(model, ["ACGT"])
    assert inference.embed(model, ["ACGT"], strands="forward").shape == (1, 16)


def test_bad_arguments_are_one_sentence(ps):
    with pytest.raises(UserError, match=r"^sequence 1 \(0-based\) is empty$"):
        inference.embed(ps, ["ACGT", ""])
    with pytest.raises(UserError, match=r"^batch_size is 0; it must be at least 1$"):
        inference.embed(ps, ["ACGT"], batch_size=0)
    ids = np.full((2, 8), 7)
    with pytest.raises(UserError, match=r"^positions must be 2 indices from 0 to 7, one a sequ"):
        inference.masked_log_probabilities(ps, ids, np.array([0, 8]))


def test_load_brings_the_tokenizer_of_the_folder(ps, tmp_path):
    ps.save_pretrained(str(tmp_path))
    model, tokenizer = inference.load(tmp_path)
    assert tokenizer.vocabulary == Tokenizer().vocabulary
    np.testing.assert_array_equal(inference.embed(model, draw(24)), inference.embed(ps, draw(24)))
    model, _ = inference.load(tmp_path, dtype="bfloat16")
    assert model.caduceus.dtype == jnp.bfloat16
    exact, close = (inference.embed(m, draw(24)) for m in (ps, model))
    assert 0 < np.abs(exact - close).max() < 0.1


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


@pytest.mark.parametrize(("kind", "layer", "count"), [("ps released", 1, 1), ("ph", -2, 2)])
def test_a_layer_is_a_model_of_its_first_blocks(kind, layer, count):
    """An odd number of strand swaps included."""
    model = build(**KINDS[kind], n_layer=3)
    embed_tokens = functools.partial(
        inference.embed_tokens, sequences=draw(24), strands="concatenate"
    )
    got = embed_tokens(model, layer=layer)
    np.testing.assert_allclose(got, embed_tokens(first_blocks(model, count)), atol=1e-6)
    final = embed_tokens(model)
    np.testing.assert_array_equal(embed_tokens(model, layer=-1), final)
    np.testing.assert_array_equal(embed_tokens(model, layer=3), final)
    assert np.abs(got[0] - final[0]).max() > 1e-2


def test_every_layer_exchanges_its_halves_on_the_other_strand(model):
    (sequence,) = draw(33)
    both = inference.embed(model, [sequence], strands="concatenate", layer=1)
    other = inference.embed(model, [reverse_complement(sequence)], strands="concatenate", layer=1)
    np.testing.assert_allclose(np.roll(other, 16, axis=1), both, atol=1e-5)


def test_a_layer_is_not_the_originals_hidden_state(ps):
    """The stream holds the embedding and every block's output, the original's the last of them."""
    ids = jnp.asarray(Tokenizer().encode(draw(24)[0]))[None]
    inputs = ps(ids, output_hidden_states=True).hidden_states
    assert inputs is not None
    stream = inputs[0] + inputs[1]  # d_model 16 of strand 0, in front
    norm = ps.caduceus.norm_f(stream[0, :, :16])
    got = inference.embed_tokens(ps, draw(24), layer=1, strands="forward")
    np.testing.assert_allclose(got[0], norm, atol=1e-5)


def test_a_window_in_the_middle(ps):
    """Of 24 and 9 tokens: windows of 5 and 4 around indices 12 and 4, and all of them."""
    tokens = inference.embed_tokens(ps, draw(24, 9))
    for window, spans in {
        5: ((10, 15), (2, 7)),
        4: ((10, 14), (2, 6)),
        30: ((0, 24), (0, 9)),
    }.items():
        got = inference.embed(ps, draw(24, 9), pooling="window", pool_window=window)
        expected = [tokens[i][slice(*spans[i])].mean(axis=0) for i in range(2)]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_half_a_base_counts_half(ps):
    (states,) = inference.embed_tokens(ps, draw(24))
    ((_, got),) = inference.iterate_embeddings(ps, draw(24), np.array([[3, 8]]))
    np.testing.assert_allclose(got, (states[1] / 2 + states[2] + states[3]) / 2.5, atol=1e-5)


def test_layers_and_windows_that_are_not_there(ps):
    for layer in (0, 3, -3):
        with pytest.raises(
            UserError, match=f"^layer is {layer} and the model has 2 blocks: it is f"
        ):
            inference.embed(ps, ["ACGT"], layer=layer)
    with pytest.raises(
        UserError, match=r"^pooling window and a pool_window, its length in bases, go"
    ):
        inference.embed(ps, ["ACGT"], pooling="window")
    with pytest.raises(
        UserError, match=r"^pooling window and a pool_window, its length in bases, go"
    ):
        inference.embed(ps, ["ACGT"], pool_window=5)
    with pytest.raises(UserError, match=r"^pool_window is 0; it must be at least 1$"):
        inference.embed(ps, ["ACGT"], pooling="window", pool_window=0)
