"""The TPU that kernels are compiled for: the one at hand, or one that is named."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_named: contextvars.ContextVar[str | None] = contextvars.ContextVar("_named", default=None)


def kind() -> str:
    """Returns what JAX calls the TPU that kernels are compiled for; "" where there is none."""
    named = _named.get()
    if named is not None:
        return named
    return jax.local_devices()[0].device_kind if jax.default_backend() == "tpu" else ""


@contextlib.contextmanager
def compiling_for(kind: str) -> Iterator[None]:
    """Makes what is traced inside be compiled for a TPU that need not be here.

    Args:
        kind: JAX's name of it, such as "TPU v4".
    """
    token = _named.set(kind)
    try:
        yield
    finally:
        _named.reset(token)
