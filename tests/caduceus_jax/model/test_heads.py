import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.kernels import Reference, selective_scan
from caduceus_jax.model.backbone import Caduceus
from caduceus_jax.model.rcps import to_original_layout
from tests.models import (
    COMPLEMENT,
    classifier,
    forward,
    language_model,
    random_ids,
    randomised,
    reverse_complement,
)
from tests.tolerances import EQUIVARIANCE, MODEL_BF16, PADDING, SCAN_FP32, relative_error

KINDS = {
    "ps": {},
    "ps-swap": {"fused_add_norm": True},
    "ps-untied": {"bidirectional_weight_tie": False},
    "ph": {"rcps": False},
    "unidirectional": {"rcps": False, "bidirectional": False},
}


def padded(ids, left, right, pad=4):
    ids = np.pad(ids, ((0, 0), (left, right)), constant_values=pad)
    mask = np.ones(ids.shape, bool)
    mask[:, :left] = False
    mask[:, ids.shape[1] - right :] = False
    return jnp.asarray(ids), jnp.asarray(mask)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_leaves_no_trace(kind):
    model, ids = language_model(**KINDS[kind]), random_ids(length=30)
    forward = jax.jit(lambda m, i, mask: m(i, mask, output_hidden_states=True))
    alone = forward(model, jnp.asarray(ids), None)
    for left, right in ((17, 0), (0, 17), (9, 8)):
        out = forward(model, *padded(ids, left, right))
        real = slice(left, left + 30)
        assert np.abs(out.logits[:, real] - alone.logits).max() < PADDING
        for one, other in zip(out.hidden_states, alone.hidden_states, strict=True):
            assert np.abs(one[:, real] - other).max() < PADDING


def test_without_a_mask_padding_does_leave_a_trace():
    model, ids = language_model(), random_ids(length=30)
    out = forward(model, padded(ids, 17, 0)[0]).logits[:, 17:]
    assert np.abs(out - forward(model, ids).logits).max() > 1e-3


@pytest.mark.parametrize("rc_mode", [None, "posthoc", "equivariant"])
def test_classifiers_ignore_padding_and_agree_on_strands(rc_mode):
    equivariant = rc_mode == "equivariant"
    poolings = ("mean", "max", "first", "last")
    mode = None if equivariant else rc_mode
    models = {pooling: classifier(pooling, mode, rcps=equivariant) for pooling in poolings}
    ids = random_ids(length=30)

    @jax.jit
    def logits(models, ids, mask=None):
        return {pooling: model(ids, mask).logits for pooling, model in models.items()}

    alone = logits(models, jnp.asarray(ids))
    padding = [logits(models, *padded(ids, *sides)) for sides in ((17, 0), (0, 17), (9, 8))]
    other = logits(models, reverse_complement(ids))
    for pooling in poolings:
        assert alone[pooling].shape == (2, 3) and alone[pooling].dtype == jnp.float32
        for out in padding:
            assert np.abs(out[pooling] - alone[pooling]).max() < PADDING, pooling
        difference = np.abs(other[pooling] - alone[pooling]).max()
        assert difference > 1e-3 if rc_mode is None else difference < EQUIVARIANCE, pooling
    assert len({float(x.sum()) for x in alone.values()}) == 4


def test_first_and_last_pool_each_strand_from_its_own_end():
    model = classifier("first", rcps=True)
    ids = jnp.asarray(random_ids(length=30))
    hidden, _ = jax.jit(lambda m, i: m.caduceus(i))(model, ids)
    pooled = (hidden[:, 0, 0] + hidden[:, 1, -1]) / 2
    assert relative_error(forward(model, ids).logits, pooled @ model.score[...].T) < SCAN_FP32


def test_contradictions_are_refused():
    with pytest.raises(cj.UserError, match="contradicts an equivariant model"):
        cj.CaduceusForSequenceClassification(
            cj.CaduceusConfig(d_model=8, rcps=True), rc_mode="posthoc", rngs=nnx.Rngs(0)
        )
    with pytest.raises(cj.UserError, match="dtype is float16"):
        cj.CaduceusForMaskedLM(cj.CaduceusConfig(d_model=8), dtype=jnp.float16, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_remat_changes_memory_only():
    ids = jnp.asarray(random_ids())
    models = [language_model(n_layer=2, remat=remat) for remat in (False, True, "scans")]

    def loss(model):
        return cj.masked_lm_loss(model(ids).logits, ids)

    gradients = jax.jit(jax.value_and_grad(loss))
    (expected, gradient), *others = map(gradients, models)
    for found, again in others:
        assert relative_error(found, expected) < SCAN_FP32
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(again), strict=True):
            assert relative_error(a, b) < SCAN_FP32


