"""The library's log on standard error, for as long as a command runs."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from caduceus_jax.progress import is_first_process


class _Bare(logging.Handler):
    """Prints messages as they are, on the first process only; warnings are marked."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        if is_first_process():
            mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            print(f"{mark}{record.getMessage()}", file=sys.stderr, flush=True)


class _Others(logging.StreamHandler):
    """Prints the warnings of other libraries, as logging does where nothing is configured.

    A handler of the root logger keeps libraries from configuring one, which would print every
    message of this package a second time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setLevel(logging.WARNING)
        self.addFilter(lambda record: record.name.partition(".")[0] != "caduceus_jax")


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Shows the log of `caduceus_jax` on standard error while the block runs; once, if nested."""
    logger, handler = logging.getLogger("caduceus_jax"), _Bare(logging.INFO)
    if any(isinstance(other, _Bare) for other in logger.handlers):
        yield
        return
    level, root, others = logger.level, logging.getLogger(), _Others()
    if not root.handlers:
        root.addHandler(others)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(others)
        logger.removeHandler(handler)
        logger.setLevel(level)
