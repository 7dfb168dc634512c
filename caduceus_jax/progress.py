"""Progress of long work: a bar on a terminal, a line now and then anywhere else."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
    """Yields `items` while showing how many of `total` are done, on standard error.

    Args:
        items: what is worked through.
        total: how many there will be.
        what: the work, for example "embedding".
        unit: what is counted, for example "sequences".
    """
    if sys.stderr.isatty():
        from rich.console import Console

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield from progress.track(items, total=total, description=what)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total or now - said > _SECONDS_BETWEEN_LINES:
            said = now
            print(f"{what}: {done}/{total} {unit}, {now - start:.0f} s", file=sys.stderr)
