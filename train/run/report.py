"""What a run says while it goes: metrics on disk, a line on the screen, the loss curve."""

import importlib
import json
import math
import pathlib
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np
from rich.progress import TextColumn
from tensorboardX import SummaryWriter

from caduceus_jax.errors import UserError
from caduceus_jax.progress import bar
from caduceus_jax.train.run.goodput import carried

METRICS = "metrics.jsonl"
FIGURE = "loss.png"
WANDB = "wandb_id"  # names a run there, so that its continuation is the same run


class Report:
    """Writes metrics and shows progress; a context manager. Silent where `speaks` is false.

    Args:
        folder: the run's.
        steps: of the whole run.
        first_step: steps already done. Metrics of later ones, left by a run that was killed
            after its last checkpoint, are dropped: they will be written again.
        speaks: true on one process of a run.
        wandb: project of Weights & Biases that gets the metrics too; none by default.
        settings: of the run, for Weights & Biases.

    Attributes:
        rows: the metrics so far; null, None, is a number that is not finite.
        spent: seconds of the run's earlier parts, see `goodput.carried`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        steps: int,
        first_step: int,
        speaks: bool,
        wandb: str = "",
        settings: dict[str, Any] | None = None,
    ):
        self.folder, self.steps, self.speaks = folder, steps, speaks
        found = read_metrics(folder)
        self.rows = [row for row in found if row["step"] <= first_step]
        self.spent = carried(found, first_step)
        shows = speaks and sys.stderr.isatty()
        self._progress = bar("steps", TextColumn("{task.fields[metrics]}")) if shows else None
        if not speaks:
            return
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        (folder / METRICS).write_text(lines)
        self._tensorboard = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else None
        )
        self._run = _wandb_run(wandb, folder, settings) if wandb else None
        if self._progress:
            self._task = self._progress.add_task(
                "pretraining", total=steps, completed=first_step, metrics=""
            )

    def __enter__(self) -> "Report":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()
        if self.speaks:
            self._tensorboard.close()
            if self._run is not None:
                self._run.finish()

    def say(self, text: str) -> None:
        """One line for the person at the screen."""
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.speaks:
            print(text, file=sys.stderr, flush=True)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._progress:
            self._progress.update(self._task, completed=step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of a step: a line of JSON, TensorBoard, the screen."""
        row = {"step": step, **{key: _written(value) for key, value in metrics.items()}}
        self.rows.append(row)
        if not self.speaks:
            return
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        for key, value in metrics.items():
            self._tensorboard.add_scalar(key, value, step)
        if self._run is not None:
            self._run.log(dict(metrics), step=step)
        shown = f"loss {metrics['loss']:.4f} (hidden bases {metrics['masked_loss']:.4f})"
        told = validated = "validation_masked_loss" in metrics
        if metrics.get("skipped"):
            told = True
            shown += f"  gradient norm {metrics['grad_norm']:.4g}  skipped: no weight is changed"
        if validated:
            shown += f"  held out {metrics['validation_masked_loss']:.4f}"
        shown += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        if self._progress:
            short = shown.partition(" (")[0]
            self._progress.update(self._task, completed=step, metrics=short)
        if told or not self._progress:
            self.say(f"step {step}/{self.steps}  {shown}")


def _written(value: float) -> float | None:
    """A number as JSON has it: whole ones exactly, others to seven digits, null if not finite."""
    if isinstance(value, int):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def check_wandb() -> Any:
    """The module of Weights & Biases.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ModuleNotFoundError:
        raise UserError(
            "wandb is asked for, but not installed: pip install wandb, or leave --wandb out"
        ) from None


def _wandb_run(project: str, folder: pathlib.Path, settings: dict[str, Any] | None) -> Any:
    """The folder's run there: a new one, or the one that it had before."""
    path = folder / WANDB
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:8])
    return check_wandb().init(
        project=project,
        id=path.read_text(),
        resume="allow",
        name=folder.name,
        dir=str(folder),
        config=settings,
    )


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics so far, in order of step; a torn last line is left out."""
    if not (folder / METRICS).is_file():
        return []
    rows = []
    for line in (folder / METRICS).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def plot_losses(
    rows: list[dict[str, Any]], baselines: Mapping[str, float], path: pathlib.Path
) -> None:
    """Draws training and validation loss over steps, with the baselines as horizontal lines.

    Args:
        rows: of `read_metrics`.
        baselines: of `baselines.baselines`, nats per base.
        path: PNG file to write.
    """
    # A figure of its own, not of pyplot: no display is needed and no global state is touched.
    figure = matplotlib.figure.Figure(figsize=(8, 5.5), dpi=120, layout="constrained")
    axes = figure.subplots()
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
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy of hidden bases (nats/base)")
    axes.set_title("Masked language model: bases hidden by [MASK]")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.grid(alpha=0.25)
    figure.savefig(path)


def summary(baselines: Mapping[str, float], rows: list[dict[str, Any]], held_out: str) -> list[str]:
    """The lines that say whether the model has learnt something."""
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
        f"cross-entropy of hidden bases in {held_out}, nats/base:",
        *(f"  {name:34} {value:.4f}" for name, value in table),
    ]
