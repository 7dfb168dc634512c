"""A run moves from 8 devices to 4, to 2 and back to 8, through its checkpoints.

    python -m tests.stress.reshard 5 FOLDER

The number is that of steps on each. One line at the end; an error otherwise.
"""

import pathlib
import sys
from typing import Any

import jax
import numpy as np

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.sharding import abstract, init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program

MOST = 1e-6
CONFIG = PretrainConfig(
    model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
    # With this epsilon a step is a smooth function of the gradient; without, it is its sign.
    optimizer=OptimizerConfig(lr=0.01, lr_init=0.01, warmup_fraction=0.0, epsilon=0.1),
    batch_size=8,
    max_length=32,
)


def batch(step: int) -> dict[str, np.ndarray]:
    """Of any step, for all devices."""
    rng = np.random.default_rng(step)
    labels = rng.integers(7, 11, (8, 32)).astype(np.int32)
    ids = np.where(rng.random(labels.shape) < 0.3, np.int32(3), labels)
    return {"input_ids": ids, "labels": labels, "weights": np.ones(labels.shape, np.float32)}


def gap(one: Any, other: Any) -> float:
    """Largest difference of two states, relative to the largest number of each array."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    gaps = []
    for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Arrays of nothing but rounding, such as moments that cancel, count by what they add to.
        gaps.append(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-3))
    return float(max(gaps))


def main(steps: int, folder: pathlib.Path) -> str:
    """The same steps on 8 devices, and on 8, 4, 2 and 8; what came of it."""
    programs = {}
    for count in (8, 4, 2):
        mesh = make_mesh(jax.devices()[:count])
        programs[count] = mesh, make_program(CONFIG, mesh, cj.Tokenizer())

    def train(state, count, first):
        mesh, program = programs[count]
        for step in range(first, first + steps):
            state, metrics = program.train_step(state, shard_batch(batch(step), mesh))
        return state, float(metrics["loss"])

    unmoved = init_sharded(programs[8][1].init, programs[8][0])
    moved = init_sharded(programs[8][1].init, programs[8][0])
    worst = 0.0
    for leg, count in enumerate((8, 4, 2, 8)):
        if leg:
            with Checkpoints(folder, keep=9) as checkpoints:
                checkpoints.save(moved, {"step": int(moved.step)}, {})
            mesh, program = programs[count]
            with Checkpoints(folder, keep=9) as checkpoints:
                restored, _ = checkpoints.restore(abstract(program.init, mesh))
            assert jax.tree.all(
                jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), restored, moved)
            )
            assert {len(x.sharding.device_set) for x in jax.tree.leaves(restored)} == {count}
            moved = restored
        moved, loss = train(moved, count, leg * steps)
        unmoved, expected = train(unmoved, 8, leg * steps)
        worst = max(worst, gap(moved.params, unmoved.params), abs(loss - expected) / expected)
    assert worst <= MOST, worst
    return (
        f"{steps} steps each on 8, 4, 2 and 8 devices: every array is restored exactly, and losses "
        f"and parameters stay within {worst:.1e}, relative, of a run that stays on 8"
    )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    print(main(int(sys.argv[1]), pathlib.Path(sys.argv[2])))
