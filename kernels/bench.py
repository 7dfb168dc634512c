"""`caduceus-jax bench`: the kernels timed on this machine, beside what the machine can do."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.selective_scan import selective_scan

Implementation = Literal["reference", "chunked"]


def bench(
    suite: Literal["scan"],
    *,
    implementation: Implementation = "chunked",
    batch: int = 4,
    length: int = 1024,
    channels: int = 256,
    state: int = 16,
    dtype: Literal["float32", "bfloat16"] = "float32",
    chunk_length: int | None = None,
    inner: Literal["sequential", "associative"] | None = None,
    repeats: int = 10,
    skip_reference: bool = False,
) -> None:
    """Times a kernel, forward and with gradients, and prints one JSON object.

    Times are in milliseconds: the median of the repeats, the least and the greatest. The floor is
    the larger of two times: the bytes the operation must move at the copy bandwidth measured here,
    and the exponentials it must take at the rate measured here. The backward pass must take them
    once more. "floor_share" is that floor over the median.

    Example: caduceus-jax bench scan --batch 1 --length 131072 --channels 512

    Args:
        suite: what to time; "scan" is the selective scan with D, z, bias and softplus.
        implementation: which implementation of it.
        batch: sequences.
        length: tokens of each.
        channels: channels of each.
        state: states of each channel.
        dtype: of the sequences; the recurrence runs in float32.
        chunk_length: tokens a chunk of "chunked"; its own choice by default.
        inner: form of the recurrence inside a chunk of "chunked"; its own choice by default.
        repeats: timed runs after one that is not.
        skip_reference: do not time the reference, which is slow on long sequences.
    """
    inputs = _inputs(batch, length, channels, state, jnp.dtype(dtype))
    chosen = _options(implementation, chunk_length, inner)
    forward = _timed(_forward(chosen), inputs, repeats)
    gradient = _timed(_gradient(chosen), inputs, repeats)
    copy, exponential = _copy_bandwidth(), _exponential_rate()
    counted = _counted(inputs, state)
    floors = {
        name: 1e3 * max(counted[name]["bytes"] / copy, counted[name]["exponentials"] / exponential)
        for name in ("forward", "forward_backward")
    }
    report: dict[str, Any] = {
        "suite": suite,
        "implementation": implementation,
        "chunk_length": chunk_length,
        "inner": inner,
        "shape": {"batch": batch, "length": length, "channels": channels, "state": state},
        "dtype": dtype,
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "copy_bytes_per_s": copy,
            "exponentials_per_s": exponential,
        },
        "jax": jax.__version__,
        "counted": counted,
    }
    for name, times in (("forward", forward), ("forward_backward", gradient)):
        report[name] = times | {"floor_ms": floors[name]}
        report[name]["floor_share"] = floors[name] / times["median_ms"]
    if not skip_reference:
        for name, function in (("forward", _forward), ("forward_backward", _gradient)):
            slow = _timed(function("reference"), inputs, max(1, repeats // 5))
            report[name]["reference_ms"] = slow["median_ms"]
            report[name]["times_faster"] = slow["median_ms"] / report[name]["median_ms"]
    print(json.dumps(report, indent=2))


def _options(implementation: str, chunk_length: int | None, inner: Any) -> Any:
    from caduceus_jax.kernels.chunked import Chunked

    if implementation == "chunked":
        return Chunked(chunk_length, inner)
    if chunk_length is not None or inner is not None:
        raise ValueError(f"--chunk-length and --inner are options of chunked, not {implementation}")
    return implementation


def _inputs(
    batch: int, length: int, channels: int, state: int, dtype: jnp.dtype
) -> dict[str, jax.Array]:
    """Random arguments of the size a trained model has."""
    keys = iter(jax.random.split(jax.random.key(0), 8))

    def normal(*shape: int, dtype: Any = dtype) -> jax.Array:
        return jax.random.normal(next(keys), shape, dtype)

    return {
        "u": normal(batch, length, channels),
        "delta": normal(batch, length, channels),
        "A": -jnp.exp(normal(channels, state, dtype=jnp.float32)),
        "B": normal(batch, length, state),
        "C": normal(batch, length, state),
        "D": normal(channels, dtype=jnp.float32),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels, dtype=jnp.float32) - 4,
    }


def _forward(implementation: Any) -> Callable[..., Any]:
    return lambda inputs: selective_scan(**inputs, implementation=implementation)


def _gradient(implementation: Any) -> Callable[..., Any]:
    """Output and the gradients of every input, for a cotangent that is not constant."""

    def run(inputs):
        scan = lambda inputs: selective_scan(**inputs, implementation=implementation)  # noqa: E731
        y, pull_back = jax.vjp(scan, inputs)
        return y, pull_back(y)

    return run


def _timed(function: Callable[..., Any], argument: Any, repeats: int) -> dict[str, float]:
    """Median, least and greatest time in ms of a compiled call, and its temporary memory."""
    compiled = jax.jit(function).lower(argument).compile()
    jax.block_until_ready(compiled(argument))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(argument))
        times.append(1e3 * (time.perf_counter() - start))
    memory = compiled.memory_analysis()
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "temporary_bytes": memory.temp_size_in_bytes if memory else -1,
    }


def _counted(inputs: dict[str, jax.Array], state: int) -> dict[str, dict[str, int]]:
    """What must be moved and computed at the least, counted by hand.

    Forward reads u, delta, z, B, C once and writes y once. Backward reads them and the cotangent
    and writes the five gradients. Each pass takes one exponential a state element for the decay;
    softplus and SiLU take three more a channel and token. The recurrence and its output are two
    multiply-adds a state element, the backward four more.
    """
    u, b = inputs["u"], inputs["B"]
    elements, item = u.size * state, u.dtype.itemsize
    read = 3 * u.size + 2 * b.size
    return {
        "forward": {
            "bytes": (read + u.size) * item,
            "exponentials": elements + 3 * u.size,
            "flops": 5 * elements,
        },
        "forward_backward": {
            "bytes": (read + u.size) * item + (2 * read + u.size) * item,
            "exponentials": 2 * (elements + 3 * u.size),
            "flops": 18 * elements,
        },
    }


def _copy_bandwidth(size: int = 2**26) -> float:
    """Bytes a second, read and written, of copying a large array."""
    x = jnp.arange(size, dtype=jnp.float32)
    times = _timed(lambda x: -x, x, 10)
    return 2 * x.nbytes / (times["min_ms"] / 1e3)


def _exponential_rate(size: int = 2**14, rounds: int = 1024) -> float:
    """Exponentials a second of an XLA loop over numbers that stay in cache."""
    loop = lambda x: jax.lax.fori_loop(0, rounds, lambda _, y: jnp.exp(-y), x)  # noqa: E731
    times = _timed(loop, jnp.linspace(0, 1, size), 10)
    return size * rounds / (times["min_ms"] / 1e3)
