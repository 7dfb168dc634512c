"""The work of a suite, as jobs that may fail without harm to each other."""

import concurrent.futures
import functools
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.bench import check, cuda_kernel, measure, runs
from caduceus_jax.costs import Counts, Shape, floors, mixer_counts, scan_counts
from caduceus_jax.kernels.options import BY_NAME

# The packages that an implementation needs beside JAX.
_NEEDS = {"triton": ("jax_triton", "triton")}
Rates = dict[str, float]


class Job(NamedTuple):
    """One row of the results."""

    kind: str  # checks, comparisons or cases
    about: dict[str, Any]  # the row's first columns
    work: Callable[..., dict[str, Any]]  # returns the other columns
    # Lowers the program of the job, if it has one: `work` then gets the compiled program and the
    # cost of compiling it.
    lower: Callable[[], jax.stages.Lowered] | None = None


def run(jobs: Iterable[Job], deadline: float) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Runs jobs and yields their rows, with `error` where one failed or came too late.

    All programs are compiled first, in parallel, because most of the time of a suite is compiling;
    then the jobs run one after another, so that nothing disturbs their times.

    Args:
        jobs: the jobs, in order.
        deadline: no job begins later than this, by `time.monotonic`.

    Yields:
        Each job and its row.
    """
    jobs = list(jobs)
    pool = concurrent.futures.ThreadPoolExecutor()
    try:
        started = [_start(job, pool, deadline) for job in jobs]
        concurrent.futures.wait(x for x in started if isinstance(x, concurrent.futures.Future))
        for job, compiling in zip(jobs, started, strict=True):
            yield job, job.about | _row(job, compiling, deadline)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start(job: Job, pool: concurrent.futures.Executor, deadline: float) -> Any:
    """Starts to compile a job's program; None if it has none, the error as text if it fails."""
    if job.lower is None or time.monotonic() > deadline:
        return None
    start = time.perf_counter()
    try:
        return pool.submit(measure.compile_lowered, job.lower(), start)
    except Exception as error:
        return measure.one_line(error)


def _row(job: Job, compiling: Any, deadline: float) -> dict[str, Any]:
    if isinstance(compiling, str):
        return {"error": compiling}
    if time.monotonic() > deadline:
        return {"error": "left out: the time was up"}
    try:
        return job.work(*(compiling.result() if compiling else ()))
    except Exception as error:
        return {"error": measure.one_line(error)}


def is_there(implementation: str) -> bool:
    """Returns whether there is an implementation of the name, and what it needs is installed."""
    if implementation not in BY_NAME:
        return False
    return all(importlib.util.find_spec(name) for name in _NEEDS.get(implementation, ()))


def checks(
    which: tuple[tuple[Shape, str, bool], ...], implementations: list[str], seed: int
) -> Iterator[Job]:
    """Makes the jobs that compare every implementation with float64.

    Args:
        which: shape, dtype and `reverse` of each comparison.
        implementations: names of implementations of the scan.
        seed: seed of the inputs.
    """
    for shape, dtype, reverse in which:
        problem = functools.cache(functools.partial(check.problem, shape, dtype, reverse, seed))

        def compare(
            compiled: Any, _: Any, dtype: str = dtype, problem: Any = problem
        ) -> dict[str, Any]:
            """Compares one implementation with float64."""
            errors = check.errors(problem(), compiled)
            return {"errors": errors, "passed": check.passes(errors, dtype)}

        for implementation in implementations:
            about = _about(shape, dtype, implementation)
            about |= {"reverse": reverse, "tolerance": check.TOLERANCES[dtype]}
            lower = functools.partial(check.lower, shape, dtype, reverse, seed, implementation)
            yield Job("checks", about, compare, lower)


