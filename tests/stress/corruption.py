"""Damages the newest of two checkpoints in every way, one at a time, and restores.

    python -m tests.stress.corruption 33 FOLDER

The number is that of mutations: each kind of file cut short, with one byte changed, and deleted.
One line at the end; an error otherwise.
"""

import contextlib
import io
import pathlib
import random
import shutil
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from caduceus_jax.model.run_checkpoint import DamagedCheckpoint
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.step import TrainState, init_state

OLDER, NEWER = 10, 20


def cut(path: pathlib.Path, generator: random.Random) -> None:
    """Loses the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: generator.randrange(len(content))])


def flip(path: pathlib.Path, generator: random.Random) -> None:
    """Changes one byte."""
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= generator.randrange(1, 256)
    path.write_bytes(content)


def delete(path: pathlib.Path, _: random.Random) -> None:
    """Removes a file."""
    path.unlink()


def kinds(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    """One file of each kind, of those that have anything in them: most data files have hashes."""
    found = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.stat().st_size:
            inside = path.relative_to(checkpoint)
            found[inside.parent if inside.parent.name == "d" else inside] = path
    return list(found.values())


def state_of(step: int) -> TrainState:
    """A state that only that step has."""
    params = {"a": jnp.arange(2000.0).reshape(2, 1000), "b": jnp.ones(3)}
    first = init_state(params, optax.adam(1e-3))
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(step, leaf.dtype), first)


def try_one(
    folder: pathlib.Path, how: Callable[..., None], bad: pathlib.Path, generator: random.Random
) -> str:
    """Damages `bad`, sees that it is noticed, and returns the warning."""
    how(bad, generator)
    try:
        Checkpoints(folder, keep=2, strict=True)
        raise AssertionError(f"not noticed: {how.__name__} {bad}")
    except DamagedCheckpoint as error:
        assert error.exit_status == 3
    said = io.StringIO()
    with contextlib.redirect_stderr(said), Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.latest == OLDER
        state, place = checkpoints.restore(state_of(0))
        assert place == {"step": OLDER}
        assert jax.tree.all(jax.tree.map(np.array_equal, state, state_of(OLDER)))
        # Nothing is in the way of the step that was damaged.
        checkpoints.save(state_of(NEWER), {"step": NEWER}, {})
    (warning,) = said.getvalue().splitlines()
    assert bad.relative_to(folder / str(NEWER)).as_posix() in warning, warning
    assert (folder.with_name("damaged_checkpoints") / str(NEWER)).is_dir()
    return warning


def main(count: int, work: pathlib.Path) -> str:
    """So many mutations, spread over all; what came of it."""
    generator = random.Random(0)
    whole = work / "whole"
    with Checkpoints(whole, keep=2) as checkpoints:
        for step in (OLDER, NEWER):
            checkpoints.save(state_of(step), {"step": step}, {})
    files = [path.relative_to(whole) for path in kinds(whole / str(NEWER))]
    mutations = [(how, file) for how in (cut, flip, delete) for file in files]
    generator.shuffle(mutations)
    for number, (how, file) in enumerate(mutations[:count]):
        folder = work / str(number) / "checkpoints"
        shutil.copytree(whole, folder)
        try_one(folder, how, folder / file, generator)
    tried = min(count, len(mutations))
    return (
        f"{tried} mutations of {len(files)} kinds of files: each was noticed and named in one "
        f"warning, step {OLDER} was restored, step {NEWER} moved aside and saved again; with "
        "--strict, status 3"
    )


if __name__ == "__main__":
    print(main(int(sys.argv[1]), pathlib.Path(sys.argv[2])))
