"""Interruption: the signals by which a terminal or a scheduler asks a run to stop."""

import signal
import threading
import types

from jax.experimental import multihost_utils

from caduceus_jax.train import processes

# What the process exits with after it has saved: a scheduler knows 75 (EX_TEMPFAIL) as "again".
EXIT_STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Interruption:
    """While open, the first SIGTERM or SIGINT is only noted, so that the loop can save and leave.

    A second SIGINT stops at once; a second SIGTERM changes nothing.

    Of several processes it is enough that one is asked. JAX's preemption service tells the others
    and names the step that all stop after: it listens to SIGTERM itself, and costs a step nothing
    until a signal comes. There Ctrl-C counts as SIGTERM.

    Attributes:
        signal: the one that came to this process, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "Interruption":
        # Python lets only the main thread of a program receive signals.
        main = threading.current_thread() is threading.main_thread()
        numbers = set(EXIT_STATUS) if main else set()
        if processes.count() > 1:
            numbers.discard(signal.SIGTERM)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after(self, step: int) -> signal.Signals | None:
        """Returns the signal to stop on now; all processes ask after every step and get the same.

        Args:
            step: the last step that is done; higher each time.
        """
        if processes.count() == 1:
            return self.signal
        return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None

    def _note(self, number: int, _: types.FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if processes.count() > 1:
            signal.raise_signal(signal.SIGTERM)
