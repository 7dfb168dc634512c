"""Accounts for the time of a run without holding up the device.

A step is dispatched and computed later, so the host's clock around a call says little. Here a
thread waits for each step and notes when it was done. A step takes from when the one before it was
done, or from its dispatch if that was later; this is the time in which the device computes. All
other time is the device's idle time, and is attributed to what the host was doing then: an input
that is prepared while the device computes costs nothing, and is not counted.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import jax

from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.planning.step_costs import step_costs
from caduceus_jax.train.run.background import in_background

S = TypeVar("S")
B = TypeVar("B")
Metrics = Mapping[str, jax.Array]  # scalars, or one number per layer
Step = Callable[[S, B], tuple[S, Metrics]]

# Steps that are dispatched beyond the newest one known to be done. One keeps the device busy while
# the host prepares the next; more would only delay what the host learns about them.
IN_FLIGHT = 2
KINDS = {
    "step": "in steps",
    "input": "waiting for input",
    "compile": "compiling, with the first step",
    "save": "saving",
    "validate": "validating",
    "start": "starting and restarting",
    "host": "between steps",
    "lost": "lost: steps done again after the last checkpoint",
}


class TimeLedger:
    """Divides a run's time by what it was spent on; every second counts once.

    Args:
        begun: start of the run, on the clock `now`.
        before: seconds by kind that earlier parts of the same run took.
        now: the clock.

    Attributes:
        seconds: seconds by kind (the keys of `KINDS`), up to the end of the newest finished step.
    """

    def __init__(
        self,
        begun: float,
        before: Mapping[str, float] | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        self.seconds = dict.fromkeys(KINDS, 0.0) | dict(before or {})
        self.now = now
        self._counted = begun
        # What the host does, and since when.
        self._doing: list[tuple[str, float]] = [("start", begun)]

    def begin(self, kind: str) -> None:
        """Notes that the host begins work of another kind."""
        self._doing.append((kind, self.now()))

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Counts the block as work of this kind, and what follows it as "host"."""
        self.begin(kind)
        yield
        self.begin("host")

    def step(self, dispatched: float, done: float) -> None:
        """Notes when a step was dispatched and done; steps come in order."""
        self.count_until(dispatched)
        self.seconds["step"] += max(done - self._counted, 0.0)
        self._counted = max(done, self._counted)

    def count_until(self, until: float) -> None:
        """Counts the time from the last step's end until `until` as idle."""
        ends = [*(since for _, since in self._doing[1:]), until]
        for (kind, since), end in zip(self._doing, ends, strict=True):
            idle = min(end, until) - max(since, self._counted)
            self.seconds[kind] += max(idle, 0.0)
        self._counted = max(until, self._counted)
        self._doing = [
            doing
            for doing, end in zip(self._doing, [*ends[:-1], float("inf")], strict=True)
            if end > self._counted
        ]

    def goodput(self) -> dict[str, float]:
        """Returns the seconds by kind, and the share of all time that the device spent in steps."""
        total = sum(self.seconds.values())
        named = {f"seconds_{kind}": spent for kind, spent in self.seconds.items()}
        return {**named, "goodput": self.seconds["step"] / total if total else 0.0}


def carried(rows: Sequence[Mapping[str, Any]], first_step: int) -> dict[str, float]:
    """Computes the seconds by kind of a run's earlier parts.

    Args:
        rows: all metrics that the run wrote.
        first_step: number of steps at the checkpoint that it continues from; time after it is
            counted as lost.
    """

    def spent(rows: list[Mapping[str, Any]]) -> dict[str, float]:
        """Returns the seconds by kind in the last row that has them."""
        last = next((row for row in reversed(rows) if "goodput" in row), {})
        return {kind: last.get(f"seconds_{kind}", 0.0) for kind in KINDS}

    kept = spent([row for row in rows if row["step"] <= first_step])
    kept["lost"] += sum(spent(list(rows)).values()) - sum(kept.values())
    return kept


