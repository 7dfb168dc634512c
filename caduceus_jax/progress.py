"""Progress of long work: a bar on a terminal or in a notebook, a line now and then elsewhere."""

import importlib.util
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_UPDATES = 0.5


def track(items: Iterable[T], *, total: int, what: str, unit: str) -> Iterator[T]:
    """Yields `items` while showing how many of `total` are done; on the first process only.

    Args:
        items: the items to work through.
        total: number of items.
        what: the work, for example "embedding".
        unit: name of what is counted, for example "sequences".
    """
    if not is_first_process():
        yield from items
    elif sys.stderr.isatty() or (in_notebook() and importlib.util.find_spec("ipywidgets")):
        with bar(unit) as progress:
            yield from progress.track(items, total=total, description=what)
    else:
        yield from _lines(items, total, what, unit)


def bar(unit: str = "", *columns: "ProgressColumn") -> "Progress":
    """Makes a progress bar of rich, for a terminal (on standard error) or a notebook.

    Args:
        unit: name of what is counted.
        columns: shown after the times.
    """
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TextColumn("elapsed"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("remaining"),
        progress.TimeRemainingColumn(),
        *columns,
        console=Console() if in_notebook() else Console(stderr=True),
    )


def in_notebook() -> bool:
    """Tells whether this is a Jupyter notebook (not a terminal of IPython)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def is_first_process() -> bool:
    """Tells whether this process is the first, or the only one, of a JAX program."""
    if "jax" not in sys.modules:
        return True
    # `jax.process_index` would start the devices, which waits for all other processes: of two that
    # run one model, the first may write a line of the log before the other touches its devices.
    from jax._src import distributed

    return not distributed.global_state.client or distributed.global_state.process_id == 0


def _lines(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    """Shows progress as text: in place in a notebook, otherwise as lines on standard error."""
    say, pause = _print, _SECONDS_BETWEEN_LINES
    if in_notebook():
        say, pause = _InPlace(), _SECONDS_BETWEEN_UPDATES
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total or now - said > pause:
            said, elapsed = now, now - start
            remaining = elapsed / done * (total - done)
            text = f"{what}: {done:,}/{total:,} {unit}, elapsed {_clock(elapsed)}"
            say(text if done == total else f"{text}, remaining {_clock(remaining)}")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _InPlace:
    """Shows a text in a notebook's output, each time in the place of the one before."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, text: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
