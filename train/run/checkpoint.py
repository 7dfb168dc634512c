"""Checkpoints of a run: all that a step changes, and the position in the data."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from caduceus_jax.errors import UserError
from caduceus_jax.files import WriteFailed
from caduceus_jax.model.run_checkpoint import (
    RUN,
    STATE,
    DamagedCheckpoint,
    describe,
    newest,
    read_run,
    steps,
    write_manifest,
)
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.watchdog import Watchdog
from caduceus_jax.train.run.background import in_background
from caduceus_jax.train.sharding import path_name
from caduceus_jax.train.step import TrainState
from caduceus_jax.train.storage.gather import gather_on_first, on_host, spread_from_first

log = logging.getLogger(__name__)

DataPosition = dict[str, Any]  # where a run is in its data, as JSON knows it
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "caduceus-jax")


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a run's numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _StateWithRng:
    """The state as earlier versions stored it, with a random key that nothing used."""

    step: Any
    params: Any
    opt_state: Any
    rng: Any
    guard: Any


class Checkpoints:
    """Writes and reads the checkpoints of one run; a context manager that waits for the last one.

    Opening it finds the newest checkpoint whose every byte is as it was written. Newer ones that
    are damaged are moved to a folder beside, so that their steps can be saved again; only what was
    never finished is deleted.

    Args:
        folder: made when the first checkpoint is written.
        keep: number of the newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this many steps are kept too; None keeps no more.
        strict: refuse a damaged checkpoint instead of falling back to one before it.
        check: called in process 0 before a checkpoint is made final; raises where this run must
            not write any more.
        saved: called in process 0, in the background, with the step of each complete checkpoint.
        one_writer: processes share no folder, so process 0 writes and reads for all of them.
        watchdog: told of what takes long; by default nothing watches.

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
        check: Callable[[], None] = lambda: None,
        saved: Callable[[int], None] = lambda step: None,
        one_writer: bool = False,
        watchdog: Watchdog | None = None,
    ):
        self._check, self._saved, self._one_writer = check, saved, one_writer
        self._watchdog = watchdog or Watchdog(None)
        logging.getLogger("absl").addFilter(_not_orbax)
        self.folder, self.keep, self.keep_every = folder.absolute(), keep, keep_every
        self.latest: int | None = processes.broadcast_from_first(
            "the newest intact checkpoint", lambda: self._find(strict)
        )
        # Made when it is needed: it asks for devices, and so waits for the other processes.
        self._checkpointer: ocp.AsyncCheckpointer | None = None
        # Of the newest checkpoint: that it becomes complete, and what is done with it then.
        self._background: list[concurrent.futures.Future[None]] = []

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
            if self._checkpointer is not None:
                self._checkpointer.close()
            return
        # Another error is on its way: what cannot be finished must not hide or delay it.
        with contextlib.suppress(Exception):
            if processes.count() == 1 or (self._one_writer and processes.index() == 0):
                concurrent.futures.wait(self._background)

    def wait(self) -> None:
        """Waits until what was saved is complete on disk, and in its store if it goes to one.

        All processes call this.

        Raises:
            WriteFailed: a checkpoint could not be written in the background.
        """
        if not self._background:
            return
        (written, sent), self._background = self._background, []
        if not self._one_writer:
            self._result(written)
            with self._watchdog.paused():
                return self._result(sent)
        # The others have nothing to wait for but process 0, and end with its error.
        processes.broadcast_from_first("a checkpoint, written", lambda: self._result(written))
        with self._watchdog.paused():
            processes.broadcast_from_first(
                "a checkpoint, sent", lambda: self._result(sent), patient=True
            )

    def raise_failure(self) -> None:
        """Raises what has gone wrong in the background; does not wait.

        Raises:
            WriteFailed: a checkpoint could not be written.
        """
        for future in self._background:
            if future.done() and future.exception() is not None:
                self._background = []
                self._result(future)

    def _result(self, future: concurrent.futures.Future[None]) -> None:
        try:
            future.result()
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many types for a full disk
            raise self._failed(error) from error

    def save(self, state: TrainState, position: DataPosition, config: dict[str, Any]) -> None:
        """Begins to write a checkpoint of the state's step, unless there is one already.

        All processes call this; the state may be given to the next step once it returns.

        Args:
            state: the state at the end of a step.
            position: the position in the data after that step.
            config: the settings of the run, as plain values.

        Raises:
            WriteFailed: this checkpoint or the one before it could not be written.
        """
        step = int(state.step)
        if step == self.latest:
            return
        self.wait()
        temporary, first = self.folder / f"{step}.tmp", processes.index() == 0
        whole: Any = state
        if self._one_writer:
            whole = gather_on_first(state, lambda: self._watchdog.work("gathering an array"))
        try:
            if first:
                temporary.mkdir(parents=True)
                run = {"step": step, "place": position, "config": config, "versions": versions()}
                (temporary / RUN).write_text(json.dumps(run, indent=1) + "\n")
            if first or not self._one_writer:
                self._checkpointer = self._checkpointer or _checkpointer(alone=self._one_writer)
                self._checkpointer.save(temporary / STATE, args=ocp.args.StandardSave(whole))
        except Exception as error:
            raise self._failed(error) from error
        self.latest = step
        written = in_background(self._finish, step)
        self._background = [written, in_background(self._send, step, written)]

    def restore(self, like: TrainState) -> tuple[TrainState, DataPosition]:
        """Reads the newest checkpoint.

        Args:
            like: a state of the same form, or its shapes and shardings; its mesh need not be the
                one that the checkpoint was saved from.

        Returns:
            The state, and the position in the data.

        Raises:
            UserError: the checkpoint is of another model.
            DamagedCheckpoint: the checkpoint cannot be read, although its bytes were intact before.
        """
        checkpoint = self.folder / str(self.latest)
        if not self._one_writer:
            return read_state(checkpoint, like), read_run(checkpoint)["place"]
        whole: TrainState | None = None

        def read() -> DataPosition:
            nonlocal whole
            whole = read_state(checkpoint, on_host(like), alone=True)
            return read_run(checkpoint)["place"]

        place = processes.broadcast_from_first("the newest checkpoint", read, patient=True)
        working = lambda: self._watchdog.work("spreading an array")  # noqa: E731
        return spread_from_first(whole, like, working), place

    def recorded(self) -> dict[str, Any]:
        """Returns the settings that the newest checkpoint was made with."""
        return read_run(self.folder / str(self.latest))["config"]

    def _find(self, strict: bool) -> int | None:
        """Finds the newest intact step, after clearing away what is not intact; in process 0."""
        for unfinished in self.folder.glob("*.tmp"):
            shutil.rmtree(unfinished)
        step, damaged = newest(self.folder)
        if not damaged:
            return step
        if step is None:
            raise DamagedCheckpoint(
                f"no checkpoint in {self.folder} can be used: {describe(damaged)}; bring one "
                "back, or remove the folder to start again"
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
        if self._checkpointer is not None:
            self._checkpointer.wait_until_finished()
        if processes.index() != 0:
            return
        self._check()
        temporary = self.folder / f"{step}.tmp"
        write_manifest(temporary)
        temporary.rename(self.folder / str(step))
        for old in steps(self.folder)[self.keep :]:
            if not self.keep_every or old % self.keep_every:
                # Under another name first: what is half deleted must not look like a checkpoint.
                gone = (self.folder / str(old)).rename(self.folder / f"{old}.tmp")
                shutil.rmtree(gone)

    def _send(self, step: int, written: concurrent.futures.Future[None]) -> None:
        """Hands on a checkpoint once it is complete."""
        written.result()
        if processes.index() == 0:
            self._saved(step)

    def _failed(self, error: Exception) -> WriteFailed:
        return WriteFailed(
            f"a checkpoint could not be written to {self.folder} ({_reason(error)}): free space or "
            "repair the disk; the same command continues from the last checkpoint"
        )


def _checkpointer(*, alone: bool) -> ocp.AsyncCheckpointer:
    """Returns what writes and reads states: of all processes together, or of process 0 alone."""
    together = ocp.options.MultiprocessingOptions(
        active_processes={0} if alone else None,
        barrier_sync_key_prefix="first" if alone else None,
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=together)
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=together)


