"""Timing of calls, and the most that a machine can do."""

import math
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.arithmetic import exp
from caduceus_jax.version import __version__

# A clock that starts and stops for each call of a few microseconds measures the dispatch of the
# call, so several calls are in flight between two readings of the clock: about this many seconds.
_IN_FLIGHT_SECONDS, _MOST_IN_FLIGHT = 0.02, 64
_MOST_REPEATS = 20


def compile_call(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Compiles a call.

    Args:
        function: the function; one that is jitted already keeps its options.
        arguments: the arguments of the call.

    Returns:
        The call, and its cost: the time to compile (`compile_ms`) and the memory it needs beside
        arguments and results (`temporary_bytes`, -1 where XLA does not report it).
    """
    compiled, cost = compile_for(function, arguments)
    return lambda: compiled(*arguments), cost


def compile_for(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Compiles a function for arguments that may be abstract; returns the program and its cost."""
    start = time.perf_counter()
    jitted = function if isinstance(function, jax.stages.Wrapped) else jax.jit(function)
    return compile_lowered(jitted.lower(*arguments), start)


def compile_lowered(
    lowered: jax.stages.Lowered, start: float
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Finishes `compile_for`, which began at `start` by `time.perf_counter`."""
    compiled = lowered.compile()
    compile_ms = 1e3 * (time.perf_counter() - start)
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes if memory else -1
    return compiled, {"compile_ms": compile_ms, "temporary_bytes": temporary}


def timed(
    function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int
) -> dict[str, float]:
    """Times a compiled call and its compilation, in ms, and reports its temporary memory."""
    call, cost = compile_call(function, arguments)
    jax.block_until_ready(call())
    times = [_clock(call, jax.block_until_ready, 1) for _ in range(repeats)]
    return _spread(times) | cost


def timed_within(
    call: Callable[[], Any], wait: Callable[[Any], object], seconds: float
) -> dict[str, float]:
    """Times a call, in ms; it is repeated for about `seconds`, at least twice.

    Short calls are launched several at a time, so that the device does not wait for the host; the
    time of one is then the time of all over their number.

    Args:
        call: launches the work and returns its results, which may not be ready.
        wait: returns when the results that it is given are ready.
        seconds: time for which to repeat the call.

    Returns:
        `median_ms`, `min_ms`, `max_ms`, `repeats`, and how many calls were in flight at a time.
    """
    wait(call())
    once = _clock(call, wait, 1)
    in_flight = min(max(1, math.ceil(_IN_FLIGHT_SECONDS / once)), _MOST_IN_FLIGHT)
    repeats = min(max(2, int(seconds / (once * in_flight))), _MOST_REPEATS)
    times = [once] if in_flight == 1 else []
    times += [_clock(call, wait, in_flight) for _ in range(repeats - len(times))]
    return _spread(times) | {"repeats": repeats, "calls_in_flight": in_flight}


def _clock(call: Callable[[], Any], wait: Callable[[Any], object], calls: int) -> float:
    """Returns the seconds per call of several calls in flight."""
    start = time.perf_counter()
    # Only the smallest result of each call is held: large ones would add up in memory.
    wait([min(jax.tree.leaves(call()), key=lambda leaf: leaf.nbytes) for _ in range(calls)])
    return (time.perf_counter() - start) / calls


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median_ms": 1e3 * statistics.median(seconds),
        "min_ms": 1e3 * min(seconds),
        "max_ms": 1e3 * max(seconds),
    }


def one_line(error: BaseException) -> str:
    """Formats an error as one line, without the pages that a compiler may add."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text[:300]}".removesuffix(": ")


def platform_of_jax() -> dict[str, str]:
    """Returns the JAX version, platform and device."""
    return {
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }


def machine() -> dict[str, Any]:
    """Returns the device, all versions, and the command that was given."""
    device = jax.devices()[0]
    return platform_of_jax() | {
        "driver": " ".join(device.client.platform_version.split()),
        "python": platform.python_version(),
        "caduceus_jax": __version__,
        "command": shlex.join(["caduceus-jax", *sys.argv[1:]]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def rates(dtypes: Sequence[str] = ()) -> dict[str, float]:
    """Measures what this machine can do per second.

    Args:
        dtypes: dtypes whose matrix products are measured too.

    Returns:
        `bytes` moved, `exponentials` taken, and for each dtype the operations of matrix products.
    """
    found = {"bytes": copy_bandwidth(), "exponentials": exponential_rate()}
    return found | {dtype: matrix_product_rate(dtype) for dtype in dtypes}


def copy_bandwidth() -> float:
    """Measures bytes per second, read and written, of copying an array larger than any cache."""
    x = jnp.arange(2**27 if jax.default_backend() == "gpu" else 2**26, dtype=jnp.float32)
    return 2 * x.nbytes / _least_seconds(lambda x: -x, x)


def exponential_rate() -> float:
    """Measures exponentials per second, as fast as the device takes them.

    On a GPU it times a chain of reciprocal roots: they run on the same units as powers of two, at
    the same rate (CUDA C++ Programming Guide, throughput of native arithmetic instructions), and
    XLA puts three instructions around each, where an exponential has seven and would be bound by
    those. The chain is one fused kernel: a loop would write its numbers to memory in every round.
    """

    def fused(x: jax.Array) -> jax.Array:
        """Takes the roots in one kernel."""
        for _ in range(rounds):
            x = jax.lax.rsqrt(x)
        return x

    def loop(x: jax.Array) -> jax.Array:
        """Takes the exponentials one after another."""
        return jax.lax.fori_loop(0, rounds, lambda _, y: exp(-y), x)

    # On a CPU, the numbers stay in cache, and the scan's own exponentials are faster than XLA's.
    gpu = jax.default_backend() == "gpu"
    size, rounds = (2**26, 64) if gpu else (2**14, 1024)
    return size * rounds / _least_seconds(fused if gpu else loop, jnp.linspace(0.5, 1, size))


def matrix_product_rate(dtype: str) -> float:
    """Measures operations per second of a large square matrix product; a multiply-add is two."""
    size = 8192 if jax.default_backend() == "gpu" else 1024
    return 2 * size**3 / _least_seconds(lambda x: x @ x, jnp.ones((size, size), dtype))


def _least_seconds(function: Callable[..., Any], x: jax.Array) -> float:
    call, _ = compile_call(function, (x,))
    return timed_within(call, jax.block_until_ready, seconds=1.0)["min_ms"] / 1e3