class InFlightSteps:
    """Holds the steps that were dispatched and are not known to be done.

    Args:
        timeline: the ledger that the time of each step is entered in.
    """

    def __init__(self, timeline: TimeLedger):
        self._timeline = timeline
        self._compiled = False
        self._waiting: collections.deque[tuple[int, Metrics, float, Future[float]]]
        self._waiting = collections.deque()

    def run(self, number: int, step: Step[S, B], state: S, batch: B) -> S:
        """Dispatches a step; the first one is compiled, and waited for.

        Args:
            number: number of the step.
            step: the function (state, batch) -> (state, metrics).
            state: the state before the step.
            batch: the batch of the step.

        Returns:
            The state after the step.
        """
        dispatched = self._timeline.now()
        if self._compiled:
            state, metrics = step(state, batch)
        else:
            with self._timeline.during("compile"):
                state, metrics = jax.block_until_ready(step(state, batch))
            dispatched, self._compiled = self._timeline.now(), True
        self._waiting.append((number, metrics, dispatched, in_background(self._end, metrics)))
        return state

    def finished(self, *, wait: bool) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields number and metrics of each step that is done, once and in order.

        Args:
            wait: wait for all steps; otherwise the newest `IN_FLIGHT` may still be computed.
        """
        while len(self._waiting) > (0 if wait else IN_FLIGHT):
            number, metrics, dispatched, end = self._waiting.popleft()
            self._timeline.step(dispatched, end.result())
            yield number, {key: value.tolist() for key, value in jax.device_get(metrics).items()}

    def _end(self, metrics: Metrics) -> float:
        jax.block_until_ready(metrics)
        return self._timeline.now()


class Speed:
    """Measures how fast steps are, from one line of metrics to the next.

    Args:
        config: the settings of the run.
        timeline: the run's time.
    """

    def __init__(self, config: PretrainConfig, timeline: TimeLedger):
        costs = step_costs(config).values()
        self._work = {
            "flops_per_second": sum(cost.flops for cost in costs),
            "bytes_per_second": sum(cost.bytes for cost in costs),
        }
        self._tokens = config.batch_size * config.max_length
        self._timeline = timeline
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begins to measure at the end of this step."""
        self._step, self._seconds = step, dict(self._timeline.seconds)

    def since_last(self, step: int) -> dict[str, float]:
        """Computes tokens per second, seconds per step, and work per second of steps.

        Tokens are divided by all time except that of validating, saving and starting; the work is
        counted by `step_costs`, over all devices. If no step was measured there are only tokens
        per second, and these are 0.

        Args:
            step: the newest step that is done.
        """
        steps, seconds = step - self._step, self._timeline.seconds
        spent = {kind: seconds[kind] - self._seconds[kind] for kind in ("step", "input", "host")}
        self.begin(step)
        if not steps or not spent["step"]:
            return {"tokens_per_second": 0.0}
        each = spent["step"] / steps
        return {
            "tokens_per_second": steps * self._tokens / sum(spent.values()),
            "step_seconds": each,
            **{name: amount / each for name, amount in self._work.items()},
        }


def device_memory() -> dict[str, float]:
    """Returns the peak bytes in use on any device of this process, if devices report it."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [float(found["peak_bytes_in_use"]) for found in stats if "peak_bytes_in_use" in found]
    return {"device_peak_bytes": max(peaks)} if peaks else {}


def time_lines(seconds: Mapping[str, float]) -> list[str]:
    """Formats where the time went, for the end of a run."""
    total = sum(seconds.values())
    rows = [
        f"  {KINDS[kind]:34} {seconds[kind]:10,.1f} s {seconds[kind] / total:7.1%}"
        for kind in KINDS
        if seconds[kind] or kind == "step"
    ]
    return [f"where {total:,.1f} s went:", *rows]
