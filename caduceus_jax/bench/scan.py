"""`caduceus-jax bench scan`: the selective scan timed, one shape or a whole suite of them."""

import dataclasses
import importlib
import inspect
import json
import pathlib
import types
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from caduceus_jax.bench import measure
from caduceus_jax.bench.runs import draw, scan_forward, scan_gradient
from caduceus_jax.costs import Shape, floors, scan_counts
from caduceus_jax.errors import UserError
from caduceus_jax.kernels.options import BY_NAME, Name, Options

_OF_SUITES = ("out", "minutes", "seed")


def scan(
    *,
    suite: Literal["gpu", "smoke"] | None = None,
    out: pathlib.Path = pathlib.Path("runs/bench"),
    minutes: float = 6.5,
    seed: int | None = None,
    batch: int = 1,
    length: int = 1024,
    dtype: Literal["float32", "bfloat16"] = "float32",
    repeats: int = 10,
    channels: int = 256,
    state: int = 16,
    implementation: Name = "chunked",
    chunk_length: int | None = None,
    inner: Literal["sequential", "associative"] | None = None,
    skip_reference: bool = False,
    forward_only: bool = False,
) -> None:
    """Times the selective scan, beside what this machine can do.

    Without a suite, one shape: the scan with D, z, bias and softplus, beside its reference, as one
    JSON object. Times are in milliseconds: the median of the repeats, the least and the greatest.
    One run goes before them, and compilation is timed apart. The floor is the larger of two times:
    the bytes that must be moved at the copy bandwidth measured here, and the exponentials that
    must be taken at the rate measured here. "floor_share" is the floor over the median.

    --suite gpu compares the implementations on an NVIDIA GPU: correctness against a float64
    reference first, then times of scan and mixer in five shapes, both dtypes, against floors
    measured on that device, and against the CUDA kernel of mamba_ssm where that is importable.
    It writes scan_gpu.json, scan_gpu.md and scan_gpu.png; after each case, so that what is there
    stays there. A failed check makes the exit status 1. --suite smoke is the same at tiny shapes
    on any machine: it shows that the command works, and its times say nothing.

    examples:
      caduceus-jax bench scan --length 131072 --channels 512
      caduceus-jax bench scan --suite gpu --out runs/h200

    Args:
        suite: time many shapes and implementations; its sizes are its own.
        out: folder for what a suite writes.
        minutes: a suite begins nothing new after this long.
        seed: of a suite's inputs; by default another one each time, which is printed.
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
        forward_only: take no gradients.

    Raises:
        UserError: a size below 1, an option of another implementation, or no GPU for its suite.
    """
    _refuse_unread(suite is not None, locals())
    if suite is not None:
        raise SystemExit(_suites().run(suite, out, minutes=minutes, seed=seed))
    if min(batch, length, channels, state, repeats) < 1:
        raise UserError("sizes and repeats are at least 1")
    shape = Shape(batch, length, channels, state)
    chosen = _options(implementation, chunk_length, inner)
    report: dict[str, Any] = {
        "suite": "scan",
        "dtype": dtype,
        **measure.platform_of_jax(),
        "implementation": str(chosen),
    }
    report |= _one_shape(shape, dtype, chosen, repeats, forward_only, not skip_reference)
    print(json.dumps(report, indent=2))


def _refuse_unread(with_suite: bool, given: Mapping[str, Any]) -> None:
    """Raises a UserError if an option was given that the chosen kind of measurement ignores."""
    for name, parameter in inspect.signature(scan).parameters.items():
        if name == "suite" or given[name] == parameter.default:
            continue
        if with_suite and name not in _OF_SUITES:
            raise UserError(f"`{name}` is not read with `suite`, whose shapes are its own")
        if not with_suite and name in _OF_SUITES:
            raise UserError(f"`{name}` is read only with `suite`")


def _suites() -> types.ModuleType:
    """The module of the suites: one shape can be timed without what they draw with."""
    try:
        return importlib.import_module("caduceus_jax.bench.suites")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
    raise UserError(
        "--suite draws a picture and needs matplotlib: pip install 'caduceus-jax[train]'"
    )


def _one_shape(
    shape: Shape,
    dtype: str,
    implementation: Any,
    repeats: int,
    forward_only: bool,
    with_reference: bool,
) -> dict[str, Any]:
    inputs = draw(shape, jnp.dtype(dtype))
    rates = measure.rates()
    report: dict[str, Any] = {
        "shape": shape._asdict(),
        "copy_bytes_per_s": rates["bytes"],
        "exponentials_per_s": rates["exponentials"],
    }
    counts = scan_counts(shape, jnp.dtype(dtype).itemsize)
    runs = {"forward": scan_forward} | ({} if forward_only else {"forward_backward": scan_gradient})
    for name, function in runs.items():
        times = measure.timed(function(implementation), (inputs,), repeats)
        floor = max(floors(counts[name], rates).values())
        report[name] = times | counts[name] | {"floor_ms": floor}
        report[name]["floor_share"] = floor / times["median_ms"]
        if with_reference:
            slow = measure.timed(function("reference"), (inputs,), max(1, repeats // 5))
            report[name]["reference_ms"] = slow["median_ms"]
            report[name]["times_faster"] = slow["median_ms"] / times["median_ms"]
    return report


def _options(implementation: Name, chunk_length: int | None, inner: Any) -> Options:
    """Returns the options that the command line gives, or names the one that is not among them."""
    kind = BY_NAME[implementation]
    given = {"chunk_length": chunk_length, "inner": inner}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() - {field.name for field in dataclasses.fields(kind)}:
        raise UserError(f"--{name.replace('_', '-')} is not an option of {implementation}")
    try:
        return kind(**given)
    except ValueError as error:
        raise UserError(str(error)) from error
