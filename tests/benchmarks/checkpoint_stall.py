"""Times how long a checkpoint holds up a training step, and how long it takes to be on disk.

python tests/benchmarks/checkpoint_stall.py FOLDER --millions 338

The state is that of AdamW, three float32 arrays per parameter, stacked over layers. Saving
returns once the arrays are copied, so that the next step may change them; they are written beside
the steps. Steps here are products of matrices on the same cores, which on an accelerator they are
not: what writing takes from them is an upper bound.
"""

import argparse
import pathlib
import shutil
import statistics
import time

import jax
import jax.numpy as jnp

from caduceus_jax.train.guards import init_guard
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.step import TrainState

LAYERS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="on the disk to measure; deleted after")
    parser.add_argument("--millions", type=float, default=50.0, help="parameters")
    parser.add_argument("--saves", type=int, default=3)
    arguments = parser.parse_args()
    layer = (LAYERS, round(arguments.millions * 1e6 / LAYERS))
    # Random numbers, because what is written is compressed.
    params, mean, square = (jax.random.normal(jax.random.key(x), layer) for x in range(3))
    size = 3 * params.nbytes / 2**30
    print(f"{params.size / 1e6:.0f} million parameters, {size:.2f} GiB of state")

    product = jax.jit(lambda x: x @ x / 1024)
    x = jnp.ones((1024, 1024))

    def step() -> float:
        start = time.perf_counter()
        for _ in range(4):
            product(x).block_until_ready()
        return time.perf_counter() - start

    step()
    alone = statistics.median(step() for _ in range(20))
    print("| save | step waits, s | on disk after, s | MiB/s | step meanwhile / alone |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with Checkpoints(arguments.folder, keep=1) as checkpoints:
        for number in range(1, arguments.saves + 1):
            state = TrainState(jnp.asarray(number), params, (mean, square), init_guard())
            start = time.perf_counter()
            checkpoints.save(state, {}, {})
            waited = time.perf_counter() - start
            meanwhile = []
            while not (arguments.folder / str(number)).exists():
                meanwhile.append(step())
            written = time.perf_counter() - start
            slower = statistics.median(meanwhile) / alone if meanwhile else float("nan")
            print(
                f"| {number} | {waited:.2f} | {written:.2f} | {size * 1024 / written:,.0f} "
                f"| {slower:.2f} |"
            )
    shutil.rmtree(arguments.folder)


if __name__ == "__main__":
    main()
