"""The work of a suite in pieces, each of which may fail without harm to the others."""

import functools
import importlib.util
import time
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.bench import check, cuda_kernel, measure, runs
from caduceus_jax.bench.counts import Counts, Shape, floors, mixer_counts, scan_counts
from caduceus_jax.kernels.selective_scan import Implementation

# The packages that an implementation needs beside JAX.
_NEEDS = {"triton": ("jax_triton", "triton")}
Rates = dict[str, float]


class Job(NamedTuple):
    """One row of the results."""

    kind: str  # checks, comparisons or cases
    about: dict[str, Any]  # the row's first columns
    work: Callable[[], dict[str, Any]]  # returns the others


def run(job: Job, deadline: float) -> dict[str, Any]:
    """The row, with `error` where the work failed or it is later than `deadline` (monotonic)."""
    if time.monotonic() > deadline:
        return job.about | {"error": "left out: the time was up"}
    try:
        return job.about | job.work()
    except Exception as error:
        return job.about | {"error": measure.one_line(error)}


def is_there(implementation: str) -> bool:
    """Whether the registry knows the name, and what it needs is installed."""
    known = [typing.get_args(part) for part in typing.get_args(Implementation)]
    if not any(implementation in names for names in known):
        return False
    return all(importlib.util.find_spec(name) for name in _NEEDS.get(implementation, ()))


def checks(
    which: tuple[tuple[Shape, str, bool], ...], implementations: list[str], seed: int
) -> Iterator[Job]:
    """Every implementation against float64.

    Args:
        which: shape, dtype and `reverse` of each comparison.
        implementations: of the scan.
        seed: of the inputs.
    """
    for shape, dtype, reverse in which:
        problem = functools.cache(functools.partial(check.problem, shape, dtype, reverse, seed))

        def compare(implementation: str, dtype: str = dtype, problem: Any = problem):
            errors = check.errors(problem(), implementation)
            return {"errors": errors, "passed": check.passes(errors, dtype)}

        for implementation in implementations:
            about = _about(shape, dtype, implementation)
            about |= {"reverse": reverse, "tolerance": check.TOLERANCES[dtype]}
            yield Job("checks", about, functools.partial(compare, implementation))


def cases(
    shape: Shape, dtype: str, implementations: list[str], seed: int, rates: Rates, seconds: float
) -> Iterator[Job]:
    """Times of the scan, of the CUDA kernel where there is one, and of the mixer.

    Args:
        shape: of the scan.
        dtype: of the sequences.
        implementations: of the scan.
        seed: of the inputs.
        rates: what the machine can do.
        seconds: for which each case is repeated.
    """
    inputs = functools.cache(functools.partial(runs.draw, shape, dtype, seed))
    itemsize = jnp.dtype(dtype).itemsize
    counts = scan_counts(shape, itemsize)

    def case(
        what: str, name: str, implementation: str, counts: dict[str, Counts], prepare: Any
    ) -> Job:
        about = _about(shape, dtype, implementation) | {"what": what, "pass": name}
        limits = rates | {"products": rates[dtype]}
        return Job("cases", about, lambda: _timed(prepare, counts[name], limits, seconds))

    for implementation in implementations:
        functions = {"forward": runs.scan_forward, "forward_backward": runs.scan_gradient}
        for name, function in functions.items():
            scan = functools.partial(_compiled, function(implementation), lambda: (inputs(),))
            yield case("scan", name, implementation, counts, scan)
    if cuda_kernel.importable():
        calls = functools.cache(lambda: cuda_kernel.runs(inputs()))
        for name in ("forward", "forward_backward"):
            kernel = lambda name=name: (calls()[name], {}, cuda_kernel.wait)  # noqa: E731
            yield case("scan", name, "mamba_ssm", counts, kernel)
        for implementation in implementations[:1]:
            about = _about(shape, dtype, implementation)
            differ = functools.partial(_differences, implementation, inputs, calls)
            yield Job("comparisons", about, differ)
        calls.cache_clear()
    inputs.cache_clear()  # memory for the mixer
    config = runs.mixer_config(shape)
    counts = mixer_counts(shape, itemsize, config.d_model, config.delta_rank)
    mixer = functools.cache(functools.partial(runs.draw_mixer, shape, dtype, seed))
    for implementation in implementations:
        functions = {"forward": runs.mixer_forward, "forward_backward": runs.mixer_gradient}
        for name, function in functions.items():
            whole = functools.partial(_compiled, function(implementation), mixer)
            yield case("mixer", name, implementation, counts, whole)


def _about(shape: Shape, dtype: str, implementation: str) -> dict[str, Any]:
    return {"shape": shape._asdict(), "dtype": dtype, "implementation": implementation}


def _compiled(function: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> Any:
    return (*measure.compile_call(function, arguments()), jax.block_until_ready)


def _timed(
    prepare: Callable[[], tuple[Callable[[], Any], dict[str, Any], Callable[[Any], object]]],
    counts: Counts,
    rates: Rates,
    seconds: float,
) -> dict[str, Any]:
    call, cost, wait = prepare()
    times = measure.timed_within(call, seconds, wait)
    least = floors(counts, rates)
    bound = max(least, key=lambda kind: least[kind])
    return {
        **times,
        **cost,
        "counts": counts,
        "floors_ms": least,
        "floor_ms": least[bound],
        "bound": bound,
        "floor_percent": 100 * least[bound] / times["median_ms"],
    }


def _differences(implementation: str, inputs: Any, calls: Any) -> dict[str, Any]:
    """Our results beside those of the CUDA kernel, for the same inputs."""
    y, (gradients,) = jax.jit(runs.scan_gradient(implementation))(inputs())
    ours = {"y": y} | {f"d_{name}": value for name, value in gradients.items()}
    theirs = calls()["forward_backward"]()
    return {"differences": cuda_kernel.differences(theirs, ours)}
