import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import has_decay, make_optimizer, make_schedule
from caduceus_jax.train.sharding import path_name
from tests import parity
from tests.tolerances import PARITY_TRAINING

CONFIG = OptimizerConfig(lr=1.0, lr_init=0.1, lr_min=0.2, warmup_fraction=0.25)


@pytest.mark.parametrize(
    ("step", "rate"),
    # 2 of 8 steps rise from 0.1 to 1; 6 fall along half a cosine to 0.2.
    [(0, 0.1), (1, 0.55), (2, 1.0), (5, 0.6), (8, 0.2), (100, 0.2)],
)
def test_schedule_by_hand(step, rate):
    np.testing.assert_allclose(make_schedule(CONFIG, 8)(step), rate, rtol=1e-6)


def test_a_run_without_warmup_starts_at_the_top():
    config = OptimizerConfig(lr=1.0, lr_min=0.0, warmup_fraction=0.0)
    np.testing.assert_allclose(make_schedule(config, 4)(0), 1.0)


def _params(**overrides):
    config = cj.CaduceusConfig(d_model=16, n_layer=2, bias=True, **overrides)
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    return nnx.state(model, nnx.Param)


def _decayed(params):
    marked = jax.tree_util.tree_leaves_with_path(has_decay(params))
    return {path_name(path) for path, decayed in marked if decayed}


def test_decay_spares_embedding_biases_a_and_d_but_not_rmsnorm():
    projections = {"in_proj/kernel", "out_proj/kernel"}
    for direction in ("fwd", "rev"):
        cores = ("conv_weight", "dt_proj", "x_proj")
        projections |= {f"{direction}/{name}" for name in cores}
    expected = {f"caduceus/layers/mixer/{name}" for name in projections}
    norms = {"caduceus/layers/norm/scale", "caduceus/norm_f/scale"}
    assert _decayed(_params()) == expected | norms
    # The original's hooks leave nn.LayerNorm alone and do not know its own RMSNorm.
    assert _decayed(_params(rms_norm=False)) == expected
    # An untied head is a linear layer like any other.
    assert _decayed(_params(tie_word_embeddings=False)) == expected | norms | {"lm_head"}


def test_one_step_by_hand():
    # The norm is 5, so the gradient is clipped to (0.6, 0.8); the first update of Adam is then
    # the sign, and the decay of weight pulls the kernel but not the bias.
    params = {"layer": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    grads = {"layer": {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}}
    config = OptimizerConfig(lr=0.5, lr_min=0.5, warmup_fraction=0.0, weight_decay=0.1)
    optimizer = make_optimizer(config, 10)
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["layer"]["kernel"], 2 - 0.5 * (1 + 0.1 * 2), rtol=1e-6)
    np.testing.assert_allclose(after["layer"]["bias"], 2 - 0.5 * 1, rtol=1e-6)
    first_moment = optax.tree.get(state, "mu")["layer"]
    np.testing.assert_allclose(first_moment["kernel"], 0.1 * 0.6, rtol=1e-6)
    np.testing.assert_allclose(first_moment["bias"], 0.1 * 0.8, rtol=1e-6)


@pytest.mark.parity
def test_the_original_decays_the_same_parameters(golden):
    trace = json.loads((golden / "ps_training" / "trace.json").read_text())
    model = cj.CaduceusForMaskedLM.from_pretrained(str(golden / "ps_training"))
    params = nnx.state(model, nnx.Param)
    marked = cj.convert.to_torch(model.config, jax.tree.map(_filled, has_decay(params), params))
    undecayed = {name for name, decayed in marked.items() if not decayed.any()}
    assert undecayed == set(trace["no_weight_decay"])


@pytest.mark.parity
def test_thirty_steps_of_the_original(golden):
    errors = parity.training(golden / "ps_training")
    assert parity.worst(errors) < PARITY_TRAINING, errors


def _filled(value, like):
    return jnp.full(like.shape, value)


def test_the_schedule_is_optax_s_but_for_rounding():
    ours = make_schedule(OptimizerConfig(), 1000)
    theirs = optax.warmup_cosine_decay_schedule(1e-6, 8e-3, 100, 1000, 1e-4)
    steps = jnp.arange(1200)
    difference = jnp.abs(jax.vmap(ours)(steps) - jax.vmap(theirs)(steps)).max() / 8e-3
    assert difference < 1.7e-7


