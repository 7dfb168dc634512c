from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import caduceus_jax as cj
from caduceus_jax.kernels import MosaicTPU, PallasTriton, Reference, selective_scan
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.sharding import (
    abstract,
    check_batch_size,
    init_sharded,
    make_mesh,
    path_name,
    shard_batch,
    sharded_conv,
    sharded_scan,
    share_of_rows,
)
from caduceus_jax.train.step import init_state, make_train_step
from tests.models import randomised
from tests.tolerances import SCAN_FP32, relative_error
from tests.traced_kernels import kernels_of


def test_paths_are_joined_with_slashes():
    ((path, _),) = jax.tree_util.tree_leaves_with_path({"params": {"caduceus": [jnp.zeros(1)]}})
    assert path_name(path) == "params/caduceus/0"
    state = nnx.State({"a": {"b": nnx.Param(jnp.zeros(1))}})
    ((path, _),) = jax.tree_util.tree_leaves_with_path(state)
    assert path_name(path) == "a/b"


def test_the_mesh_spans_all_devices():
    sizes = {"data": len(jax.devices()), "fsdp": 1, "sequence": 1, "tensor": 1}
    assert dict(make_mesh().shape) == sizes


def test_devices_that_share_most_are_neighbours():
    mesh = make_mesh(jax.devices()[:4], sequence=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "sequence": 2, "tensor": 1}
    assert [[device.id for device in row] for row in mesh.devices[:, 0, :, 0]] == [[0, 1], [2, 3]]
    mesh = make_mesh(jax.devices()[:4], fsdp=2, tensor=2)
    assert [[device.id for device in row] for row in mesh.devices[0, :, 0]] == [[0, 1], [2, 3]]
    with pytest.raises(cj.UserError, match="sequence is 3, but 4 devices cannot form groups of 3"):
        make_mesh(jax.devices()[:4], sequence=3)
    with pytest.raises(cj.UserError, match="fsdp x tensor is 6, but 4 devices cannot form groups"):
        make_mesh(jax.devices()[:4], fsdp=3, tensor=2)


def test_a_batch_that_does_not_split_is_refused_with_one_that_does():
    mesh = make_mesh(jax.devices()[:4], fsdp=2)
    check_batch_size(8, mesh, microbatches=2)
    with pytest.raises(cj.UserError, match="batch_size is 6, which 4 devices.*evenly: use 8"):
        check_batch_size(6, mesh)
    with pytest.raises(cj.UserError, match="which 4 devices .* evenly in 3 microbatches: use 12"):
        check_batch_size(8, mesh, microbatches=3)
    with pytest.raises(cj.UserError, match="batch_size is 1, which 2 groups of 2 devices.*use 2"):
        check_batch_size(1, make_mesh(jax.devices()[:4], tensor=2))


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


def test_large_parameters_are_split_and_the_optimizer_with_them():
    mesh = make_mesh(jax.devices()[:4], fsdp=2, tensor=2)
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4)
    optimizer = make_optimizer(OptimizerConfig(), 10)

    def init():
        params = nnx.state(cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)), nnx.Param)
        return {"params": params, "opt_state": optimizer.init(params)}

    state = abstract(init, mesh)
    held = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = path_name(path).rpartition("layers/mixer/")[2]
        held.setdefault(name, set()).add(leaf.sharding.shard_shape(leaf.shape))
    # One layer, 16 inner channels, rank 1, 4 states: half of both where both axes apply.
    expected = {
        "in_proj/kernel": (1, 4, 16),
        "out_proj/kernel": (1, 8, 4),
        "fwd/x_proj": (1, 8, 9),
        "rev/a_log": (1, 8, 4),
        "fwd/dt_proj": (1, 1, 8),
        "rev/conv_weight": (1, 4, 8),
        "fwd/conv_bias": (1, 8),
        "rev/d_skip": (1, 8),
        "fwd/delta_bias": (1, 8),
        "params/caduceus/embedding": (16, 8),
    }
    assert {name: held[name] for name in expected} == {k: {v} for k, v in expected.items()}


