"""Ends a process that stands still: nothing else notices a run that neither fails nor goes on."""

import collections
import contextlib
import faulthandler
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from caduceus_jax.train import processes
from caduceus_jax.train.cluster.peers import leave, say

STATUS = 1  # exit status of a process that stood still
_RECENT = 100  # steps whose median says what a step takes
_MEDIANS = 10  # so many medians are too long
_LOOK_SECONDS = 1.0


class Watchdog:
    """Watches that steps finish; a context manager, once in every process of a run.

    If nothing was finished for `seconds`, or for ten times the median of the last hundred steps if
    that is longer, the stacks of all threads are written to standard error and the process ends
    with status 1. Work that may take any time, such as compiling, is done inside `paused`.

    A process that itself stood still (a stopped virtual machine) does not count that time.

    Args:
        seconds: the limit; None never ends the process.
    """

    def __init__(self, seconds: float | None):
        self._seconds = seconds
        self._ended = threading.Event()
        self._pauses = 1  # until the first step is done
        self._step, self._compiled = 0, set[str]()
        self._at = time.monotonic()
        self._took: collections.deque[float] = collections.deque(maxlen=_RECENT)

    def __enter__(self) -> "Watchdog":
        if self._seconds is not None:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def step(self, step: int) -> None:
        """Notes that a step is known to be done; the first one starts the watch."""
        now = time.monotonic()
        if self._pauses and not self._step:
            self._pauses -= 1
        else:
            self._took.append(now - self._at)
        self._step, self._at = step, now

    @contextlib.contextmanager
    def work(self, kind: str) -> Iterator[None]:
        """Counts the block as progress; the first of its kind is not watched, as it is compiled.

        Args:
            kind: kind of work, such as "validation".
        """
        with contextlib.nullcontext() if kind in self._compiled else self.paused():
            yield
        self._compiled.add(kind)
        self._at = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not watch while the block runs."""
        self._pauses += 1
        try:
            yield
        finally:
            self._at = time.monotonic()
            self._pauses -= 1

    @property
    def limit(self) -> float:
        """Seconds without a finished step after which the process ends."""
        median = statistics.median(list(self._took)) if self._took else 0.0
        return max(self._seconds or 0.0, _MEDIANS * median)

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            now = time.monotonic()
            if now - before > 10 * _LOOK_SECONDS:
                self._at += now - before
            before = now
            if not self._pauses and now - self._at > self.limit:
                self._end(now - self._at)

    def _end(self, idle: float) -> Any:
        faulthandler.dump_traceback(all_threads=True)
        last = f"the last one was step {self._step}"
        say(
            f"{processes.host_name(processes.index())} of {processes.count()} ends: no step was "
            f"finished for {idle:.0f} s ({last}); the stacks of its threads are above; another "
            "process, its network or the disk may have failed; start the same command again"
        )
        leave(STATUS)
