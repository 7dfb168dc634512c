"""A trace of a few steps, on demand."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax


class Profile:
    """Traces some steps of a run, host and devices; a context manager that ends an open trace.

    Args:
        steps: which.
        folder: folder for the trace.
        say: shows a line.
    """

    def __init__(self, steps: range, folder: pathlib.Path, say: Callable[[str], None]):
        self._steps, self._folder, self._say = steps, folder, say
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int, state: Any) -> None:
        """Begins or ends the trace where it is time to.

        Args:
            step: about to be dispatched.
            state: state that the step will be given; it is waited for here and nowhere else.
        """
        if (step in self._steps) == self._tracing:
            return
        jax.block_until_ready(state)
        if self._tracing:
            self._stop()
        else:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._tracing = True

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            self._say(
                f"traced steps {self._steps.start} to {self._steps.stop - 1}: open "
                "perfetto_trace.json.gz, deep inside "
                f"{self._folder}, at https://ui.perfetto.dev, or all of it with pip install xprof "
                f"&& xprof --logdir {self._folder}"
            )
