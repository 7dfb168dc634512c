"""Work beside the training loop, which never keeps a process from ending."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def in_background(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Calls a function in a thread of its own.

    The thread is a daemon: what hangs in it, such as a write to a disk that does not answer, is
    given up when the process ends. Threads of `concurrent.futures` would be waited for.

    Args:
        function: the function to call.
        *arguments: its arguments.

    Returns:
        Its result, or the error that it raised.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
