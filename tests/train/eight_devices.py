"""Run by test_sharding_eight_devices.py in a process of its own: devices are chosen once.

Prints, for each way of splitting, the loss, gradients and parameters of a training step as NumPy
saves them, and what the compiled step communicates.
"""

import dataclasses
import pickle
import sys

import jax
import numpy as np
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.kernels import Reference
from caduceus_jax.train.collectives import collectives
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.sharding import abstract, init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program

CONFIG = PretrainConfig(
    model=cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=True),
    # With this epsilon a step is a smooth function of the gradient; without, it is its sign.
    optimizer=OptimizerConfig(lr=0.1, lr_init=0.1, warmup_fraction=0.0, epsilon=0.1),
    batch_size=2,
    max_length=64,
    remat=True,
)


def step(devices: int, sequence: int, length: int, run: bool = True):
    """One training step on so many devices, of which `sequence` share a window."""
    config = dataclasses.replace(CONFIG, max_length=length, sequence=sequence)
    mesh = make_mesh(jax.devices()[:devices], sequence=sequence)
    program = make_program(config, mesh, cj.Tokenizer(), Reference())
    rng = np.random.default_rng(0)
    labels = rng.integers(7, 11, (2, length)).astype(np.int32)
    # What counts is spread unevenly over the shards.
    weights = np.linspace(0, 1, 2 * length, dtype=np.float32).reshape(labels.shape)
    ids = np.where(rng.random(labels.shape) < 0.3, np.int32(3), labels)
    batch = shard_batch({"input_ids": ids, "labels": labels, "weights": weights}, mesh)
    compiled = program.train_step.lower(abstract(program.init, mesh), batch).compile()
    sent = [tuple(row) for row in collectives(compiled.as_text())]
    if not run:
        return sent
    state = init_sharded(program.init, mesh)
    before = jax.device_get(nnx.to_pure_dict(state.params))
    state, metrics = compiled(state, batch)
    after = jax.device_get(nnx.to_pure_dict(state.params))
    update = jax.tree.map(np.subtract, after, before)
    # The optimizer's first moment is the clipped gradient times 1 - beta1.
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    return {"metrics": jax.device_get(metrics), "update": update, "moments": moments}, sent


if __name__ == "__main__":
    results = {
        "one": step(1, 1, 64),
        "2 x 4": step(8, 4, 64),
        "1 x 8": step(8, 8, 64),
        "longer": step(8, 4, 128, run=False),
    }
    sys.stdout.buffer.write(pickle.dumps(jax.device_get(results)))
