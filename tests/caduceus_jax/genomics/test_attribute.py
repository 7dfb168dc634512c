"""The verb `attribute`: rows, positions, strands, and a motif that is found again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax import UserError
from tests import genomes
from tests.models import classifier, language_model

FOUR = [f"attribution_{base}" for base in "ACGT"]
SEQUENCE = "".join(np.random.default_rng(0).choice(list("ACGT"), 41))
OTHER = SEQUENCE[::-1].translate(genomes.COMPLEMENT)


@pytest.fixture(scope="module")
def lm():
    return language_model(d_model=16, n_layer=1)


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return genomes.genome(tmp_path_factory.mktemp("genome") / "g.fa", {"chr1": SEQUENCE})


def test_rows_are_bases(lm):
    frame = cj.attribute(lm, [SEQUENCE, SEQUENCE[:20] + "N"])
    assert frame.columns == [
        *("name", "pos", "ref", "status", "attribution"),
        *(*FOUR, "output", "output_baseline"),
    ]
    assert "".join(frame["ref"].to_list()) == SEQUENCE + SEQUENCE[:20] + "N"
    assert frame["pos"].to_list() == [*range(1, 42), *range(1, 22)]
    assert frame["status"].to_list() == ["ok"] * 61 + ["ambiguous"]
    assert frame["attribution"][-1] is None and frame["attribution"].null_count() == 1
    own = [frame[f"attribution_{base}"][i] for i, base in enumerate(SEQUENCE)]
    assert frame["attribution"][:41].to_list() == own


@pytest.mark.parametrize(
    ("method", "window"),
    [
        ("gradient_x_input", None),
        ("integrated_gradients", 3),
        pytest.param("gradient_x_input", 3, marks=pytest.mark.slow),
        pytest.param("integrated_gradients", None, marks=pytest.mark.slow),
    ],
)
def test_the_other_strand_is_the_mirror_image(lm, method, window):
    frame = cj.attribute(lm, [SEQUENCE, OTHER], method=method, window=window, steps=8)
    one, other = (frame.filter(name=name).select(FOUR).to_numpy() for name in "01")
    np.testing.assert_allclose(other[::-1, ::-1], one, atol=1e-5 * np.abs(one).max())


def test_lengths_and_batches_change_nothing(lm):
    frame = cj.attribute(lm, [SEQUENCE, SEQUENCE[:33]], batch_size=2)
    alone = cj.attribute(lm, [SEQUENCE[:33]])
    both = frame.filter(name="1").select(FOUR).to_numpy()
    np.testing.assert_allclose(both, alone.select(FOUR).to_numpy(), atol=1e-5 * np.abs(both).max())


def test_regions_are_on_the_plus_strand_of_the_genome(genome):
    model = classifier(d_model=16, n_layer=1, num_labels=1)
    regions = [cj.Interval("chr1", 30, 41, "+"), cj.Interval("chr2", 1, 2), ("chr1", 5, 16, "-")]
    frame = cj.attribute(model, regions, genome=genome)
    assert frame["pos"].to_list() == [*range(31, 42), 2, *range(6, 17)]
    assert frame["status"].to_list() == ["ok"] * 11 + ["unknown_chrom"] + ["ok"] * 11
    # The model reads the - strand's 5' to 3', and the rows are those of the + strand.
    assert "".join(frame["ref"][12:].to_list()) == SEQUENCE[5:16]
    read = cj.attribute(model, [OTHER[25:36]]).select(FOUR).to_numpy()
    np.testing.assert_allclose(frame[12:].select(FOUR).to_numpy(), read[::-1, ::-1], atol=1e-5)


def test_what_lies_beyond_a_contig_has_no_rows(lm, genome):
    frame = cj.attribute(lm, "chr1:1-3", genome=genome, context_length=11)
    assert frame["pos"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert frame["chrom"].to_list() == ["chr1"] * 7


def test_a_window_fits_into_the_sequence(lm):
    with pytest.raises(UserError, match="0 has 5 bases, fewer than window, 7"):
        cj.attribute(lm, ["ACGTA"], window=7)
    with pytest.raises(UserError, match="method is 'saliency'; it is one of: gradient, "):
        cj.attribute(lm, ["ACGTA"], method="saliency")


@pytest.mark.slow
def test_a_planted_motif_is_found_again():
    motif, rng = [3, 2, 0, 1, 3, 1, 0], np.random.default_rng(0)  # TGACTCA

    def planted(count):
        ids, label = rng.integers(0, 4, (count, 40)), rng.integers(0, 2, count)
        at = rng.integers(0, 33, count)
        for i in np.flatnonzero(label):
            ids[i, at[i] : at[i] + 7] = motif
        return ids, label, at

    config = cj.CaduceusConfig(d_model=16, n_layer=1, rcps=True)
    model = cj.CaduceusForSequenceClassification(config, pooling="max", rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    adam = optax.adam(1e-2)
    state = adam.init(params)

    @jax.jit
    def step(params, state, ids, label):
        def loss(params):
            logits = nnx.merge(graph, params, rest)(ids).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        updates, state = adam.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(200):
        ids, label, _ = planted(32)
        params, state = step(params, state, jnp.asarray(ids + 7), jnp.asarray(label))
    model = nnx.merge(graph, params, rest)
    ids, label, at = planted(32)
    sequences = ["".join("ACGT"[base] for base in ids[i]) for i in np.flatnonzero(label)]
    for method in ("integrated_gradients", "mutagenesis"):
        frame = cj.attribute(model, sequences, method=method)
        values = frame["attribution"].to_numpy().reshape(-1, 40)
        found = [np.convolve(row, np.ones(7), "valid").argmax() for row in values]
        assert found == at[label == 1].tolist()


def test_parts_are_tables_of_one_kind(lm):
    frame = cj.attribute(lm, [])
    assert len(frame) == 0 and frame.schema["attribution"] == polars.Float32