@pytest.mark.parametrize(
    ("step", "rate"),
    # Of 20 steps 5 rise from 0.1 to 1, and the last 8 fall in a straight line to 0.2.
    [(0, 0.1), (1, 0.28), (5, 1.0), (11, 1.0), (12, 1.0), (16, 0.6), (20, 0.2), (99, 0.2)],
)
def test_warm_up_stable_decay_by_hand(step, rate):
    config = dataclasses.replace(CONFIG, schedule="wsd", decay_fraction=0.4)
    np.testing.assert_allclose(make_schedule(config, 20)(step), rate, rtol=1e-6)


def test_a_stable_rate_does_not_depend_on_how_long_the_run_will_be():
    config = dataclasses.replace(CONFIG, schedule="wsd", decay_fraction=0.25)
    assert make_schedule(config, 40)(20) == make_schedule(config, 400)(200) == 1.0


def test_a_longer_run_may_keep_the_former_schedule():
    held = make_schedule(dataclasses.replace(CONFIG, decay_steps=8), 16)
    for step in range(9):
        assert held(step) == make_schedule(CONFIG, 8)(step)
    np.testing.assert_allclose([held(8), held(15)], CONFIG.lr_min, rtol=1e-6)


def _matrices(seed):
    """Returns values of the form of a small model's parameters."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((2, 4, 8))
    tree = {"layers": {"in_proj": {"kernel": kernel}, "scale": rng.standard_normal((2, 4))}}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def _changes(config, steps=3):
    """Returns the updates of some steps, without decay, and the state after them."""
    config = dataclasses.replace(
        config, lr=1.0, lr_min=1.0, warmup_fraction=0.0, weight_decay=0.0, clip_norm=1e9
    )
    optimizer, params, found = make_optimizer(config, 10), _matrices(0), []
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(_matrices(step + 1), state, params)
        found.append(updates["layers"])
    return found, state


def test_moments_in_bfloat16_take_half_the_memory_and_change_little():
    whole, _ = _changes(OptimizerConfig())
    half, state = _changes(OptimizerConfig(moments="bfloat16"))
    for name in ("mu", "nu"):
        assert {x.dtype for x in jax.tree.leaves(optax.tree.get(state, name))} == {
            jnp.dtype("bfloat16")
        }
    for one, other in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, atol=0.01)  # of updates of about 1
    with pytest.raises(cj.UserError, match="lose the changes of beta2 0.999: use beta2 of at most"):
        OptimizerConfig(moments="bfloat16", beta2=0.999)


def test_adafactor_divides_by_the_root_mean_square():
    """The first update is the sign where nothing is factored; a large matrix has two vectors."""
    (first, *_), _ = _changes(OptimizerConfig(name="adafactor"))
    grads = _matrices(1)["layers"]
    np.testing.assert_allclose(first["scale"], -np.sign(grads["scale"]), rtol=1e-5)
    large = {"kernel": jnp.ones((3, 128, 256))}
    state = make_optimizer(OptimizerConfig(name="adafactor"), 10).init(large)
    assert sum(x.size for x in jax.tree.leaves(state)) < 3 * (128 + 256) + 10


def test_muon_makes_the_update_of_each_layer_orthogonal():
    (first, *_), state = _changes(OptimizerConfig(name="muon"))
    update = -np.asarray(first["in_proj"]["kernel"]) / (0.2 * 8**0.5)
    for layer in range(2):
        values = np.linalg.svd(update[layer], compute_uv=False)
        assert values.min() > 0.6 and values.max() < 1.3  # Newton-Schulz comes that near to 1
        direction = np.sum(
            update[layer] * np.asarray(_matrices(1)["layers"]["in_proj"]["kernel"][layer])
        )
        assert direction > 0
    # What is not a matrix is Adam's: the sign, at first.
    grads = _matrices(1)["layers"]
    np.testing.assert_allclose(first["scale"], -np.sign(grads["scale"]), rtol=1e-3)
    np.testing.assert_array_equal(optax.tree.get(state, "nu")["layers"]["scale"].shape, (2, 4))


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_other_optimizers_have_the_schedule_and_the_decay(name):
    config = OptimizerConfig(name=name, lr=0.5, lr_min=0.5, warmup_fraction=0.0, weight_decay=0.1)
    params = _matrices(0)
    optimizer = make_optimizer(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    kernel = params["layers"]["in_proj"]["kernel"]
    np.testing.assert_allclose(
        updates["layers"]["in_proj"]["kernel"], -0.5 * 0.1 * kernel, rtol=1e-5, atol=1e-7
    )
