import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import checkify

import caduceus_jax as cj
from caduceus_jax.model import inputs, linear_head
from tests.models import COMPLEMENT, classifier, language_model, random_ids, randomised
from tests.tolerances import EQUIVARIANCE, SCAN_FP32, relative_error

BASES = np.asarray([7, 8, 9, 10])


def bases(length=24):
    return BASES[np.random.default_rng(2).integers(0, 4, (2, length))].astype(np.int32)


def one_hot(ids, width=4):
    table = np.eye(16, dtype=np.float32)
    return jnp.asarray(table[ids][..., BASES] if width == 4 else table[ids])


def models():
    small = {"n_layer": 1, "d_state": 4}
    tracks = cj.CaduceusConfig(d_model=24, rcps=True, **small)
    return {
        "ps": language_model(**small),
        "ph": language_model(**small, rcps=False),
        "swap": language_model(**small, fused_add_norm=True),
        "posthoc": classifier(rc_mode="posthoc", **small),
        "classifier": classifier(**small, rcps=True),
        "tracks": randomised(
            lambda: cj.CaduceusForTracks(tracks, num_tracks=2, bin_size=4, rngs=nnx.Rngs(0))
        ),
    }


@pytest.fixture(scope="module")
def every():
    return models()


@jax.jit
def outputs(model, ids, few, all_tokens):
    return (
        model(ids).logits,
        model(inputs_one_hot=few).logits,
        model(inputs_one_hot=all_tokens).logits,
    )


@pytest.mark.parametrize("kind", ["ps", "ph", "swap", "posthoc", "classifier", "tracks"])
def test_a_one_hot_input_is_the_token(every, kind):
    ids = bases()
    expected, *found = outputs(every[kind], jnp.asarray(ids), one_hot(ids), one_hot(ids, 16))
    for logits in found:
        assert relative_error(logits, expected) < SCAN_FP32


@pytest.mark.parametrize("kind", ["ps", "ph"])
def test_embeddings_are_those_of_the_tokens(every, kind):
    model, ids = every[kind], bases()
    table = np.asarray(model.caduceus.embedding[...])
    embeds = table[ids]
    if model.config.rcps:  # the original's layout: channels of the second strand are reversed
        embeds = np.concatenate([embeds, table[COMPLEMENT[ids]][..., ::-1]], axis=-1)
    call = jax.jit(lambda m, i, e: (m(i).logits, m(inputs_embeds=e).logits))
    expected, found = call(model, jnp.asarray(ids), jnp.asarray(embeds))
    assert relative_error(found, expected) < SCAN_FP32


def test_the_gradient_by_base_is_that_of_both_strands(every):
    """Along a change from one base to another, by finite differences."""
    model, ids = every["ps"], bases()
    weights, other = one_hot(ids), one_hot(ids[:, ::-1].copy())
    score = jax.jit(lambda w: jnp.sum(jnp.sin(model(inputs_one_hot=w).logits)))
    slope = float(jnp.vdot(jax.jit(jax.grad(score))(weights), other - weights))
    step = 1e-2
    ahead, behind = (float(score(weights + s * step * (other - weights))) for s in (1, -1))
    assert abs((ahead - behind) / (2 * step) - slope) < 2e-2 * abs(slope)


@pytest.mark.parametrize("kind", ["ps", "swap", "posthoc"])
def test_gradients_by_base_are_equivariant(every, kind):
    """The gradient for the reverse complement is the gradient, turned around."""
    model, ids = every[kind], bases()
    # Alike on both strands: a score of the logits that the reverse complement does not change.
    score = lambda w: jnp.sum(model(inputs_one_hot=w).logits ** 2)  # noqa: E731
    gradient = jax.jit(jax.grad(score))
    there = gradient(one_hot(ids))
    back = gradient(one_hot(COMPLEMENT[ids][:, ::-1]))
    scale = float(jnp.abs(there).max())
    assert float(jnp.abs(back[:, ::-1, ::-1] - there).max()) < EQUIVARIANCE * max(scale, 1)


def test_two_bases_at_once_lie_between_them(every):
    model, ids = every["ph"], bases()
    mixed = (one_hot(ids) + one_hot(COMPLEMENT[ids])) / 2
    hidden = jax.jit(lambda w: model.caduceus(inputs_one_hot=w, n_blocks=0).state)(mixed)
    embedding = model.caduceus.embedding[...]
    mean = (embedding[ids] + embedding[COMPLEMENT[ids]]) / 2
    expected = model.caduceus.norm_f(mean[:, None])
    assert relative_error(hidden, expected) < SCAN_FP32


