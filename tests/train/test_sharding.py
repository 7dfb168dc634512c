import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import cosine_schedule, make_optimizer
from caduceus_jax.train.sharding import (
    abstract,
    check_batch_size,
    init_sharded,
    make_mesh,
    path_name,
    shard_batch,
)
from caduceus_jax.train.step import init_state, make_train_step


def test_paths_are_joined_with_slashes():
    ((path, _),) = jax.tree_util.tree_leaves_with_path({"params": {"caduceus": [jnp.zeros(1)]}})
    assert path_name(path) == "params/caduceus/0"
    state = nnx.State({"a": {"b": nnx.Param(jnp.zeros(1))}})
    ((path, _),) = jax.tree_util.tree_leaves_with_path(state)
    assert path_name(path) == "a/b"


def test_the_mesh_spans_all_devices():
    assert dict(make_mesh().shape) == {"data": len(jax.devices())}


def test_a_batch_that_does_not_split_is_refused_with_one_that_does():
    mesh = make_mesh(jax.devices()[:4])
    check_batch_size(8, mesh)
    with pytest.raises(cj.UserError, match="batch_size is 6, which 4 devices.*use 8"):
        check_batch_size(6, mesh)


def test_batches_are_split_and_states_replicated():
    mesh = make_mesh(jax.devices()[:4])
    batch = shard_batch({"x": np.arange(8).reshape(4, 2)}, mesh)
    shards = sorted(batch["x"].addressable_shards, key=lambda shard: shard.device.id)
    assert [shard.data.tolist() for shard in shards] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
    state = init_sharded(lambda: {"w": jnp.arange(3.0)}, mesh)
    assert state["w"].sharding.spec == P()
    assert [shard.data.tolist() for shard in state["w"].addressable_shards] == [[0, 1, 2]] * 4
    planned = abstract(lambda: {"w": jnp.arange(3.0)}, mesh)
    assert planned["w"].shape == (3,)
    assert planned["w"].sharding == state["w"].sharding


def _trained(devices, steps=3):
    """Parameters and losses after a few steps on batches of 8."""
    mesh = make_mesh(devices)
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    settings = OptimizerConfig(warmup_fraction=0.0)
    optimizer = make_optimizer(settings, steps)

    def model():
        return cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))

    def init():
        return init_state(nnx.state(model(), nnx.Param), optimizer, jax.random.PRNGKey(0))

    graphdef, _ = nnx.split(nnx.eval_shape(model), nnx.Param)
    step = make_train_step(graphdef, optimizer, cosine_schedule(settings, steps), cj.Tokenizer())
    state, losses = init_sharded(init, mesh), []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        labels = rng.integers(7, 11, (8, 16)).astype(np.int32)
        ids = np.where(rng.random(labels.shape) < 0.5, np.int32(3), labels)
        rows = {"input_ids": ids, "labels": labels, "weights": np.ones(ids.shape, np.float32)}
        state, metrics = step(state, shard_batch(rows, mesh))
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses


def test_one_and_four_devices_train_alike():
    one, one_losses = _trained(jax.devices()[:1])
    four, four_losses = _trained(jax.devices()[:4])
    assert one_losses[0] > one_losses[-1]
    # Sums over the batch are taken in another order, and Adam amplifies gradients near zero.
    np.testing.assert_allclose(one_losses, four_losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())
