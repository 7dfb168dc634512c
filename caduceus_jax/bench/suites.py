"""The suites of `caduceus-jax bench scan`: what they check and time, and in which order."""

import dataclasses
import itertools
import pathlib
import secrets
import time
from collections.abc import Iterable

import jax

from caduceus_jax.bench import check, jobs, measure, roofline, scan_page
from caduceus_jax.bench.report import Report
from caduceus_jax.costs import Shape
from caduceus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Suite:
    """Describes what a suite checks and times.

    Args:
        shapes: shapes that are timed.
        checks: shape, dtype and `reverse` of each comparison with float64.
        implementations: implementations of the scan; those that are installed are run.
        dtypes: dtypes that are timed; bfloat16 first, because models are trained in it.
        seconds: time for which each case is repeated.
    """

    shapes: tuple[Shape, ...]
    checks: tuple[tuple[Shape, str, bool], ...]
    implementations: tuple[str, ...]
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    seconds: float = 0.4


# Lengths that fit no chunk, channels that fit no block; one is long.
_SMALL, _WIDE, _LONG = Shape(2, 131, 96, 8), Shape(3, 515, 40, 32), Shape(1, 65_537, 8, 16)
SUITES = {
    "gpu": Suite(
        shapes=(
            Shape(1, 131_072, 512, 16),
            Shape(4, 131_072, 512, 16),
            Shape(8, 32_768, 512, 16),
            Shape(256, 1024, 256, 16),
            Shape(1, 1_048_576, 512, 16),
        ),
        checks=(
            *((_SMALL, dtype, way) for dtype in check.TOLERANCES for way in (False, True)),
            (_WIDE, "float32", False),
            (_WIDE, "bfloat16", True),
            (_LONG, "float32", True),
            (_LONG, "bfloat16", False),
        ),
        implementations=("pallas_triton", "triton", "chunked"),
    ),
    "smoke": Suite(
        shapes=(Shape(1, 40, 16, 4),),
        checks=((Shape(1, 7, 6, 4), "float32", False), (Shape(1, 131, 6, 4), "bfloat16", True)),
        implementations=("pallas_triton", "chunked"),
        seconds=0.0,
    ),
}


def run(name: str, out: pathlib.Path, *, minutes: float, seed: int | None) -> int:
    """Runs a suite and writes `scan_NAME.json`, `.md` and `.png`.

    Args:
        name: name of the suite.
        out: folder to write to.
        minutes: no case begins after this many minutes.
        seed: seed of all inputs; None draws one.

    Returns:
        The exit status: 0, or 1 where a check failed.

    Raises:
        UserError: the suite needs a GPU, and there is none.
    """
    suite, deadline = SUITES[name], time.monotonic() + 60 * minutes
    if name == "gpu" and jax.default_backend() != "gpu":
        raise UserError(
            f"--suite gpu needs an NVIDIA GPU, and JAX computes on {jax.default_backend()} here: "
            "--suite smoke shows on any machine that the command works"
        )
    seed = secrets.randbelow(2**31) if seed is None else seed
    print(f"seed {seed}", flush=True)
    head = {"suite": name, "title": "The selective scan", "seed": seed, **measure.machine()}
    report = Report(out / f"scan_{name}", head, scan_page.markdown)
    results = report.results
    results |= {"rates": {}, "checks": [], "comparisons": []}
    implementations = [i for i in suite.implementations if jobs.is_there(i)]
    try:
        _run(report, jobs.checks(suite.checks, implementations, seed), deadline)
        rates = results["rates"] = measure.rates(suite.dtypes)
        for dtype, shape in itertools.product(suite.dtypes, suite.shapes):
            cases = jobs.cases(shape, dtype, implementations, seed, rates, suite.seconds)
            _run(report, cases, deadline)
        results["finished"] = True
    finally:  # an interruption keeps the results so far
        report.write()
        roofline.draw(results, report.path.with_suffix(".png"))
    print(f"wrote {report.path}.json, .md and .png")
    failed = not all(row.get("passed", False) for row in results["checks"])
    if failed:
        print("FAILED: an implementation does not compute what it should")
    return int(failed)


def _run(report: Report, work: Iterable[jobs.Job], deadline: float) -> None:
    for job, row in jobs.run(work, deadline):
        report.add(job.kind, row, scan_page.line(job.kind, row))
