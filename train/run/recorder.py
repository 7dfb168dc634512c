"""The line of metrics of each step, and the end of a run that skips one step after the other."""

from collections.abc import Callable, Iterable
from typing import Any

from caduceus_jax.train import processes
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.guards import too_many
from caduceus_jax.train.run.due import Due
from caduceus_jax.train.run.goodput import Speed, TimeLedger, device_memory
from caduceus_jax.train.run.report import Report

Row = dict[str, Any]


class Recorder:
    """Writes the metrics of finished steps, each with those of its own step only.

    Args:
        config: settings of the run.
        report: the report that the lines are written to.
        timeline: the run's time.
        windows: number of windows of an epoch.
        first_step: number of steps done when the run continued.
        stage: number of steps and of windows before the stage that is recorded.

    Attributes:
        skipped_in_a_row: number of the newest known steps that were skipped.
    """

    def __init__(
        self,
        config: PretrainConfig,
        report: Report,
        timeline: TimeLedger,
        *,
        windows: int,
        first_step: int,
        stage: tuple[int, int] = (0, 0),
    ):
        self._stage = stage
        self._config, self._report, self._timeline = config, report, timeline
        self._windows, self._first_step = windows, first_step
        self._speed = Speed(config, timeline)
        self._waited = 0.0
        self.skipped_in_a_row = 0

    def record(
        self,
        finished: Iterable[tuple[int, Row]],
        due: Due,
        step: int,
        validate: Callable[[], Row],
        guard: Callable[[], tuple[int, int | None]],
    ) -> None:
        """Writes the lines that are due.

        Args:
            finished: number and metrics of steps, in order; where the newest step is validated,
                all steps up to it.
            due: the lines that are due after the newest step.
            step: the newest step that was dispatched.
            validate: validates the parameters after that step.
            guard: returns the newest step that was not skipped, and the newest checkpoint's step.

        Raises:
            TooManySkipped: too many steps in a row were skipped.
        """
        for done, row in finished:
            self._report.advance(done)
            if done == self._first_step + 1:
                self._speed.begin(done)
            validated = due.evaluate and done == step
            if validated or row["skipped"] or done % self._config.log_every == 0:
                row |= self._measured(done)
                if validated:
                    with self._timeline.during("validate"):
                        row |= validate()
                self._report.write(done, row)
            self.skipped_in_a_row = int(row["skipped_in_a_row"])
            if self.skipped_in_a_row >= self._config.max_skipped:
                raise too_many(self.skipped_in_a_row, *guard(), self._config.out)

    def _measured(self, done: int) -> Row:
        steps, windows = self._stage
        here = (done - steps) * self._config.batch_size
        return {
            **self._speed.since_last(done),
            **self._timeline.goodput(),
            **device_memory(),
            **self._slowest(),
            "examples": windows + here,
            "epochs": here / self._windows,
        }

    def _slowest(self) -> Row:
        """Finds the host that waited longest for its input since the last line."""
        if processes.count() == 1:
            return {}
        waited = self._timeline.seconds["input"]
        since, self._waited = waited - self._waited, waited
        found = processes.all_gather("seconds waiting for input", since)
        slowest = max(range(len(found)), key=found.__getitem__)
        return {
            "slowest_host": processes.host_name(slowest),
            "slowest_input_seconds": found[slowest],
        }