def test_remat_keeps_one_array_a_block():
    length, temporary = 2048, {}
    ids = jnp.zeros((1, length), jnp.int32)
    for depth in (2, 4):
        model = language_model(n_layer=depth, remat=True)
        gradient = jax.jit(jax.grad(lambda model: model(ids).logits.sum()))
        analysis = gradient.lower(model).compile().memory_analysis()
        temporary[depth] = analysis.temp_size_in_bytes
    stream = 2 * length * model.config.d_model * 4  # both strands
    kept = (temporary[4] - temporary[2]) / 2
    assert 0.95 * stream < kept < 1.2 * stream


def test_bfloat16_activations():
    ids = jnp.asarray(random_ids())
    model = language_model()
    narrow = language_model(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("float32")}
    out = forward(narrow, ids)
    assert out.logits.dtype == jnp.float32 and out.last_hidden_state.dtype == jnp.bfloat16
    assert relative_error(out.logits, forward(model, ids).logits) < MODEL_BF16


def test_the_scan_is_a_seam():
    ids, calls = jnp.asarray(random_ids()), []

    def spy(*args, **kwargs):
        calls.append(args[0].shape)
        return selective_scan(*args, **kwargs, implementation=Reference())

    config = cj.CaduceusConfig(d_model=24, n_layer=3, rcps=True)
    model = randomised(lambda: cj.CaduceusForMaskedLM(config, scan=spy, rngs=nnx.Rngs(0)))
    calls.clear()
    expected = forward(language_model(), ids).logits
    assert relative_error(forward(model, ids).logits, expected) < SCAN_FP32
    # Two directions, traced once for all layers, both strands of both sequences in one call.
    assert calls == [(4, 50, 48)] * 2


def test_blocks_are_a_loop_over_stacked_parameters():
    ids = jnp.asarray(random_ids())
    model = language_model(fused_add_norm=True)
    residual = model.caduceus.embedding[...][jnp.stack([ids, jnp.asarray(COMPLEMENT)[ids]], axis=1)]
    apply = jax.jit(lambda block, residual: block(residual))
    for i in range(3):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], model.caduceus.layers)
        residual, _ = apply(block, residual)
    final = model.caduceus.norm_f(residual)
    assert (
        relative_error(to_original_layout(final), forward(model, ids).last_hidden_state) < SCAN_FP32
    )


def test_initial_parameters_are_distributed_as_in_the_original():
    config = cj.CaduceusConfig(d_model=128, n_layer=4, rcps=True)
    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    mixer = model.caduceus.layers.mixer
    assert not np.array_equal(mixer.fwd.x_proj[0], mixer.fwd.x_proj[1])
    np.testing.assert_allclose(np.exp(mixer.rev.a_log[...])[3, 17], np.arange(1, 17), rtol=1e-6)
    np.testing.assert_array_equal(mixer.fwd.d_skip[...], 1)
    dt = np.log1p(np.exp(np.asarray(mixer.fwd.delta_bias[...])))
    assert dt.min() >= 1e-3 * 0.999 and dt.max() <= 0.1 * 1.001
    assert abs(np.log(dt).mean() - np.log(1e-2)) < 0.15
    embedding = np.asarray(model.caduceus.embedding[...])
    assert abs(embedding.std() - 0.02) < 1e-3
    # PyTorch's default, +-1/sqrt(inputs); out_proj divided by sqrt(n_layer).
    bounds = {
        "in_proj": 128**-0.5,
        "out_proj": (256 * 4) ** -0.5,
        "x_proj": 256**-0.5,
        "dt_proj": 8**-0.5,
        "conv_weight": 4**-0.5,
    }
    found = {
        "in_proj": mixer.in_proj.kernel,
        "out_proj": mixer.out_proj.kernel,
        "x_proj": mixer.fwd.x_proj,
        "dt_proj": mixer.fwd.dt_proj,
        "conv_weight": mixer.rev.conv_weight,
    }
    for name, bound in bounds.items():
        largest = np.abs(found[name][...]).max()
        assert 0.97 * bound < largest <= bound, name


def test_compile_time_does_not_grow_with_depth():
    def text(n_layer):
        config = cj.CaduceusConfig(d_model=8, n_layer=n_layer, rcps=True)
        model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
        return (
            jax.jit(lambda m, i: m(i).logits).lower(model, jnp.zeros((1, 8), jnp.int32)).as_text()
        )

    assert len(text(9)) < 1.02 * len(text(2))


def test_gradients_of_long_sequences_do_not_saturate_in_bfloat16():
    """A token's embedding adds up gradients over all places where the token occurs."""
    ids = jnp.asarray(np.random.default_rng(0).integers(7, 11, (1, 8192)))
    weight = 1 + jnp.arange(8.0)[None, None, None]

    def gradient(dtype):
        config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4)
        model = randomised(lambda: Caduceus(config, dtype=dtype, rngs=nnx.Rngs(0)))

        @jax.jit
        def run(model):
            # The final norm of the embedding alone: no block is in the way.
            return jax.grad(lambda m: jnp.sum(m(ids, n_blocks=0)[0] * weight, dtype=jnp.float32))(
                model
            )

        return run(model).embedding[...]

    assert relative_error(gradient(jnp.bfloat16), gradient(jnp.float32)) < MODEL_BF16
