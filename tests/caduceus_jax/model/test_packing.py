"""Sequences packed into a row are read as if each were alone in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.model.files.task import Pooling
from tests.models import classifier, language_model
from tests.tolerances import PADDING

LENGTHS = (7, 1, 9, 4)
SMALL = {"n_layer": 2, "d_state": 4}
MODELS = {
    "ps": lambda: language_model(**SMALL),
    "swap": lambda: language_model(**SMALL, fused_add_norm=True),
    "ph": lambda: language_model(**SMALL, rcps=False),
    "untied": lambda: language_model(**SMALL, bidirectional_weight_tie=False),
    "unidirectional": lambda: language_model(**SMALL, bidirectional=False),
}


def packed():
    """One row of four sequences and padding, and each sequence alone."""
    rng = np.random.default_rng(0)
    alone = [rng.integers(7, 11, (1, n)).astype(np.int32) for n in LENGTHS]
    ids = np.concatenate([*alone, np.full((1, 3), 4, np.int32)], axis=1)
    numbers = np.repeat([1, 2, 3, 4, 0], [*LENGTHS, 3])[None]
    return jnp.asarray(ids), jnp.asarray(numbers), [jnp.asarray(a) for a in alone]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(x, marks=() if x == "ps" else pytest.mark.slow) for x in MODELS],
)
def test_packed_is_separate(kind):
    """Values, and gradients of the parameters."""
    model = MODELS[kind]()
    ids, numbers, alone = packed()

    def together(model):
        logits = model(ids, segment_ids=numbers).logits[:, : sum(LENGTHS)]
        return jnp.sum(jnp.tanh(logits)), logits

    def separate(model):
        logits = jnp.concatenate([model(a).logits for a in alone], axis=1)
        return jnp.sum(jnp.tanh(logits)), logits

    def run(f):
        return jax.jit(jax.value_and_grad(f, has_aux=True))(model)

    (_, found), gradient = run(together)
    (_, expected), gradient_alone = run(separate)
    assert float(jnp.abs(found - expected).max()) < PADDING
    for one, other in zip(*map(jax.tree.leaves, (gradient, gradient_alone)), strict=True):
        scale = max(1.0, float(jnp.abs(other).max()))
        assert float(jnp.abs(one - other).max()) < PADDING * scale


@pytest.mark.parametrize(
    ("rc_mode", "poolings"),
    [
        (None, ("mean", "max", "first", "last")),
        ("posthoc", ("mean", "last")),
        pytest.param("posthoc", ("max", "first"), marks=pytest.mark.slow),
    ],
)
def test_each_packed_sequence_is_pooled_by_itself(rc_mode, poolings: tuple[Pooling, ...]):
    ids, numbers, alone = packed()
    models = {p: classifier(p, rc_mode, n_layer=1, d_state=4) for p in poolings}

    @jax.jit
    def run(models):
        return {
            pooling: (
                model(ids, segment_ids=numbers, num_segments=5).logits,
                jnp.concatenate([model(a).logits for a in alone]),
            )
            for pooling, model in models.items()
        }

    for found, expected in run(models).values():
        assert found.shape == (1, 5, 3)
        assert float(jnp.abs(found[0, :4] - expected).max()) < PADDING
        assert jnp.isfinite(found).all()


@pytest.mark.usefixtures("shapes_unchecked")
def test_wrong_numbers_of_sequences_are_refused():
    ids, numbers, _ = packed()
    model = classifier(n_layer=1)
    for options, message in (
        ({"segment_ids": numbers}, "segment_ids and num_segments belong together"),
        ({"segment_ids": numbers[:, 1:], "num_segments": 4}, r"segment_ids has shape \(1, 23\)"),
        ({"segment_ids": numbers > 1, "num_segments": 4}, "segment_ids is bool"),
        ({"segment_ids": numbers, "num_segments": 0}, "num_segments is 0; .* positive integer"),
        ({"segment_ids": numbers, "num_segments": -2}, "num_segments is -2; .* positive integer"),
        ({"segment_ids": numbers, "num_segments": 4.0}, "num_segments is float; .* positive int"),
        ({"segment_ids": numbers, "num_segments": True}, "num_segments is True; .* positive int"),
        ({"segment_ids": numbers, "num_segments": "4"}, "num_segments is str; .* positive int"),
        ({"segment_ids": numbers, "num_segments": 3}, "segment_ids holds 4, and .* are 0 to 3$"),
        ({"segment_ids": -numbers, "num_segments": 4}, "segment_ids holds -4, and .* are 0 to 4$"),
    ):
        with pytest.raises(cj.UserError, match=message):
            model(ids, **options)
    with pytest.raises(cj.UserError, match="num_segments is .*Tracer; .* known while"):
        jax.jit(lambda n: model(ids, segment_ids=numbers, num_segments=n).logits)(4)


@pytest.mark.slow  # by default, those of the kernels: tests/kernels/test_packed_sequences.py
def test_transformations_of_packed_sequences():
    """Forward mode, all examples at once, and soft bases, each as separate sequences have them."""
    ids, numbers, alone = packed()
    model = classifier(n_layer=1, d_state=4)
    starts = np.cumsum((0, *LENGTHS))
    soft = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).normal(size=(1, 24, 4))))
    soft = soft.astype(jnp.float32)

    def together(model, soft):
        return model(ids, segment_ids=numbers, num_segments=4).logits[0], model(
            inputs_one_hot=soft, segment_ids=numbers, num_segments=4
        ).logits[0]

    def separate(model, soft):
        cut = [soft[:, a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
        by_base = [model(inputs_one_hot=x).logits for x in cut]
        return jnp.concatenate([model(a).logits for a in alone]), jnp.concatenate(by_base)

    @jax.jit
    def run(model):
        given = (model, soft), (model, jnp.cos(soft))
        many = jax.vmap(
            lambda ids, numbers: model(ids, segment_ids=numbers, num_segments=4).logits[0]
        )(jnp.stack([ids] * 2), jnp.stack([numbers] * 2))
        return jax.jvp(together, *given), jax.jvp(separate, *given), many

    found, expected, many = run(model)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        scale = max(1.0, float(jnp.abs(other).max()))
        assert float(jnp.abs(one - other).max()) < PADDING * scale
    for one in many:
        assert float(jnp.abs(one - expected[0][0]).max()) < PADDING


def test_bytes_number_segments_too():
    """Places beyond 255 are empty, not those of sequences whose numbers are the same in a byte."""
    ids, numbers, _ = packed()
    model = classifier(n_layer=1, d_state=4)
    run = jax.jit(lambda numbers: model(ids, segment_ids=numbers, num_segments=258).logits)
    found, expected = run(numbers.astype(jnp.uint8)), run(numbers)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0, 5:], jnp.broadcast_to(found[0, 5], found[0, 5:].shape))
