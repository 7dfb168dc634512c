"""`caduceus-jax bench`: the scan and the model timed, beside what the machine can do."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from caduceus_jax.config import CaduceusConfig
from caduceus_jax.errors import UserError
from caduceus_jax.kernels import Chunked, PallasTriton, selective_scan
from caduceus_jax.losses import masked_lm_loss
from caduceus_jax.model import CaduceusForMaskedLM

Implementation = Literal["reference", "chunked", "pallas_triton"]


def bench(
    suite: Literal["scan", "model"],
    *,
    batch: int = 1,
    length: int = 1024,
    dtype: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 10,
    channels: int = 256,
    state: int = 16,
    implementation: Implementation = "chunked",
    chunk_length: int | None = None,
    inner: Literal["sequential", "associative"] | None = None,
    skip_reference: bool = False,
    d_model: int = 128,
    n_layer: int = 4,
    forward_only: bool = False,
) -> None:
    """Times the selective scan, or a whole model, and prints one JSON object.

    Times are in milliseconds: the median of the repeats, the least and the greatest. One run goes
    before them, and compilation is timed apart.

    "scan" is the selective scan with D, z, bias and softplus, beside its reference. Its floor is
    the larger of two times: the bytes that must be moved at the copy bandwidth measured here, and
    the exponentials that must be taken at the rate measured here. "floor_share" is the floor over
    the median.

    "model" is Caduceus-PS: a forward pass, and a step that also takes every gradient. Its memory
    is the process's highest ever.

    examples:
      caduceus-jax bench scan --length 131072 --channels 512
      caduceus-jax bench model --d-model 256 --n-layer 16 --length 131072 --forward-only

    Args:
        suite: what to time.
        batch: sequences.
        length: tokens of each.
        dtype: of activations; the recurrence runs in float32.
        repeats: timed runs.
        channels: channels of the scan.
        state: states of each channel of the scan.
        implementation: which implementation of the scan.
        chunk_length: tokens a chunk of "chunked" or "pallas_triton"; their own choice by default.
        inner: form of the recurrence inside a chunk of "chunked"; its own choice by default.
        skip_reference: do not time the scan's reference, which is slow on long sequences.
        d_model: channels of the model.
        n_layer: blocks of the model.
        forward_only: take no gradients.

    Raises:
        UserError: a size below 1, or an option of another implementation.
    """
    if min(batch, length, channels, state, repeats, d_model, n_layer) < 1:
        raise UserError("sizes and repeats are at least 1")
    report: dict[str, Any] = {
        "suite": suite,
        "dtype": dtype,
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
    if suite == "model":
        report |= _bench_model(batch, length, d_model, n_layer, dtype, repeats, forward_only)
    else:
        chosen = _options(implementation, chunk_length, inner)
        inputs = _inputs(batch, length, channels, state, jnp.dtype(dtype))
        report |= {"implementation": str(chosen)}
        report |= _bench_scan(inputs, chosen, repeats, forward_only, not skip_reference)
    print(json.dumps(report, indent=2))


def _bench_scan(
    inputs: dict[str, jax.Array],
    implementation: Any,
    repeats: int,
    forward_only: bool,
    with_reference: bool,
) -> dict[str, Any]:
    copy, exponential = _copy_bandwidth(), _exponential_rate()
    (batch, length, channels), state = inputs["u"].shape, inputs["B"].shape[-1]
    report: dict[str, Any] = {
        "shape": {"batch": batch, "length": length, "channels": channels, "state": state},
        "copy_bytes_per_s": copy,
        "exponentials_per_s": exponential,
    }
    runs = {"forward": _forward} | ({} if forward_only else {"forward_backward": _gradient})
    for name, function in runs.items():
        counted = _counted(inputs, state)[name]
        times = _timed(function(implementation), (inputs,), repeats)
        floor = 1e3 * max(counted["bytes"] / copy, counted["exponentials"] / exponential)
        report[name] = times | counted | {"floor_ms": floor}
        report[name]["floor_share"] = floor / times["median_ms"]
        if with_reference:
            slow = _timed(function("reference"), (inputs,), max(1, repeats // 5))
            report[name]["reference_ms"] = slow["median_ms"]
            report[name]["times_faster"] = slow["median_ms"] / times["median_ms"]
    return report


def _bench_model(
    batch: int,
    length: int,
    d_model: int,
    n_layer: int,
    dtype: str,
    repeats: int,
    forward_only: bool,
) -> dict[str, Any]:
    config = CaduceusConfig(d_model=d_model, n_layer=n_layer, rcps=True)
    model = CaduceusForMaskedLM(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(0), (batch, length), 7, 11)

    def forward(model, ids):
        return model(ids).logits

    def gradient(model, ids):
        return jax.value_and_grad(lambda m: masked_lm_loss(forward(m, ids), ids))(model)

    report: dict[str, Any] = {
        "shape": {"batch": batch, "length": length, "d_model": d_model, "n_layer": n_layer},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model)),
    }
    runs = {"forward": forward} | ({} if forward_only else {"forward_backward": gradient})
    for name, function in runs.items():
        times = _timed(function, (model, ids), repeats)
        report[name] = times | {"tokens_per_s": 1e3 * ids.size / times["median_ms"]}
    # Kibibytes on Linux.
    report["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return report


def _options(implementation: str, chunk_length: int | None, inner: Any) -> Any:
    if implementation == "chunked":
        return Chunked(chunk_length, inner)
    if inner is not None:
        raise UserError(f"--inner is an option of chunked, not of {implementation}")
    if implementation == "pallas_triton":
        return PallasTriton(chunk_length)
    if chunk_length is not None:
        raise UserError(f"--chunk-length is no option of {implementation}")
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


def _timed(
    function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int
) -> dict[str, float]:
    """Times in ms of a compiled call and of its compilation, and its temporary memory."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_ms = 1e3 * (time.perf_counter() - start)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(1e3 * (time.perf_counter() - start))
    memory = compiled.memory_analysis()
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "compile_ms": compile_ms,
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
    times = _timed(lambda x: -x, (x,), 10)
    return 2 * x.nbytes / (times["min_ms"] / 1e3)


def _exponential_rate(size: int = 2**14, rounds: int = 1024) -> float:
    """Exponentials a second of an XLA loop over numbers that stay in cache."""
    loop = lambda x: jax.lax.fori_loop(0, rounds, lambda _, y: jnp.exp(-y), x)  # noqa: E731
    times = _timed(loop, (jnp.linspace(0, 1, size),), 10)
    return size * rounds / (times["min_ms"] / 1e3)
