"""The GPU that kernels are compiled for: the one at hand, or one that is named."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax

# Hopper's: what is compiled for where there is neither a GPU nor a name.
_OTHERWISE = 90
_named: contextvars.ContextVar[int | None] = contextvars.ContextVar("_named", default=None)


def compute_capability() -> int:
    """Returns the compute capability that kernels are compiled for, such as 90 for 9.0.

    Raises:
        NotImplementedError: the GPU at hand is not one of NVIDIA's.
    """
    named = _named.get()
    if named is not None:
        return named
    if jax.default_backend() != "gpu":
        return _OTHERWISE
    return capability_of(jax.local_devices(backend="gpu")[0])


def capability_of(device: Any) -> int:
    """Returns the compute capability of a JAX device, such as 90 for 9.0.

    Raises:
        NotImplementedError: it is not a GPU by NVIDIA.
    """
    text = str(getattr(device, "compute_capability", ""))
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise NotImplementedError(
            f"a device of architecture {text or 'unknown'}; supported: GPUs by NVIDIA"
        )
    return 10 * int(major) + int(minor)


def float32_lanes(capability: int) -> int:
    """Returns the float32 operations that a multiprocessor begins per cycle."""
    return 64 if capability in (75, 80) else 128


@contextlib.contextmanager
def compiling_for(capability: int) -> Iterator[None]:
    """Makes what is traced inside be compiled for a GPU that need not be here.

    Args:
        capability: its compute capability, such as 90 for 9.0.
    """
    token = _named.set(capability)
    try:
        yield
    finally:
        _named.reset(token)