def read_state(checkpoint: pathlib.Path, like: TrainState, *, alone: bool = False) -> TrainState:
    """Reads the training state of a checkpoint.

    Args:
        checkpoint: its folder.
        like: a state of the same form, or its shapes and shardings. What is stored beside it, of
            an earlier version or with another `ema_decay`, is read and left out.
        alone: called by process 0 only, with NumPy arrays for `like`.

    Raises:
        UserError: the checkpoint is of another model.
        DamagedCheckpoint: the checkpoint cannot be read, although its bytes were intact before.
    """
    path = checkpoint.absolute() / STATE
    with _checkpointer(alone=alone) as reader:
        metadata: Any = reader.metadata(path).item_metadata
        stored = _shapes(metadata.tree)
        wanted: Any = like
        if "rng" in stored:
            key: Any = np.empty(stored["rng"], np.uint32)
            if not alone:
                key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=like.step.sharding)
            wanted = _StateWithRng(like.step, like.params, like.opt_state, key, like.guard)
        elif like.ema is None and any(name.startswith("ema/") for name in stored):
            wanted = dataclasses.replace(like, ema=like.params)
        _check_same_shapes(checkpoint, stored, _shapes(wanted))
        try:
            state = reader.restore(path, args=ocp.args.StandardRestore(wanted))
        except Exception as error:
            raise DamagedCheckpoint(
                f"{checkpoint} cannot be read ({_reason(error)}): the same command verifies it "
                "again, and falls back to one before it"
            ) from error
    return TrainState(
        state.step,
        state.params,
        state.opt_state,
        state.guard,
        None if like.ema is None else state.ema,
    )


def _not_orbax(record: logging.LogRecord) -> bool:
    """Drops what Orbax logs of an error beside raising it: stacks of its threads, once for each."""
    return "--debug" in sys.argv or "orbax" not in record.pathname or not record.exc_info


def _reason(error: Exception) -> str:
    """Returns the first line of an error, or what the operating system said."""
    found = next((e for e in _causes(error) if isinstance(e, OSError) and e.strerror), error)
    text = found.strerror if isinstance(found, OSError) and found.strerror else str(found)
    lines = text.strip().splitlines() or [type(found).__name__]
    return lines[0][:200]


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__  # pyright: ignore[reportAssignmentType]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _check_same_shapes(
    checkpoint: pathlib.Path, there: dict[str, tuple[int, ...]], here: dict[str, tuple[int, ...]]
) -> None:
    """Compares shapes before arrays are read."""
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