def cases(
    shape: Shape, dtype: str, implementations: list[str], seed: int, rates: Rates, seconds: float
) -> Iterator[Job]:
    """Makes the jobs that time the scan, the CUDA kernel where there is one, and the mixer.

    Args:
        shape: batch, length, channels and states of the scan.
        dtype: dtype of the sequences.
        implementations: names of implementations of the scan.
        seed: seed of the inputs.
        rates: operations and bytes per second of the machine, from `measure.rates`.
        seconds: time for which each case is repeated.
    """
    scan_arguments = lambda: (runs.draw(shape, dtype, seed),)  # noqa: E731
    mixer_arguments = lambda: runs.draw_mixer(shape, dtype, seed)  # noqa: E731
    inputs = functools.cache(scan_arguments)
    calls = functools.cache(lambda: cuda_kernel.runs(*inputs()))
    limits = rates | {"products": rates[dtype]}
    config, itemsize = runs.mixer_config(shape), jnp.dtype(dtype).itemsize
    counted = {
        "scan": scan_counts(shape, itemsize),
        "mixer": mixer_counts(shape, itemsize, config.d_model, config.delta_rank),
    }

    @functools.cache
    def hidden() -> Any:
        """Draws the mixer and its input, in the memory of the scan's."""
        inputs.cache_clear()  # the mixer needs the memory
        calls.cache_clear()
        return mixer_arguments()

    def case(what: str, name: str, implementation: str, prepare: Any, lower: Any = None) -> Job:
        """Makes a job that times one pass."""

        def work(*compiled: Any) -> dict[str, Any]:
            """Times the pass and adds counts and floors."""
            times = measure.timed_within(*prepare(*compiled[:1]), seconds=seconds)
            cost = compiled[1] if compiled else {}
            return times | cost | _floors(counted[what][name], limits, times["median_ms"])

        about = _about(shape, dtype, implementation) | {"what": what, "pass": name}
        return Job("cases", about, work, lower)

    def ours(what: str, functions: dict[str, Any], abstract: Any, draw: Any) -> Iterator[Job]:
        """Makes the jobs that time our implementations."""

        def prepare(program: Any) -> tuple[Any, Any]:
            """Returns the call to time, and how to wait for it."""
            arguments = draw()
            return lambda: program(*arguments), jax.block_until_ready

        for implementation, name in itertools.product(implementations, functions):
            lower = functools.partial(_lower, functions[name](implementation), abstract)
            yield case(what, name, implementation, prepare, lower)

    yield from ours("scan", runs.SCAN, scan_arguments, inputs)
    if cuda_kernel.importable():
        for name in runs.SCAN:
            prepare = lambda name=name: (calls()[name], cuda_kernel.wait)  # noqa: E731
            yield case("scan", name, "mamba_ssm", prepare)
        first = implementations[0]
        differ = lambda program, _: _differences(program, inputs(), calls())  # noqa: E731
        lower = functools.partial(_lower, runs.SCAN["forward_backward"](first), scan_arguments)
        yield Job("comparisons", _about(shape, dtype, first), differ, lower)
    yield from ours("mixer", runs.MIXER, mixer_arguments, hidden)


def _about(shape: Shape, dtype: str, implementation: str) -> dict[str, Any]:
    return {"shape": shape._asdict(), "dtype": dtype, "implementation": implementation}


def _lower(function: Callable[..., Any], arguments: Callable[[], Any]) -> jax.stages.Lowered:
    """Lowers a function without making its arguments, which are large."""
    return jax.jit(function).lower(*jax.eval_shape(arguments))


def _floors(counts: Counts, rates: Rates, median: float) -> dict[str, Any]:
    least = floors(counts, rates)
    bound = max(least, key=lambda kind: least[kind])
    return {
        "counts": counts,
        "floors_ms": least,
        "floor_ms": least[bound],
        "bound": bound,
        "floor_percent": 100 * least[bound] / median,
    }


def _differences(program: Any, inputs: tuple[Any, ...], calls: Any) -> dict[str, Any]:
    """Compares our results with those of the CUDA kernel, for the same inputs."""
    y, (gradients,) = program(*inputs)
    ours = {"y": y} | {f"d_{name}": value for name, value in gradients.items()}
    return {"differences": cuda_kernel.differences(calls["forward_backward"](), ours)}
