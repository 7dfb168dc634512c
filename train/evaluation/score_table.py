"""The scores of several models on several tasks, as one table."""

from collections.abc import Sequence
from typing import Any, NamedTuple


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


def score_table(columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    """Builds the table: per task one row of its models, linear baselines and published scores.

    Args:
        columns: the models.
        rows: the tasks; a score that could not be computed (null in its summary) is "undefined".

    Returns:
        The header, then one row of cells per task.
    """
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
            cells.append(_spread(found["mean"], found["range"]))
        for name in linear:
            cells.append(_spread(row.linear[name][metric], None) if name in row.linear else "")
        for name in published:
            mean, spread = row.published.get(name, (None, None))
            cells.append("" if mean is None else _spread(mean, spread))
        table.append(cells)
    return table


def _spread(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"
