import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import caduceus_jax as cj
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.gradients import summed, summed_gradients
from caduceus_jax.train.sharding import init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program
from tests.tolerances import relative_error

CONFIG = PretrainConfig(
    model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
    batch_size=8,
    max_length=256,
)


def squares(params, batch):
    """Sum of w x^2, whose gradient with respect to w is the sum of x^2, and how many x."""
    return jnp.sum(params * batch["x"] ** 2), {"count": jnp.int32(batch["x"].size)}


@pytest.mark.parametrize("microbatches", [1, 2])
def test_sums_by_hand(microbatches):
    mesh = make_mesh(jax.devices()[:4], sequence=2)
    batch = shard_batch({"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)}, mesh)
    (total, sums), gradient = jax.jit(summed_gradients(squares, mesh, microbatches))(
        jnp.float32(2), batch
    )
    assert (float(total), int(sums["count"]), float(gradient)) == (280, 8, 140)
    assert float(jax.jit(summed(squares, mesh))(jnp.float32(2), batch)[0]) == 280


def test_pieces_are_computed_one_after_the_other():
    """In a loop, whose body has one piece."""
    step = summed_gradients(squares, microbatches=4)
    jaxpr = jax.make_jaxpr(step)(jnp.float32(1), {"x": jnp.ones((8, 3))})
    (loop,) = (equation for equation in jaxpr.eqns if equation.primitive is lax.scan_p)
    assert loop.params["length"] == 4
    assert loop.invars[-1].aval.shape == (4, 2, 3)


@pytest.fixture(scope="module")
def steps():
    """By microbatches: (bytes of temporaries, (metrics, gradients))."""
    mesh = make_mesh(jax.devices()[:1])
    rng = np.random.default_rng(0)
    labels = rng.integers(7, 11, (8, 256)).astype(np.int32)
    weights = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    ids = np.where(rng.random(labels.shape) < 0.3, np.int32(3), labels)
    # The second of four pieces is all N: nothing to predict.
    ids[2:4], labels[2:4] = 11, 4
    batch = shard_batch({"input_ids": ids, "labels": labels, "weights": weights}, mesh)

    def step(microbatches):
        config = dataclasses.replace(CONFIG, microbatches=microbatches)
        program = make_program(config, mesh, cj.Tokenizer())
        state = init_sharded(program.init, mesh)
        lowered = program.train_step.lower(state, batch)
        compiled = lowered.compile()
        state, metrics = compiled(state, batch)
        # The optimizer's first moment is the clipped gradient times 1 - beta1.
        found = jax.device_get((metrics, optax.tree.get(state.opt_state, "mu")))
        return compiled.memory_analysis().temp_size_in_bytes, found

    return {microbatches: step(microbatches) for microbatches in (1, 4)}


def test_a_step_in_pieces_is_the_step(steps):
    """With weights that differ between the pieces, and a piece without any."""
    whole, pieces = steps[1][1], steps[4][1]
    assert whole[0]["loss"] > 1
    assert 0 < whole[0]["masked_accuracy"] < 1
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        assert relative_error(other, one) < 1e-6


def test_four_pieces_take_well_under_half_the_memory(steps):
    assert steps[4][0] < 0.35 * steps[1][0]
