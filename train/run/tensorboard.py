"""Scalars for TensorBoard, written by the thread that calls.

tensorboardX's own writer hands them to a thread: if that dies of a full disk, whoever writes next
waits for it forever.
"""

import os
import pathlib
import time
from collections.abc import Mapping

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import HistogramProto, Summary


class ScalarWriter:
    """Writes one event file.

    Args:
        folder: made if it does not exist.
        purge_step: TensorBoard hides what earlier files of the folder have from this step on.

    Attributes:
        path: the file.
    """

    def __init__(self, folder: pathlib.Path, *, purge_step: int | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.iterdir())
        # Two runs may begin in one second, which is all that the file's name tells apart.
        self._events = EventsWriter(str(folder / "events"), f".{os.getpid()}.{len(before)}")
        self.path = next(iter(set(folder.iterdir()) - before), folder)
        if purge_step is not None:
            self._events.write_event(
                Event(
                    wall_time=time.time(),
                    step=purge_step,
                    session_log=SessionLog(status=SessionLog.START),
                )
            )
        self._events.flush()

    def write(self, step: int, values: Mapping[str, float | list[float]]) -> None:
        """Writes the values of a step, and sees that they reach the file.

        Args:
            step: step of the values.
            values: values by name; a list of numbers becomes a histogram.

        Raises:
            OSError: the file cannot be written.
        """
        now = time.time()
        for name, value in values.items():
            if isinstance(value, list):
                shown = Summary.Value(tag=name, histo=_histogram(value))
            else:
                shown = Summary.Value(tag=name, simple_value=value)
            event = Event(wall_time=now, step=step, summary=Summary(value=[shown]))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        try:
            self._events.close()
        except OSError:  # reported by `write` already
            pass


def _histogram(values: list[float]) -> HistogramProto:
    """Counts finite values in up to 30 bins of equal width."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    counts, edges = np.histogram(found, bins=30)
    return HistogramProto(
        min=found.min(initial=np.inf),
        max=found.max(initial=-np.inf),
        num=found.size,
        sum=found.sum(),
        sum_squares=np.square(found).sum(),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
