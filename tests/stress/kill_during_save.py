"""A process that saves all the time is killed with SIGKILL at random moments, and continued.

    python -m tests.stress.kill_during_save 100 FOLDER

The number is that of kills which hit a checkpoint that was being written. One line at the end;
an error otherwise.
"""

import os
import pathlib
import random
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from caduceus_jax.model import run_checkpoint
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.step import TrainState, init_state


def state_of(step: int) -> TrainState:
    """A state that only that step has."""
    params = {name: jnp.full((64, 1024), 0.5) for name in "abcd"}
    first = init_state(params, optax.adam(1e-3))
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(step, leaf.dtype), first)


def save_all_the_time(folder: pathlib.Path, expected: int) -> None:
    """Continues from the newest checkpoint, which is the one of step `expected`, without end."""
    with Checkpoints(folder, keep=2) as checkpoints:
        assert (checkpoints.latest or 0) == expected, (checkpoints.latest, expected)
        assert not list(folder.glob("*.tmp"))
        if expected:
            state, place = checkpoints.restore(state_of(0))
            assert place == {"step": expected}
            assert jax.tree.all(jax.tree.map(np.array_equal, state, state_of(expected)))
        step = expected
        while True:
            step += 1
            checkpoints.save(state_of(step), {"step": step}, {})


def kill(folder: pathlib.Path, expected: int, generator: random.Random) -> None:
    """One start, and one kill some time after a checkpoint more is there."""
    child = os.fork()  # has imported everything, and computed nothing
    if child == 0:
        try:
            save_all_the_time(folder, expected)
        finally:
            os._exit(1)
    begun = time.monotonic()
    while (run_checkpoint.steps(folder) or [0])[0] == expected:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), f"failed after step {expected}"
        assert time.monotonic() - begun < 60
        time.sleep(0.005)
    time.sleep(generator.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def main(count: int, folder: pathlib.Path) -> str:
    """Kills until `count` have hit; what came of it."""
    generator = random.Random(0)
    kills = hits = step = 0
    while hits < count:
        kill(folder, step, generator)
        kills += 1
        hits += bool(list(folder.glob("*.tmp")))
        newest, damaged = run_checkpoint.newest(folder)
        assert not damaged, damaged
        assert newest and newest > step
        step = newest
    return (
        f"{kills} kills, {hits} of them while a checkpoint was being written, the last after step "
        f"{step}: every checkpoint with its number was intact, and each start restored the newest "
        "and cleared away what was unfinished"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]), pathlib.Path(sys.argv[2]) / "checkpoints"))
