"""The library's log on standard error, for as long as a command runs."""

import contextlib
import logging
import sys
from collections.abc import Iterator


class _Bare(logging.Handler):
    """Prints messages as they are, on the first process only; warnings are marked."""

    def emit(self, record: logging.LogRecord) -> None:
        if _is_first_process():
            mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            print(f"{mark}{record.getMessage()}", file=sys.stderr, flush=True)


def _is_first_process() -> bool:
    jax = sys.modules.get("jax")
    # Asked in this order, a process that uses no accelerator does not claim one here.
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


@contextlib.contextmanager
def shown_log() -> Iterator[None]:
    """Shows the log of `caduceus_jax` on standard error while the block runs; once, if nested."""
    logger, handler = logging.getLogger("caduceus_jax"), _Bare(logging.INFO)
    if any(isinstance(other, _Bare) for other in logger.handlers):
        yield
        return
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
