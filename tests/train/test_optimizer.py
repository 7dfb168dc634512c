import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import cosine_schedule, decays, make_optimizer
from caduceus_jax.train.sharding import path_name
from caduceus_jax.train.step import init_state, make_train_step

CONFIG = OptimizerConfig(lr=1.0, lr_init=0.1, lr_min=0.2, warmup_fraction=0.25)


@pytest.mark.parametrize(
    ("step", "rate"),
    # 2 of 8 steps rise from 0.1 to 1; 6 fall along half a cosine to 0.2.
    [(0, 0.1), (1, 0.55), (2, 1.0), (5, 0.6), (8, 0.2), (100, 0.2)],
)
def test_schedule_by_hand(step, rate):
    np.testing.assert_allclose(cosine_schedule(CONFIG, 8)(step), rate, rtol=1e-6)


def test_a_run_without_warmup_starts_at_the_top():
    config = OptimizerConfig(lr=1.0, lr_min=0.0, warmup_fraction=0.0)
    np.testing.assert_allclose(cosine_schedule(config, 4)(0), 1.0)


def _params(**overrides):
    config = cj.CaduceusConfig(d_model=16, n_layer=2, bias=True, **overrides)
    model = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    return nnx.state(model, nnx.Param)


def _decayed(params):
    marked = jax.tree_util.tree_leaves_with_path(decays(params))
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
def test_thirty_steps_of_the_original(golden):
    folder = golden / "ps_training"
    trace = json.loads((folder / "trace.json").read_text())
    arrays = load_file(folder / "golden.safetensors")
    config = OptimizerConfig(
        lr=trace["peak_lr"],
        lr_init=trace["warmup_lr_init"],
        lr_min=trace["lr_min"],
        warmup_fraction=trace["warmup_steps"] / trace["steps"],
        beta1=trace["betas"][0],
        beta2=trace["betas"][1],
        epsilon=trace["eps"],
        weight_decay=trace["weight_decay"],
        clip_norm=trace["grad_clip_norm"],
    )
    steps = trace["steps"]
    model = cj.CaduceusForMaskedLM.from_pretrained(str(folder))
    graphdef, params = nnx.split(model, nnx.Param)
    undecayed = cj.convert.to_torch(model.config, jax.tree.map(_filled, decays(params), params))
    assert {name for name, d in undecayed.items() if not d.any()} == set(trace["no_weight_decay"])

    optimizer = make_optimizer(config, steps)
    step_fn = make_train_step(graphdef, optimizer, cosine_schedule(config, steps), cj.Tokenizer())
    state = init_state(params, optimizer, jax.random.PRNGKey(0))
    rows = []
    for ids, labels in zip(arrays["input_ids"], arrays["labels"], strict=True):
        batch = {
            "input_ids": jnp.asarray(ids, jnp.int32),
            "labels": jnp.asarray(labels, jnp.int32),
            "weights": jnp.ones(labels.shape, jnp.float32),
        }
        state, metrics = step_fn(state, batch)
        rows.append(jax.device_get(metrics))
    for key, name in (("loss", "losses"), ("lr", "learning_rates"), ("grad_norm", "grad_norms")):
        np.testing.assert_allclose([row[key] for row in rows], arrays[name], rtol=1e-5)
    for name, array in cj.convert.to_torch(model.config, state.params).items():
        expected = arrays[f"final.{name}"]
        error = np.abs(array - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{name}: {error}"


def _filled(value, like):
    return jnp.full(like.shape, value)
