"""Pictures of a fine-tuned task: learning curves, and predictions for the test sequences."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from sklearn import metrics

from caduceus_jax.train.evaluation.score_table import Column, Row

PROJECTION = "projection.npz"


def draw_task(columns: Sequence[Column], row: Row) -> matplotlib.figure.Figure:
    """Draws learning curves of every model; of the first seed of each, ROC, confusion, embedding.

    What no model of the task has, such as the learning curve of a probe, takes no room.
    """
    cells = row.cells
    kind = next(iter(cells.values()))["kind"]
    classification = kind == "classification"
    panels = {"classification": [_roc, _confusion], "multi_label": [_roc]}.get(kind, [_scatter])
    if any(_epochs(summary) for summary in cells.values()):
        panels.insert(0, _learning_curves)
    if classification and any(_projection_file(summary).is_file() for summary in cells.values()):
        panels.append(_projection)
    figure = matplotlib.figure.Figure(
        figsize=(4 * len(panels), 3.6 * len(columns)), dpi=100, layout="constrained"
    )
    grid = figure.subplots(len(columns), len(panels), squeeze=False)
    for axes, column in zip(grid, columns, strict=True):
        summary = cells[column.name]
        predicted = _predictions(pathlib.Path(summary["folder"]), summary)
        for panel, ax in zip(panels, axes, strict=True):
            panel(ax, summary, *predicted)
        axes[0].set_title(f"{column.name}: {axes[0].get_title()}")
    return figure


def _epochs(summary: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Returns, by seed, what was measured after each epoch."""
    found = {}
    for seed in summary["seeds"]:
        path = pathlib.Path(summary["folder"]) / f"seed-{seed}" / "metrics.jsonl"
        if path.is_file():
            found[seed] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def _projection_file(summary: dict[str, Any]) -> pathlib.Path:
    return pathlib.Path(summary["folder"]) / PROJECTION


def _learning_curves(
    axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray
) -> None:
    metric = summary["metric"]
    for i, (seed, rows) in enumerate(_epochs(summary).items()):
        axes.plot(
            [r["epoch"] for r in rows],
            np.array([r[metric] for r in rows], float),  # what is undefined is NaN
            f"C{i}",
            marker="o",
            markersize=3,
            label=f"seed {seed}",
        )
    best = summary["test"].get(metric, {}).get("mean")
    if best is not None:
        axes.axhline(best, color="0.6", linestyle="--", label=f"test, mean {best:.3f}")
    axes.set_title(f"validation {metric}")
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)


def _predictions(folder: pathlib.Path, summary: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels and outputs of the test sequences with the first seed."""
    path = folder / f"seed-{summary['seeds'][0]}" / "predictions.tsv"
    if summary["kind"] == "tracks":
        with np.load(path.with_suffix(".npz")) as stored:
            tracks = len(summary["classes"])
            return stored["labels"].reshape(-1, tracks), stored["outputs"].reshape(-1, tracks)
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    outputs = len(summary["classes"])
    values = np.array([row[-outputs:] for row in rows], float)
    if summary["kind"] in ("regression", "multi_label"):
        return np.array([row[1:-outputs] for row in rows], float), values
    number = {name: i for i, name in enumerate(summary["classes"])}
    return np.array([number[row[1]] for row in rows]), values


def _roc(axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray) -> None:
    classes = summary["classes"]
    several = summary["kind"] == "multi_label"
    shown = [1] if len(classes) == 2 and not several else range(len(classes))
    odds = outputs
    if not several:
        odds = outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True)
        labels = np.eye(len(classes), dtype=bool)[labels]
    for c in shown:
        if 0 < labels[:, c].sum() < len(labels):
            x, y, _ = metrics.roc_curve(labels[:, c] > 0, odds[:, c])
            area = metrics.auc(x, y)
            axes.plot(x, y, label=f"{classes[c]}, area {area:.3f}")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.set_title("ROC, test")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(fontsize=8, loc="lower right")


def _confusion(axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray) -> None:
    classes = summary["classes"]
    counts = metrics.confusion_matrix(
        labels, outputs.argmax(axis=1), labels=np.arange(len(classes))
    )
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_title("confusion, test")
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")


def _projection(
    axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray
) -> None:
    path = _projection_file(summary)
    if not path.is_file():
        axes.set_axis_off()
        return
    with np.load(path) as stored:
        points, labels = stored["points"], stored["labels"]
    for c, name in enumerate(summary["classes"]):
        axes.plot(*points[labels == c].T, ".", markersize=3, alpha=0.6, label=name)
    axes.set_title(f"embeddings of {len(points)} test sequences")
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second")
    axes.legend(fontsize=8, markerscale=3)


def _scatter(axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray) -> None:
    classes = summary["classes"]
    for i, name in enumerate(classes):
        axes.plot(labels[:, i], outputs[:, i], ".", markersize=3, alpha=0.5, label=name)
    axes.set_title("test")
    axes.set_xlabel("label")
    axes.set_ylabel("predicted")
    axes.legend(fontsize=8, markerscale=3)
