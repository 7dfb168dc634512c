"""`caduceus-jax bench scan`: times the selective scan, for one shape or for a suite of shapes."""

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
from caduceus_jax.devices import use_cores
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
    """Times the selective scan and compares it with the limits of this machine.

    Without a suite it times one shape, the scan with D, z, bias and softplus and its reference, and
    prints a JSON object. Times are in milliseconds: median, minimum and maximum of the repeats,
    after one run that is not timed; compilation is timed separately. The floor is the larger of two
    times: the bytes that must be moved, at the copy bandwidth measured here, and the exponentials
    that must be taken, at the rate measured here. "floor_share" is the floor over the median.

    --suite gpu compares the implementations on an NVIDIA GPU: first correctness against float64,
    then times of scan and mixer for five shapes and both dtypes, against floors measured on that
    device, and against the CUDA kernel of mamba_ssm if it is installed. It writes scan_gpu.json,
    scan_gpu.md and scan_gpu.png after each case, so that an interruption loses nothing. A failed
    check makes the exit status 1. --suite smoke does the same with tiny shapes on any machine: it
    shows that the command works, and its times mean nothing.

    examples:
      caduceus-jax bench scan --length 131072 --channels 512
      caduceus-jax bench scan --suite gpu --out runs/h200

    Args:
        suite: time many shapes and implementations; only `out`, `minutes` and `seed` go with it.
        out: folder for the results of a suite.
        minutes: a suite begins no new case after this many minutes.
        seed: seed of a suite's inputs; by default a random one, which is printed.
        batch: number of sequences.
        length: tokens per sequence.
        dtype: dtype of activations; the recurrence runs in float32.
        repeats: number of timed runs.
        channels: channels of the scan.
        state: states per channel.
        implementation: implementation of the scan.
        chunk_length: tokens per chunk of "chunked" or "pallas_triton"; chosen by default.
        inner: form of the recurrence inside a chunk of "chunked"; chosen by default.
        skip_reference: do not time the reference, which is slow on long sequences.
        forward_only: do not time gradients.

    Raises:
        UserError: a size below 1, an option of another implementation, or no GPU for its suite.
    """
    _refuse_unread(suite is not None, locals())
    if suite is not None:
        raise SystemExit(_suites().run(suite, out, minutes=minutes, seed=seed))
    if min(batch, length, channels, state, repeats) < 1:
        raise UserError("sizes and repeats are at least 1")
    use_cores(1)  # one sequence is a matter of one core, compiled as all commands do
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
    """Imports the suites, which draw figures; a single shape needs no matplotlib."""
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
