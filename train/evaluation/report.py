"""The report of an evaluation: one HTML file that needs no server, Markdown, and JSON."""

import base64
import html
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np
from sklearn import metrics

from caduceus_jax.train.finetuning.config import FinetuneConfig

MARKDOWN, PAGE, RESULTS = "report.md", "report.html", "results.json"
PROJECTION = "projection.npz"


class Column(NamedTuple):
    """A model of the comparison."""

    name: str
    path: str  # empty: trained from scratch


class Row(NamedTuple):
    """A task of the comparison."""

    task: str
    cells: dict[str, dict[str, Any]]  # by model: the summary of its fine-tuning, and its folder
    linear: dict[str, dict[str, float]]  # by name: scores of linear models of plain features
    published: dict[str, tuple[float, float | None]]  # by model: mean, and what follows its +-


def write_report(
    folder: pathlib.Path, columns: Sequence[Column], rows: Sequence[Row], config: FinetuneConfig
) -> list[pathlib.Path]:
    """Writes the three files, and says where they are."""
    table = score_table(columns, rows)
    probe = config.method == "probe"
    facts = (
        f"Trained: {config.method}; rc_mode {config.rc_mode}, protocol {config.protocol}, "
        f"{'' if probe else f'{config.epochs} epochs, '}"
        f"seeds {', '.join(map(str, config.seeds))}. A cell is the mean of the test score over "
        f"seeds, each {'with the penalty' if probe else 'at the epoch'} of the best validation "
        "score, ± largest less smallest. Published figures compare only where the whole official "
        "task was read."
    )
    paths = [folder / name for name in (PAGE, MARKDOWN, RESULTS)]
    paths[0].write_text(_page(columns, rows, table, facts))
    paths[1].write_text(f"# Evaluation\n\n{facts}\n\n{_markdown(table)}\n")
    results = [row._asdict() for row in rows]
    paths[2].write_text(json.dumps(results, indent=1))
    return paths


def score_table(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    """Header and cells: one row a task, its models, linear baselines and published scores."""
    linear = list(dict.fromkeys(name for row in rows for name in row.linear))
    published = list(dict.fromkeys(name for row in rows for name in row.published))
    header = ["task", "score", "train / test", *(column.name for column in columns)]
    header += [*linear, *(f"{name} (published)" for name in published)]
    table = [header]
    for row in rows:
        summary = next(iter(row.cells.values()))
        metric = summary["metric"]
        cells = [row.task, metric, f"{summary['training']:,} / {summary['testing']:,}"]
        for column in columns:
            found = row.cells[column.name]["test"][metric]
            cells.append(f"{found['mean']:.3f} ± {found['range']:.3f}")
        for name in linear:
            cells.append(f"{row.linear[name][metric]:.3f}" if name in row.linear else "")
        for name in published:
            mean, spread = row.published.get(name, (None, None))
            text = "" if mean is None else f"{mean:.3f}"
            cells.append(text if spread is None else f"{text} ± {spread:.3f}")
        table.append(cells)
    return table


def _markdown(table: list[list[str]]) -> str:
    marks = ["---", "---", *["---:"] * (len(table[0]) - 2)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (table[0], marks, *table[1:]))


def _page(
    columns: Sequence[Column], rows: Sequence[Row], table: list[list[str]], facts: str
) -> str:
    cells = "".join(
        "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>\n"
        for tag, row in zip(["th", *["td"] * (len(table) - 1)], table, strict=True)
    )
    sections = "".join(_section(columns, row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td {{ white-space: nowrap; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .35em .8em; text-align: right; }}
th {{ vertical-align: bottom; }}
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) {{ text-align: left; }}
tr:hover td {{ background: #f5f5f5; }}
.scroll {{ overflow-x: auto; }}
img {{ max-width: 100%; }}
h2 {{ margin-top: 2em; }}
</style></head><body>
<h1>Evaluation</h1>
<p>{html.escape(facts)}</p>
<div class="scroll"><table>
{cells}</table></div>
{sections}</body></html>
"""


def _section(columns: Sequence[Column], row: Row) -> str:
    """The pictures of one task."""
    figure = draw_task(columns, row)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    data = base64.b64encode(image.getvalue()).decode()
    alt = f"learning curves and test predictions of {row.task}"
    return (
        f"<h2>{html.escape(row.task)}</h2>\n"
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">\n'
    )


def draw_task(columns: Sequence[Column], row: Row) -> matplotlib.figure.Figure:
    """Learning curves of every model; and of the first seed of each: ROC, confusion, embedding.

    What no model of the task has, such as the learning curve of a probe, takes no room.
    """
    cells = row.cells
    classification = next(iter(cells.values()))["kind"] == "classification"
    panels = [_roc, _confusion] if classification else [_scatter]
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
    """By seed: what was measured after each epoch."""
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
            [r[metric] for r in rows],
            f"C{i}",
            marker="o",
            markersize=3,
            label=f"seed {seed}",
        )
    best = summary["test"][metric]["mean"]
    axes.axhline(best, color="0.6", linestyle="--", label=f"test, mean {best:.3f}")
    axes.set_title(f"validation {metric}")
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)


def _predictions(folder: pathlib.Path, summary: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and outputs of the test sequences with the first seed."""
    path = folder / f"seed-{summary['seeds'][0]}" / "predictions.tsv"
    if summary["kind"] == "tracks":
        with np.load(path.with_suffix(".npz")) as stored:
            tracks = len(summary["classes"])
            return stored["labels"].reshape(-1, tracks), stored["outputs"].reshape(-1, tracks)
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    outputs = len(summary["classes"])
    values = np.array([row[-outputs:] for row in rows], float)
    if summary["kind"] == "regression":
        return np.array([row[1:-outputs] for row in rows], float), values
    number = {name: i for i, name in enumerate(summary["classes"])}
    return np.array([number[row[1]] for row in rows]), values


def _roc(axes: Any, summary: dict[str, Any], labels: np.ndarray, outputs: np.ndarray) -> None:
    classes = summary["classes"]
    shown = [1] if len(classes) == 2 else range(len(classes))
    odds = outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True)
    for c in shown:
        if 0 < (labels == c).sum() < len(labels):
            x, y, _ = metrics.roc_curve(labels == c, odds[:, c])
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
