"""The results of a suite of the scan, as a page of Markdown and as lines on the screen."""

import math
from typing import Any

from caduceus_jax.bench.report import number, size, spread, title
from caduceus_jax.markdown import table

COLUMNS = (
    "shape",
    "dtype",
    "what",
    "implementation",
    "ms (min - max)",
    "floor, ms",
    "of the floor",
    "compiling, s",
    "temporary, GiB",
)
PASSES = {"forward": "forward", "forward_backward": "forward and backward"}


def markdown(results: dict[str, Any]) -> str:
    """Formats the results as a page of Markdown."""
    lines = [*title(results), f"Seed of the inputs: {results['seed']}.", ""]
    if results["rates"]:
        lines += ["Measured here: " + "; ".join(_rates(results["rates"])) + ".", ""]
    lines += ["## Correctness", "", *_checks(results["checks"]), ""]
    if results["comparisons"]:
        lines += ["## Beside mamba_ssm", "", *_comparisons(results["comparisons"]), ""]
    lines += ["## Times", "", *table(COLUMNS, [_cells(case) for case in results["cases"]])]
    return "\n".join(lines) + "\n"


def line(kind: str, row: dict[str, Any]) -> str:
    """Formats a row as the line that is printed while the suite runs."""
    about = f"{row['dtype']:8} {size(row['shape'])} {row['implementation']}"
    if kind == "cases":
        about += f" {row['what']} {PASSES[row['pass']]}"
    if "error" in row:
        return f"{about}: {row['error']}"
    if kind == "cases":
        return f"{about}: {spread(row)} ms, {row['floor_percent']:.1f} % of the floor"
    errors = row["errors" if kind == "checks" else "differences"]
    worst = max(errors, key=lambda key: _badness(errors[key]))
    verdict = "" if kind == "comparisons" else ", passed" if row["passed"] else ", FAILED"
    return f"{about}: largest error {errors[worst]:.1e} of {worst}{verdict}"


def _cells(case: dict[str, Any]) -> list[str]:
    what = f"{case['what']}, {PASSES[case['pass']]}"
    cells = [size(case["shape"]), case["dtype"], what, case["implementation"]]
    if "error" in case:
        return [*cells, case["error"], "", "", "", ""]
    temporary = case.get("temporary_bytes", -1)
    return [
        *cells,
        spread(case),
        f"{number(case['floor_ms'])} ({case['bound']})",
        f"{case['floor_percent']:.1f} %",
        f"{case['compile_ms'] / 1e3:.1f}" if "compile_ms" in case else "",
        f"{temporary / 2**30:.2f}" if temporary >= 0 else "",
    ]


def _rates(rates: dict[str, float]) -> list[str]:
    words = {
        "bytes": "{:,.0f} GB/s copied",
        "exponentials": "{:,.1f} billion exponentials per second",
        "float32": "{:,.1f} GFLOP/s of float32 matrix products",
        "bfloat16": "{:,.1f} GFLOP/s of bfloat16 matrix products",
    }
    return [words[kind].format(rate / 1e9) for kind, rate in rates.items()]


def _checks(checks: list[dict[str, Any]]) -> list[str]:
    rows = []
    for check in checks:
        if "error" in check:
            largest, verdict = "", f"FAILED: {check['error'].replace('|', '/')}"
        else:
            name = max(check["errors"], key=lambda key: _badness(check["errors"][key]))
            largest = f"{check['errors'][name]:.1e} of {name}"
            verdict = "passed" if check["passed"] else "FAILED"
        direction = "right to left" if check["reverse"] else "left to right"
        cells = [size(check["shape"]), check["dtype"], direction, check["implementation"]]
        rows.append([*cells, largest, f"{check['tolerance']:.0e}", verdict])
    head = ("shape", "dtype", "direction", "implementation", "largest error", "tolerance", "")
    return [
        "y, final state and all gradients against float64; differences over the largest magnitude.",
        "",
        *table(head, rows),
    ]


def _comparisons(comparisons: list[dict[str, Any]]) -> list[str]:
    rows = []
    for row in comparisons:
        cells = [size(row["shape"]), row["dtype"], row["implementation"]]
        found = [f"{name} {x:.1e}" for name, x in row.get("differences", {}).items()]
        rows.append([*cells, ", ".join(found) or row["error"]])
    head = ("shape", "dtype", "implementation", "largest difference over the largest magnitude")
    return table(head, rows)


def _badness(error: float) -> float:
    """Orders errors: NaN is the worst."""
    return math.inf if math.isnan(error) else error