@pytest.mark.parametrize(
    ("implementation", "tensor"),
    [(None, 1), (PallasTriton(4), 2), (MosaicTPU(), 2)],
    ids=str,
)
def test_the_sharded_scan_is_the_scan(implementation, tensor):
    """Values, and gradients of what is split and of what is shared; each its own channels."""
    mesh = make_mesh(jax.devices()[:4], tensor=tensor)
    keys = iter(jax.random.split(jax.random.key(0), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    arguments = {
        "u": normal(8, 11, 6),
        "delta": normal(8, 11, 6),
        "A": -jnp.exp(normal(2, 6, 4)),
        "B": normal(8, 11, 4),
        "C": normal(8, 11, 4),
        "D": normal(2, 6),
        "z": normal(8, 11, 6),
        "delta_bias": normal(2, 6),
        "initial_state": normal(8, 6, 4),
    }

    def value_and_gradients(scan):
        run = lambda a: jnp.sum(jnp.sin(scan(**a, reverse=True)))  # noqa: E731
        return jax.jit(jax.value_and_grad(run))(arguments)

    found, expected = map(value_and_gradients, (sharded_scan(mesh, implementation), selective_scan))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert relative_error(one, other) < SCAN_FP32


def _processes(*rows):
    """A mesh whose devices belong to these processes."""
    devices = np.array([[SimpleNamespace(process_index=p) for p in row] for row in rows])
    shape = {"data": len(rows), "fsdp": 1, "sequence": len(rows[0]), "tensor": 1}
    devices = devices.reshape(*shape.values())
    return SimpleNamespace(devices=devices, shape=shape, local_devices=devices[0, 0])


def test_processes_read_the_rows_that_their_devices_hold():
    own = _processes([0, 0], [0, 0], [1, 1], [1, 1])
    assert [share_of_rows(own, p) for p in (0, 1)] == [(0, 2), (1, 2)]
    # Windows that span two processes each; both read them.
    spanning = _processes([0, 0, 1, 1], [2, 2, 3, 3])
    assert [share_of_rows(spanning, p) for p in range(4)] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    with pytest.raises(
        cj.UserError, match="sequence x tensor is 3, .* divisor or a multiple of the 3"
    ):
        share_of_rows(_processes([0, 0, 1], [1, 2, 2]), 0)
    assert share_of_rows(make_mesh(jax.devices()[:4], sequence=2)) == (0, 1)


def test_a_window_is_split_along_its_length():
    mesh = make_mesh(jax.devices()[:4], sequence=2)
    batch = shard_batch({"x": np.arange(8).reshape(2, 4)}, mesh)
    shards = sorted(batch["x"].addressable_shards, key=lambda shard: shard.device.id)
    assert [shard.data.tolist() for shard in shards] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]


def test_a_model_that_is_split_along_the_length_is_the_model():
    """Logits and gradients, with padding on either side that reaches across shards."""
    architecture = {"rcps": True, "bidirectional_weight_tie": False, "fused_add_norm": True}
    config = cj.CaduceusConfig(d_model=8, d_state=4, n_layer=2, **architecture)
    mesh = make_mesh(jax.devices()[:4], sequence=2)
    ids = np.random.default_rng(0).integers(7, 11, (2, 32)).astype(np.int32)
    mask = np.ones(ids.shape, bool)
    mask[0, :18], mask[1, 13:] = False, False
    weights = (
        np.random.default_rng(1).normal(size=(*ids.shape, config.vocab_size)) * mask[..., None]
    )

    def run(mesh):
        model = randomised(
            lambda: cj.CaduceusForMaskedLM(
                config,
                scan=sharded_scan(mesh, Reference()),
                conv=sharded_conv(mesh),
                rngs=nnx.Rngs(0),
            )
        )
        batch = shard_batch({"ids": ids, "mask": mask}, mesh)

        @jax.jit
        def value_and_gradients(model, batch):
            def score(model):
                logits = model(batch["ids"], batch["mask"]).logits
                return jnp.sum(logits * weights), jnp.where(batch["mask"][..., None], logits, 0)

            return jax.value_and_grad(score, has_aux=True)(model)

        (_, logits), grads = value_and_gradients(model, batch)
        return {"logits": logits, "grads": nnx.state(grads)}

    expected = jax.tree_util.tree_leaves_with_path(run(make_mesh(jax.devices()[:1])))
    for (path, one), other in zip(expected, jax.tree.leaves(run(mesh)), strict=True):
        assert relative_error(other, one) < SCAN_FP32, path


def _trained(devices, steps=3):
    """Parameters and losses after a few steps on batches of 8, and the compiled step."""
    mesh = make_mesh(devices)
    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    settings = OptimizerConfig(warmup_fraction=0.0)
    optimizer = make_optimizer(settings, steps)

    def model():
        return cj.CaduceusForMaskedLM(config, scan=sharded_scan(mesh), rngs=nnx.Rngs(0))

    def init():
        return init_state(nnx.state(model(), nnx.Param), optimizer)

    graphdef, _ = nnx.split(nnx.eval_shape(model), nnx.Param)
    schedule = make_schedule(settings, steps)
    step = make_train_step(graphdef, optimizer, schedule, cj.Tokenizer(), mesh=mesh)
    state, losses, compiled = init_sharded(init, mesh), [], None
    rng = np.random.default_rng(0)
    for _ in range(steps):
        labels = rng.integers(7, 11, (8, 16)).astype(np.int32)
        ids = np.where(rng.random(labels.shape) < 0.5, np.int32(3), labels)
        rows = {"input_ids": ids, "labels": labels, "weights": np.ones(ids.shape, np.float32)}
        batch = shard_batch(rows, mesh)
        compiled = compiled or step.lower(state, batch).compile()
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state.params), losses, compiled.as_text()


def test_one_and_four_devices_train_alike():
    one, one_losses, _ = _trained(jax.devices()[:1])
    four, four_losses, text = _trained(jax.devices()[:4])
    # Devices meet to add up gradients and metrics, and for nothing else.
    assert "all-reduce" in text
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text
    assert one_losses[0] > one_losses[-1]
    # Sums over the batch are taken in another order, and Adam amplifies gradients near zero.
    np.testing.assert_allclose(one_losses, four_losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())


@pytest.mark.parametrize(("remat", "forward"), [(True, 2), ("scans", 1)])
@pytest.mark.parametrize("sequence", [1, 2])
def test_what_is_kept_of_scans_is_kept_on_every_device(sequence, remat, forward):
    mesh = make_mesh(jax.devices()[:4], sequence=sequence)
    options = MosaicTPU(interpret=False)
    config = cj.CaduceusConfig(d_model=24, n_layer=2, rcps=True)
    operations = {"scan": sharded_scan(mesh, options), "conv": sharded_conv(mesh, "chunked")}
    graph, parameters = nnx.split(
        nnx.eval_shape(
            lambda: cj.CaduceusForMaskedLM(config, remat=remat, rngs=nnx.Rngs(0), **operations)
        )
    )

    def loss(parameters):
        return nnx.merge(graph, parameters)(jnp.zeros((4, 64), jnp.int32)).logits.sum()

    found = kernels_of(jax.make_jaxpr(jax.grad(loss))(parameters).jaxpr)
    directions = 2
    assert found["selective_scan_forward"] == directions * forward
    assert found["selective_scan_backward"] == directions
