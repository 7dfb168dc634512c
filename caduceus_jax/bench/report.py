"""The results of a suite: JSON with everything, a Markdown table of what people read."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

COLUMNS = (
    "shape",
    "dtype",
    "what",
    "implementation",
    "ms (least - greatest)",
    "floor, ms",
    "of the floor",
    "compiling, s",
    "temporary, GiB",
)
PASSES = {"forward": "forward", "forward_backward": "forward and backward"}


class Report:
    """What a suite has found so far; every addition is written to disk at once.

    Args:
        path: of the files, without the ending.
        head: what there is to say before the first result: machine, command, seed.
    """

    def __init__(self, path: pathlib.Path, head: dict[str, Any]):
        self.path = path
        self.results: dict[str, Any] = {
            **head,
            "finished": False,
            "rates": {},
            "checks": [],
            "comparisons": [],
            "cases": [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def passed(self) -> bool:
        """Whether no check has failed so far."""
        return all(check.get("passed", False) for check in self.results["checks"])

    def add(self, kind: str, row: dict[str, Any]) -> None:
        """Keeps a check, a comparison or a case, says it in a line, and writes everything."""
        self.results[kind].append(row)
        print(_line(kind, row), flush=True)
        self.write()

    def write(self) -> None:
        """Writes JSON and Markdown, each whole or not at all."""
        _replace(self.path.with_suffix(".json"), json.dumps(self.results, indent=1) + "\n")
        _replace(self.path.with_suffix(".md"), markdown(self.results))


def markdown(results: dict[str, Any]) -> str:
    """The results as a page of Markdown."""
    lines = [
        f"# {results['title']}",
        "",
        f"{results['device']}, {results['driver']}; jax {results['jax']}, Python "
        f"{results['python']}, caduceus-jax {results['caduceus_jax']}; {results['began']}; "
        f"seed {results['seed']}. `{results['command']}`",
        "",
    ]
    if not results["finished"]:
        lines += ["Not finished: what follows is what there is so far.", ""]
    if results["rates"]:
        lines += ["Measured here: " + "; ".join(_rates(results["rates"])) + ".", ""]
    lines += ["## Correctness", "", *_checks(results["checks"]), ""]
    if results["comparisons"]:
        lines += ["## Beside mamba_ssm", "", *_comparisons(results["comparisons"]), ""]
    lines += ["## Times", "", *table(COLUMNS, [_cells(case) for case in results["cases"]])]
    return "\n".join(lines) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def size(shape: dict[str, int]) -> str:
    """`1 x 131,072 x 512 x 16`."""
    return " x ".join(f"{extent:,}" for extent in shape.values())


def number(x: float) -> str:
    """Three digits that count, without an exponent."""
    digits = 0 if x >= 100 else 1 if x >= 10 else 2 if x >= 1 else 3 if x >= 0.1 else 4
    return f"{x:,.{digits}f}"


def spread(case: dict[str, Any]) -> str:
    """`1.25 (1.24 - 1.31)`."""
    return f"{number(case['median_ms'])} ({number(case['min_ms'])} - {number(case['max_ms'])})"


def _cells(case: dict[str, Any]) -> list[str]:
    what = f"{case['what']}, {PASSES[case['pass']]}"
    cells = [size(case["shape"]), case["dtype"], what, case["implementation"]]
    if "error" in case:
        return [*cells, case["error"].replace("|", "/"), "", "", "", ""]
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
        "exponentials": "{:,.1f} billion exponentials a second",
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
            name = max(check["errors"], key=lambda key: _nan_last(check["errors"][key]))
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
        rows.append([*cells, ", ".join(found) or row["error"].replace("|", "/")])
    head = ("shape", "dtype", "implementation", "largest difference over the largest magnitude")
    return table(head, rows)


def _line(kind: str, row: dict[str, Any]) -> str:
    """What is said while the suite runs."""
    about = f"{row['dtype']:8} {size(row['shape'])} {row['implementation']}"
    if kind == "cases":
        about += f" {row['what']} {PASSES[row['pass']]}"
    if "error" in row:
        return f"{about}: {row['error']}"
    if kind == "cases":
        return f"{about}: {spread(row)} ms, {row['floor_percent']:.1f} % of the floor"
    errors = row["errors" if kind == "checks" else "differences"]
    worst = max(errors, key=lambda key: _nan_last(errors[key]))
    verdict = "" if kind == "comparisons" else ", passed" if row["passed"] else ", FAILED"
    return f"{about}: largest error {errors[worst]:.1e} of {worst}{verdict}"


def _nan_last(x: float) -> float:
    return x if x == x else float("inf")


def _replace(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    partial.replace(path)
