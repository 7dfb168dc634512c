"""`caduceus-jax runs`: several runs side by side, as a table and as one picture."""

import pathlib
from typing import Any, NamedTuple

import matplotlib.figure
import yaml

from caduceus_jax import markdown
from caduceus_jax.errors import UserError
from caduceus_jax.files import replacing
from caduceus_jax.train.cluster import lease
from caduceus_jax.train.run.report import read_metrics

_CONFIG = "config.yaml"


class Run(NamedTuple):
    """Holds what a run's folder records."""

    name: str
    folder: pathlib.Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]


def runs(folders: list[pathlib.Path], *, out: pathlib.Path | None = None) -> None:
    """Compares runs of `caduceus-jax pretrain`: a table, and the loss curves in one picture.

    A run that is going on can be compared too. Losses are in nats per masked base.

    examples:
      caduceus-jax runs runs/quickstart runs/mine
      caduceus-jax runs runs/a runs/b --out curves.png

    Args:
        folders: the runs' folders.
        out: PNG file for the curves of all runs; none is drawn without it.

    Raises:
        UserError: a folder does not hold a run.
    """
    found = [read_run(folder) for folder in folders]
    header, *rows = table(found)
    print("\n".join(markdown.table(header, rows, numbers_from=2)))
    if out is not None:
        draw(found, out)
        print(f"curves: {out}")


def read_run(folder: pathlib.Path) -> Run:
    """Reads the settings and the metrics of a run.

    Args:
        folder: the run's folder.

    Raises:
        UserError: the folder does not hold a run.
    """
    if not (folder / _CONFIG).is_file():
        raise UserError(f"{folder} does not hold a run: it has no {_CONFIG}")
    config = yaml.safe_load((folder / _CONFIG).read_text())
    return Run(folder.name or str(folder), folder, config, read_metrics(folder))


def table(found: list[Run]) -> list[list[str]]:
    """Builds the table: the header, then one row of cells per run."""
    header = ["run", "state", "step", "model", "tokens per step", "learning rate"]
    header += ["loss", "best held out", "at step", "tokens/s", "goodput"]
    return [header, *(_row(run) for run in found)]


def draw(found: list[Run], path: pathlib.Path) -> None:
    """Draws the loss of masked bases over steps: training thin, held out with marks.

    Args:
        found: the runs.
        path: PNG file to write.
    """
    figure = matplotlib.figure.Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i, run in enumerate(found):
        train = [(r["step"], r["masked_loss"]) for r in run.rows if not r.get("skipped")]
        held = [
            (r["step"], r["validation_masked_loss"])
            for r in run.rows
            if r.get("validation_masked_loss") is not None
        ]
        if train:
            axes.plot(*zip(*train, strict=True), color=f"C{i}", alpha=0.25, linewidth=1)
        if held:
            axes.plot(
                *zip(*held, strict=True),
                color=f"C{i}",
                marker="o",
                markersize=3,
                label=f"{run.name}, best {min(loss for _, loss in held):.4f}",
            )
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy of masked bases (nats/base)")
    axes.set_title("training (thin) and held out")
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _row(run: Run) -> list[str]:
    config, rows = run.config, run.rows
    last = rows[-1] if rows else {}
    held = [r for r in rows if r.get("validation_masked_loss") is not None]
    best = min(held, key=lambda row: row["validation_masked_loss"], default={})
    step, steps = last.get("step", 0), config["steps"]
    state = "finished" if step >= steps else "stopped"
    if (run.folder / lease.FILE).exists():
        state = "running"
    model = config["model"]
    return [
        run.name,
        state,
        f"{step:,} / {steps:,}",
        f"{model['d_model']} x {model['n_layer']}",
        f"{config['batch_size'] * config['max_length']:,}",
        f"{config['optimizer']['lr']:g}",
        _number(last.get("masked_loss"), "{:.4f}"),
        _number(best.get("validation_masked_loss"), "{:.4f}"),
        _number(best.get("step"), "{:,}"),
        _number(last.get("tokens_per_second"), "{:,.0f}"),
        _number(last.get("goodput"), "{:.0%}"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
