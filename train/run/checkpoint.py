"""Checkpoints of a run: all that a step changes, and the place in the data."""

import concurrent.futures
import importlib.metadata
import json
import logging
import pathlib
import shutil
import time
from typing import Any

import jax
import orbax.checkpoint as ocp

from caduceus_jax.errors import UserError
from caduceus_jax.model.run_checkpoint import (
    RUN,
    STATE,
    DamagedCheckpoint,
    describe,
    newest,
    read_run,
    seal,
    steps,
)
from caduceus_jax.train import processes
from caduceus_jax.train.sharding import path_name
from caduceus_jax.train.step import TrainState

log = logging.getLogger(__name__)

Place = dict[str, Any]  # where a run is in its data, as JSON knows it
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "caduceus-jax")


class Schedule:
    """When a run saves.

    Args:
        every: steps.
        keep_every: steps of the checkpoints that stay, which are saved too; None is none.
        minutes: since the last one; looked at where metrics are written. None is any.
    """

    def __init__(self, every: int, keep_every: int | None = None, minutes: float | None = None):
        self._every = [every, *([keep_every] if keep_every else [])]
        self._minutes = minutes
        self._saved = time.monotonic()

    def due(self, step: int, *, logged: bool) -> bool:
        """Whether to save after this step; every process asks, and hears the same.

        Args:
            step: that was done.
            logged: its metrics are written. There the processes wait for each other anyway, so
                that it costs little to agree on what time it is.
        """
        due = any(step % every == 0 for every in self._every)
        if self._minutes is not None and logged:
            elapsed = time.monotonic() - self._saved
            # Process 0's clock counts.
            due |= processes.gather("minutes since a checkpoint", elapsed)[0] >= 60 * self._minutes
        if due:
            self._saved = time.monotonic()
        return due


class Checkpoints:
    """The checkpoints of one run's folder; a context manager that waits for the last one.

    Opening it finds the newest one whose every byte is as it was written. Newer ones that are
    damaged are moved to a folder beside, so that their steps can be saved again; nothing is
    deleted but what was never finished.

    Args:
        folder: made when the first one is written.
        keep: the newest this many stay.
        keep_every: those at multiples of this many steps stay too; None is none.
        strict: refuse a damaged one instead of falling back to one before it.

    Attributes:
        latest: the newest step that is saved or being saved, or None.

    Raises:
        DamagedCheckpoint: none is intact, or with `strict` the newest is not.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int,
        keep_every: int | None = None,
        strict: bool = False,
    ):
        self.folder, self.keep, self.keep_every = folder.absolute(), keep, keep_every
        self.latest: int | None = processes.first_does(
            "the newest intact checkpoint", lambda: self._find(strict)
        )
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._finishing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._thread.shutdown()
        self._checkpointer.close()

    def wait(self) -> None:
        """Until what was saved is complete on disk.

        Raises:
            Exception: what went wrong while it was written in the background.
        """
        if self._finishing is not None:
            self._finishing.result()
            self._finishing = None

    def save(self, state: TrainState, place: Place, config: dict[str, Any]) -> None:
        """Begins to write a checkpoint of the state's step, unless there is one already.

        All processes call this; the state may be given away once it returns.

        Args:
            state: at the end of a step.
            place: in the data, after that step.
            config: the run's, as plain values.
        """
        step = int(state.step)
        if step == self.latest:
            return
        self.wait()
        temporary = self.folder / f"{step}.tmp"
        if processes.index() == 0:
            temporary.mkdir(parents=True)
            versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
            run = {"step": step, "place": place, "config": config, "versions": versions}
            (temporary / RUN).write_text(json.dumps(run, indent=1) + "\n")
        self._checkpointer.save(temporary / STATE, args=ocp.args.StandardSave(state))
        self.latest = step
        self._finishing = self._thread.submit(self._finish, step)

    def restore(self, like: TrainState) -> tuple[TrainState, Place]:
        """Reads the newest checkpoint.

        Args:
            like: a state of the same form, or its shapes and shardings; the mesh may be another
                than the one it was saved from.

        Returns:
            The state, and the place in the data.

        Raises:
            UserError: it is of another model.
        """
        checkpoint = self.folder / str(self.latest)
        metadata: Any = self._checkpointer.metadata(checkpoint / STATE).item_metadata
        stored = metadata.tree
        _check_same_shapes(checkpoint, _shapes(stored), _shapes(like))
        state = self._checkpointer.restore(checkpoint / STATE, args=ocp.args.StandardRestore(like))
        return state, read_run(checkpoint)["place"]

    def _find(self, strict: bool) -> int | None:
        """The newest intact step, after clearing away what is not; in process 0."""
        for unfinished in self.folder.glob("*.tmp"):
            shutil.rmtree(unfinished)
        step, damaged = newest(self.folder)
        if not damaged:
            return step
        if step is None:
            raise DamagedCheckpoint(
                f"no checkpoint in {self.folder} can be used: {describe(damaged)}; bring one "
                "back, or remove the folder to begin anew"
            )
        if strict:
            raise DamagedCheckpoint(
                f"the newest of {self.folder} is damaged: {describe(damaged)}; without --strict "
                f"the run continues from step {step}"
            )
        aside = self.folder.with_name(f"damaged_{self.folder.name}")
        aside.mkdir(exist_ok=True)
        for bad in damaged:
            copies = len(list(aside.glob(f"{bad}*")))
            (self.folder / str(bad)).rename(aside / (f"{bad}-{copies + 1}" if copies else str(bad)))
        log.warning(
            f"damaged checkpoints are now in {aside}: {describe(damaged)}; continuing "
            f"from step {step}"
        )
        return step

    def _finish(self, step: int) -> None:
        """Waits for all processes' arrays, then makes the checkpoint final and drops old ones."""
        self._checkpointer.wait_until_finished()
        if processes.index() != 0:
            return
        temporary = self.folder / f"{step}.tmp"
        seal(temporary)
        temporary.rename(self.folder / str(step))
        for old in steps(self.folder)[self.keep :]:
            if not self.keep_every or old % self.keep_every:
                # Under another name first: what is half deleted is no checkpoint.
                gone = (self.folder / str(old)).rename(self.folder / f"{old}.tmp")
                shutil.rmtree(gone)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _check_same_shapes(
    checkpoint: pathlib.Path, there: dict[str, tuple[int, ...]], here: dict[str, tuple[int, ...]]
) -> None:
    """Compares before arrays are read."""
    # The parameters first: the optimizer's arrays only follow them.
    names = sorted({*there, *here}, key=lambda name: (not name.startswith("params/"), name))
    differing = [
        f"{name} (there {there.get(name, 'missing')}, here {here.get(name, 'missing')})"
        for name in names
        if there.get(name) != here.get(name)
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{checkpoint} is of another model, with other {', '.join(differing[:3])}{more}"
        )