IDS = random_ids(8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS[0],), r"input_ids has shape \(8,\); it is \(batch, length\); add .* input_ids\[None"),
        ((IDS[None],), r"input_ids has shape \(1, 2, 8\); it is \(batch, length\)"),
        ((IDS.astype(np.float32),), "input_ids is float32; token ids are integers"),
        ((IDS > 3,), "input_ids is bool; token ids are integers"),
        (([[7, 8], [9]],), "input_ids is a list of lists of different lengths"),
        ((IDS[:, :0],), "input_ids has length 0"),
        ((np.full((1, 4), 99),), "input_ids holds 99, and the model's tokens .* are 0 to 15"),
        ((np.full((1, 4), -1),), "input_ids holds -1, and the model's tokens"),
        ((jnp.full((1, 4), 16),), "input_ids holds 16"),
        ((IDS, np.ones((2, 5), bool)), r"padding_mask has shape \(2, 5\); .* inputs, \(2, 8\)"),
        ((IDS, np.ones((1, 8), bool)), r"padding_mask has shape \(1, 8\)"),
        ((IDS, np.ones(8, bool)), r"padding_mask has shape \(8,\)"),
        ((), "a model reads one of input_ids, .*, and none of them is given"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(every, arguments, message):
    with pytest.raises(cj.UserError, match=message):
        every["ps"](*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs_one_hot": np.ones((2, 8, 5))}, "inputs_one_hot has shape .* length, 4 or 16"),
        ({"inputs_one_hot": np.ones((2, 8, 4), complex)}, "is complex128; it holds real numbers"),
        ({"inputs_embeds": np.ones((2, 8, 24))}, "inputs_embeds has shape .* length, 48"),
        (
            {"inputs_embeds": np.ones((2, 8, 48)), "input_ids": IDS},
            "input_ids and inputs_embeds is given",
        ),
    ],
    ids=str,
)
def test_other_forms_are_refused_by_name(every, options, message):
    with pytest.raises(cj.UserError, match=message):
        every["ps"](**options)
    with pytest.raises(cj.UserError, match="tells nothing of the other strand"):
        every["posthoc"](inputs_embeds=np.ones((2, 8, 24), np.float32))


def test_four_columns_need_a_tokenizer(golden):
    config = cj.CaduceusConfig(d_model=8, vocab_size=8, complement_map=tuple(range(8)))
    with pytest.raises(cj.UserError, match="has no tokenizer that tells which tokens"):
        inputs.checked(config, None, None, None, np.ones((1, 4, 4)))
    tokenizer = cj.Tokenizer.from_pretrained(golden / "ps_vocabulary8")
    assert inputs.checked(config, tokenizer, None, None, np.ones((1, 4, 4))).one_hot is not None


def test_lists_and_numbers_are_read_as_arrays(every):
    found = inputs.checked(every["ps"].config, None, IDS.tolist(), [[1] * 8, [0] * 8])
    np.testing.assert_array_equal(found.ids, IDS)
    assert found.padding_mask.dtype == bool and not found.padding_mask[1].any()


def test_a_compiled_function_makes_wrong_tokens_visible(every):
    model = every["ps"]
    run = jax.jit(lambda ids: model(ids).logits)
    ids = jnp.asarray(IDS).at[0, 3].set(99)
    logits = run(ids)
    assert jnp.isnan(logits[0]).any() and jnp.isfinite(logits[1]).all()
    assert jnp.isnan(run(ids.at[0, 3].set(-1))[0]).any()
    checked = checkify.checkify(run, errors=checkify.index_checks)
    assert "out-of-bounds indexing" in checked(ids)[0].get()
    assert checked(jnp.asarray(IDS))[0].get() is None


def test_a_model_of_shapes_says_so():
    config = cj.CaduceusConfig(d_model=8, n_layer=1)
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    with pytest.raises(cj.UserError, match="the model has shapes in place of parameters"):
        model(IDS)
    assert jax.eval_shape(lambda m: m(IDS).logits, model).shape == (2, 8, 16)


def test_a_batch_of_none(every):
    assert every["ps"](IDS[:0]).logits.shape == (0, 8, 16)
    assert every["classifier"](IDS[:0]).logits.shape == (0, 3)


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last"])
def test_pooling_a_row_of_padding_is_finite(pooling):
    mask = jnp.ones((2, 8), bool).at[0, :3].set(False).at[1].set(False)
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 8, 5)), jnp.float32)
    pool = lambda hidden: linear_head.pool(hidden, mask, pooling)  # noqa: E731
    gradient = jax.grad(lambda hidden: pool(hidden).sum())(hidden)
    assert jnp.isfinite(pool(hidden)).all() and jnp.isfinite(gradient).all()
    assert not pool(hidden)[1].any() and not gradient[1].any()
    alone = linear_head.pool(hidden[:1, :, 3:], jnp.ones((1, 5), bool), pooling)
    np.testing.assert_allclose(pool(hidden)[:1], alone, atol=1e-6)


def test_a_row_of_padding_leaves_the_others_as_they_are():
    model = classifier(n_layer=1, d_state=4)
    mask = jnp.ones((2, 8), bool).at[1].set(False)

    @jax.jit
    def run(model):
        def loss(model):
            logits = model(IDS, mask).logits
            return (logits * jnp.asarray([[1.0], [0.0]])).sum(), logits

        return jax.value_and_grad(loss, has_aux=True)(model), model(IDS[:1]).logits

    ((value, logits), gradient), alone = run(model)
    assert jnp.isfinite(value) and jnp.isfinite(logits).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert relative_error(logits[:1], alone) < SCAN_FP32
