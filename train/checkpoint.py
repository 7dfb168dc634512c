"""Checkpoints of a run: all that a step changes, and the place in the data."""

import pathlib
from typing import Any

import grain
import orbax.checkpoint as ocp

from caduceus_jax.train.step import TrainState


class Checkpoints:
    """The checkpoints of one run's folder; a context manager that waits for the last one.

    Args:
        folder: made when the first one is written.
        keep: the newest this many stay.
    """

    def __init__(self, folder: pathlib.Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        # Writing goes on in the background until here.
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The newest step that was written completely, or None."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, batches: grain.DatasetIterator, config: dict[str, Any]
    ) -> None:
        """Writes a checkpoint of the state's step; does nothing where there is one already.

        Args:
            state: at the end of a step.
            batches: the iterator that gave that step's batch.
            config: the run's, as plain values.
        """
        step = int(state.step)
        if step != self.latest:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    data=grain.checkpoint.CheckpointSave(batches),
                    config=ocp.args.JsonSave(config),
                ),
            )

    def restore(self, like: TrainState, batches: grain.DatasetIterator) -> TrainState:
        """Reads the newest checkpoint.

        Args:
            like: a state of the same form, or its shapes and shardings.
            batches: an iterator over the same data, which is moved to where the run was.

        Returns:
            The state."""
        restored = self._manager.restore(
            self.latest,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like),
                data=grain.checkpoint.CheckpointRestore(batches),
            ),
        )
        return restored["state"]
