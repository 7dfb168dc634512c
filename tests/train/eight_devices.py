"""Run by test_sharding_eight_devices.py in a process of its own: devices are chosen once.

Prints, for each case it is given, the metrics, the gradients and the update of a training step as
NumPy saves them, and what the compiled step communicates.
"""

import dataclasses
import json
import pickle
import sys

import jax
import numpy as np
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.kernels import Reference
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.planning.collectives import collectives
from caduceus_jax.train.sharding import abstract, init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program

MODELS = {
    "ps": cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=True),
    "ph": cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4),
    # A bias in the projections, and in every direction projections of its own.
    "untied": cj.CaduceusConfig(
        d_model=8, n_layer=1, d_state=4, bias=True, bidirectional_weight_tie=False
    ),
}
CONFIG = PretrainConfig(
    # With this epsilon a step is a smooth function of the gradient; without, it is its sign. The
    # learning rate is so large that parameters change by more than they are rounded by.
    optimizer=OptimizerConfig(lr=1.0, lr_init=1.0, warmup_fraction=0.0, epsilon=0.1),
    batch_size=16,
    max_length=32,
    remat="blocks",
)


def step(model: str = "ps", devices: int = 8, run: bool = True, **settings):
    """One training step on so many devices, divided as the settings say."""
    settings |= {"model": MODELS[model]}
    if not MODELS[model].rcps:
        settings |= {"data": DataConfig(rc_mode="none")}
    config = dataclasses.replace(CONFIG, **settings)
    parts = {name: getattr(config, name) for name in ("fsdp", "sequence", "tensor")}
    mesh = make_mesh(jax.devices()[:devices], **parts)
    program = make_program(config, mesh, cj.Tokenizer(), Reference())
    shape = (config.batch_size, config.max_length)
    rng = np.random.default_rng(0)
    labels = rng.integers(7, 11, shape).astype(np.int32)
    # What counts is spread unevenly over shards and pieces, and in some there is nothing.
    weights = np.linspace(0, 1, labels.size, dtype=np.float32).reshape(shape)
    ids = np.where(rng.random(shape) < 0.3, np.int32(3), labels)
    ids[:2], labels[:2] = 11, 4
    batch = shard_batch({"input_ids": ids, "labels": labels, "weights": weights}, mesh)
    compiled = program.train_step.lower(abstract(program.init, mesh), batch).compile()
    sent = [tuple(row) for row in collectives(compiled.as_text())]
    if not run:
        return None, sent
    state = init_sharded(program.init, mesh)
    shards = jax.tree.map(lambda leaf: leaf.sharding.shard_shape(leaf.shape), state)
    before = jax.device_get(nnx.to_pure_dict(state.params))
    state, metrics = compiled(state, batch)
    assert jax.tree.map(lambda leaf: leaf.sharding.shard_shape(leaf.shape), state) == shards
    after = jax.device_get(nnx.to_pure_dict(state.params))
    # The optimizer's first moment is the clipped gradient times 1 - beta1.
    moments = jax.device_get([leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim])
    update = jax.tree.map(np.subtract, after, before)
    return {"metrics": jax.device_get(metrics), "update": update, "moments": moments}, sent


if __name__ == "__main__":
    cases = json.loads(sys.argv[1])
    results = {name: step(**settings) for name, settings in cases.items()}
    sys.stdout.buffer.write(pickle.dumps(results))
