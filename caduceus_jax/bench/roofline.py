"""A figure of a suite's results beside the limits of the machine."""

import pathlib
from typing import Any

import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker

from caduceus_jax.bench.report import size
from caduceus_jax.bench.scan_page import PASSES

_COLOURS = {"pallas_triton": "C0", "triton": "C2", "chunked": "C1", "mamba_ssm": "C3"}
_MARKERS = {"pallas_triton": "o", "triton": "D", "chunked": "s", "mamba_ssm": "^"}
_ROOFS: dict[str, tuple[str, Any, str]] = {
    "bytes": ("0.25", "-", "memory: bytes at the copy bandwidth"),
    "exponentials": ("0.25", ":", "exponentials at their rate"),
    "products": ("0.25", "--", "matrix products at their rate"),
}


def draw(results: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the state elements per second of each case under the roofs of the device.

    There is a panel for scan and mixer and each pass, with a row for each shape and dtype. Points
    are medians; the bars through them reach from minimum to maximum. A roof is what the machine
    would reach if it did only that one kind of work.

    Args:
        results: the results of a suite; cases that failed are left out.
        path: PNG file to write.
    """
    cases = [case for case in results["cases"] if "error" not in case]
    rows = list(dict.fromkeys(_row(case) for case in results["cases"]))
    # A figure of its own, not of pyplot: no display is needed and no global state is touched.
    figure = matplotlib.figure.Figure(
        figsize=(12, 3 + 0.72 * max(len(rows), 2)), dpi=150, layout="constrained"
    )
    panels = figure.subplots(2, 2, sharey=True, sharex="row")
    for axes_of_what, what in zip(panels, ("scan", "mixer"), strict=True):
        for axes, name in zip(axes_of_what, PASSES, strict=True):
            chosen = [case for case in cases if (case["what"], case["pass"]) == (what, name)]
            _panel(axes, chosen, rows)
            axes.set_title(f"{what}, {PASSES[name]}", loc="left", fontsize=10)
        axes_of_what[0].set_yticks(range(len(rows)), rows, fontsize=8)
        axes_of_what[0].set_ylim(len(rows) - 0.4, -0.6)
    for axes in panels[1]:
        axes.set_xlabel("state elements per second (tokens x channels x states x directions)")
    figure.suptitle(
        f"Selective scan and BiMamba mixer on {results['device']}, jax {results['jax']}\n"
        "batch x length x channels x states; further right is faster, the lines are the limits "
        "of the device",
        fontsize=11,
    )
    handles = [
        matplotlib.lines.Line2D(
            [], [], color=_COLOURS[name], marker=_MARKERS[name], linestyle="", label=name
        )
        for name in dict.fromkeys(case["implementation"] for case in cases)
    ]
    roofs = dict.fromkeys(kind for case in cases for kind in case["floors_ms"])
    handles += [
        matplotlib.lines.Line2D([], [], color=colour, linestyle=style, label=label)
        for colour, style, label in (_ROOFS[kind] for kind in roofs)
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _panel(axes: Any, cases: list[dict[str, Any]], rows: list[str]) -> None:
    implementations = list(dict.fromkeys(case["implementation"] for case in cases))
    for case in cases:
        name, y = case["implementation"], rows.index(_row(case))
        y += 0.8 * ((implementations.index(name) + 0.5) / len(implementations) - 0.5)
        slowest, median, fastest = (
            _elements(case) / (case[key] / 1e3) for key in ("max_ms", "median_ms", "min_ms")
        )
        axes.plot([slowest, fastest], [y, y], color=_COLOURS[name], linewidth=1.5)
        axes.plot(median, y, color=_COLOURS[name], marker=_MARKERS[name], markersize=5)
        for kind, floor in case["floors_ms"].items():
            colour, style, _ = _ROOFS[kind]
            roof, middle = _elements(case) / (floor / 1e3), rows.index(_row(case))
            axes.vlines(roof, middle - 0.4, middle + 0.4, color=colour, linestyle=style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter())
    axes.grid(axis="x", alpha=0.25)
    for edge in range(1, len(rows)):
        axes.axhline(edge - 0.5, color="0.9", linewidth=0.8)


def _row(case: dict[str, Any]) -> str:
    return f"{size(case['shape'])}  {case['dtype']}"


def _elements(case: dict[str, Any]) -> float:
    """Counts state elements of all directions: a mixer has two."""
    shape = case["shape"]
    one = shape["batch"] * shape["length"] * shape["channels"] * shape["state"]
    return one * (2 if case["what"] == "mixer" else 1)
