"""Decides what is to be done after a step."""

import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from caduceus_jax.train import processes
from caduceus_jax.train.config import PretrainConfig


class Due(NamedTuple):
    """Says what is to be done after a step."""

    log: bool  # write its line of metrics
    evaluate: bool  # validate the parameters
    save: bool  # write a checkpoint
    stop: signal.Signals | None  # end the run, on this signal
    last: bool  # the stage, or this process, ends after this step

    @property
    def wait(self) -> bool:
        """Tells whether all steps that were dispatched must be known before."""
        return self.evaluate or self.save


class Timetable:
    """Decides when a run logs, validates and saves.

    Args:
        config: settings of the run.
        ends: the last step of each stage; by default there is one.
    """

    def __init__(self, config: PretrainConfig, ends: Sequence[int] = ()):
        self._config = config
        self._ends = ends or (config.steps,)
        self._saved = time.monotonic()

    def at(self, step: int, *, stop: signal.Signals | None = None) -> Due:
        """Decides what is due after a step; all processes ask, and hear the same.

        Args:
            step: the step that was dispatched.
            stop: the signal that the run ends on after this step, if it does.
        """
        config = self._config
        ends = step in self._ends
        evaluate = ends or step % config.eval_every == 0
        log = evaluate or step % config.log_every == 0
        every = [config.checkpoint_every, *([config.keep_every] if config.keep_every else [])]
        save = ends or stop is not None or any(step % each == 0 for each in every)
        if config.checkpoint_minutes is not None and log:
            # The processes wait for each other here anyway. Process 0's clock counts.
            elapsed = processes.broadcast_from_first(
                "seconds since a checkpoint", lambda: time.monotonic() - self._saved
            )
            save = save or elapsed >= 60 * config.checkpoint_minutes
        if save:
            self._saved = time.monotonic()
        return Due(log, evaluate, save, stop, ends or stop is not None)
