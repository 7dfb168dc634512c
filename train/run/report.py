"""Reports a run while it goes on: metrics on disk, lines on the screen."""

import importlib
import json
import math
import pathlib
import sys
import uuid
from collections.abc import Mapping
from typing import Any

from rich.progress import TextColumn

from caduceus_jax.errors import UserError
from caduceus_jax.files import WriteFailed, write_text
from caduceus_jax.progress import bar
from caduceus_jax.train.run.goodput import carried
from caduceus_jax.train.run.tensorboard import ScalarWriter

METRICS = "metrics.jsonl"
WANDB = "wandb_id"  # identifies the run there, so that its continuation is the same run


class Report:
    """Writes metrics and shows progress; a context manager. Silent if `speaks` is false.

    Every file is written by the thread that calls: a disk that is full ends the run with an error,
    and cannot leave it waiting for a writer that died.

    Args:
        folder: the run's folder.
        steps: number of steps of the whole run.
        first_step: number of steps already done. Metrics of later ones, left by a run that was
            killed after its last checkpoint, are dropped: they will be written again.
        speaks: true in one process of a run.
        wandb: project of Weights & Biases that gets the metrics too; none by default.
        settings: the run's settings, for Weights & Biases.

    Attributes:
        rows: the metrics so far; null, None, is a number that is not finite.
        spent: seconds by kind of the run's earlier parts, as `goodput.carried` computes them.
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
        try:
            write_text(folder / METRICS, lines)
            self._tensorboard = ScalarWriter(
                folder / "tensorboard", purge_step=first_step + 1 if first_step else None
            )
        except OSError as error:
            raise _write_failed(folder / METRICS, error) from error
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
        """Shows one line to the person at the screen."""
        if self._progress:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif self.speaks:
            print(text, file=sys.stderr, flush=True)

    def advance(self, step: int) -> None:
        """Moves the progress bar."""
        if self._progress:
            self._progress.update(self._task, completed=step)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the metrics of a step: a line of JSON, TensorBoard, the screen.

        Raises:
            WriteFailed: the disk is full, or a file cannot be written for another reason.
        """
        row = {"step": step, **{key: _rounded(value) for key, value in metrics.items()}}
        self.rows.append(row)
        if not self.speaks:
            return
        path = self.folder / METRICS
        try:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            path = self._tensorboard.path
            numbers = {k: v for k, v in metrics.items() if not isinstance(v, str)}
            self._tensorboard.write(step, numbers)
        except OSError as error:
            raise _write_failed(path, error) from error
        if self._run is not None:
            self._run.log(dict(metrics), step=step)
        shown = f"loss {metrics['loss']:.4f} (masked bases {metrics['masked_loss']:.4f})"
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


def _rounded(value: Any) -> Any:
    """Rounds a number for JSON: whole ones are exact, others have seven digits, or are null."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, int | str):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _write_failed(path: pathlib.Path, error: OSError) -> WriteFailed:
    return WriteFailed(
        f"{path} cannot be written ({error.strerror or error}): free space or repair the disk; the "
        "same command continues from the last checkpoint"
    )


def check_wandb() -> Any:
    """Imports the module of Weights & Biases.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ModuleNotFoundError:
        raise UserError(
            "wandb is asked for, but not installed: pip install wandb, or leave --wandb out"
        ) from None


def _wandb_run(project: str, folder: pathlib.Path, settings: dict[str, Any] | None) -> Any:
    """Begins the folder's run there, or continues the one that it had before."""
    path = folder / WANDB
    if not path.is_file():
        write_text(path, uuid.uuid4().hex[:8])
    return check_wandb().init(
        project=project,
        id=path.read_text(),
        resume="allow",
        name=folder.name,
        dir=str(folder),
        config=settings,
    )


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows of a run's metrics, in order of step; a torn last line is left out.

    Args:
        folder: the run's folder; without metrics in it, no rows are returned.
    """
    if not (folder / METRICS).is_file():
        return []
    rows = []
    for line in (folder / METRICS).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
