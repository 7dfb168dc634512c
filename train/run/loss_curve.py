"""The loss of a run beside its baselines: as a picture, and as lines of text."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from caduceus_jax.files import replacing

FIGURE = "loss.png"


def plot_losses(
    rows: list[dict[str, Any]], baselines: Mapping[str, float], path: pathlib.Path
) -> None:
    """Draws training and validation loss over steps, with the baselines as horizontal lines.

    Args:
        rows: the metrics of the run, one dictionary per line.
        baselines: nats per base of the simple models, by name.
        path: PNG file to write.
    """
    # Not a figure of pyplot: no display is needed, and no global state is touched.
    figure = matplotlib.figure.Figure(figsize=(8, 5.5), dpi=120, layout="constrained")
    probes = sorted({key for row in rows for key in row if key.startswith("probe_")})
    axes, below = figure.subplots(), None
    if probes:
        figure.clear()
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    train = [(row["step"], row["masked_loss"]) for row in rows if not row.get("skipped")]
    skipped = [row["step"] for row in rows if row.get("skipped")]
    validation = [
        (row["step"], row["validation_masked_loss"])
        for row in rows
        if "validation_masked_loss" in row
    ]
    if train:
        steps, losses = np.array(train).T
        axes.plot(steps, losses, color="0.8", linewidth=1, label="training batches")
        width = min(len(steps), max(5, len(steps) // 10))
        mean = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width - 1 :], mean, color="0.4", label=f"mean of {width} batches")
    if validation:
        axes.plot(
            *zip(*validation, strict=True), color="C0", marker="o", markersize=4, label="held out"
        )
    lines = (
        ("order_0_entropy", "order-0 entropy", "C3", "-"),
        ("markov_3", "order-3 Markov model", "C1", "--"),
        ("markov_5", "order-5 Markov model", "C2", ":"),
    )
    for key, name, colour, style in lines:
        value = baselines[key]
        axes.axhline(value, color=colour, linestyle=style, label=f"{name}, {value:.3f}")
    if skipped:
        axes.plot(
            *(skipped, [0.02] * len(skipped)),
            **{"color": "C4", "marker": "x", "linestyle": "", "clip_on": False},
            transform=axes.get_xaxis_transform(),
            label=f"skipped ({len(skipped)} step{'s' * (len(skipped) > 1)})",
        )
    # The first steps are far above everything of interest.
    levels = [*baselines.values(), *(loss for _, loss in validation)]
    low, high = min(levels), max(baselines.values())
    margin = max(high - low, 0.02)
    axes.set_ylim(low - 0.25 * margin, high + 0.25 * margin)
    if below is not None:
        _plot_probes(below, rows, probes)
    (below or axes).set_xlabel("step")
    axes.set_ylabel("cross-entropy of masked bases (nats/base)")
    axes.set_title("Masked language model: bases replaced by [MASK]")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.grid(alpha=0.25)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _plot_probes(axes: Any, rows: list[dict[str, Any]], probes: list[str]) -> None:
    """Draws the test score of each task that the model was probed on."""
    for key in probes:
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            metric, _, task = key.removeprefix("probe_").partition("/")
            label = f"{task}, {metric} of a probe"
            axes.plot(*zip(*points, strict=True), marker="s", markersize=4, label=label)
    axes.set_ylabel("test score")
    axes.grid(alpha=0.25)


def summary(baselines: Mapping[str, float], rows: list[dict[str, Any]], held_out: str) -> list[str]:
    """Formats how the model compares with the baselines.

    Args:
        baselines: nats per base of the simple models, by name.
        rows: the metrics of the run, one dictionary per line.
        held_out: the validation sequence, such as "9 held-out bases".
    """
    validated = [row for row in rows if "validation_masked_loss" in row]
    table = [
        ("a guess among four bases", math.log(4)),
        ("order-0 entropy of that sequence", baselines["order_0_entropy"]),
        ("order-3 Markov model", baselines["markov_3"]),
        ("order-5 Markov model", baselines["markov_5"]),
        *(
            (f"this model at step {row['step']}", row["validation_masked_loss"])
            for row in validated[-1:]
        ),
    ]
    return [
        f"cross-entropy of masked bases in {held_out}, nats/base:",
        *(f"  {name:34} {value:.4f}" for name, value in table),
    ]
