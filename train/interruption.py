"""Being asked to stop: the signals of a terminal and of a scheduler."""

import signal
import threading
import types

# What the process exits with after it has saved: a scheduler knows 75 (EX_TEMPFAIL) as "again".
EXIT_STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130}


class Interruption:
    """While open, the first SIGTERM or SIGINT is only noted, so that the loop can save and leave.

    A second SIGINT stops at once.

    Attributes:
        signal: the one that came, or None.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "Interruption":
        # Python lets only the main thread of a program receive signals.
        main = threading.current_thread() is threading.main_thread()
        numbers = EXIT_STATUS if main else ()
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: types.FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
