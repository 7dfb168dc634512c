"""The GPU that kernels are compiled for: the one at hand, or one that is named."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import mlir

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
        NotImplementedError: the device is not a GPU by NVIDIA.
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


def refuse_export(x: jax.Array) -> jax.Array:
    """Returns an array as it is, and refuses to be lowered for `jax.export`.

    Compiled kernels are for one GPU and one version of JAX, which an exported program outlives.
    Only where a program is lowered is it known that it is to be exported.
    """
    return _refuse_export.bind(x)


_refuse_export = core.Primitive("refuse_export")
_refuse_export.def_impl(lambda x: x)
_refuse_export.def_abstract_eval(lambda x: x)


def _lower(context: Any, x: Any) -> list[Any]:
    if context.module_context.lowering_parameters.for_export:
        raise NotImplementedError(
            "fused GPU kernels in jax.export; supported: implementation='chunked'"
        )
    return [x]


mlir.register_lowering(_refuse_export, _lower)
