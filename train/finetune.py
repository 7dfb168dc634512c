"""`caduceus-jax finetune`: a model learns a task, once for each seed."""

import json
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import yaml

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.files import write_json, write_text
from caduceus_jax.train.config import plain
from caduceus_jax.train.finetuning import progress
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.finetuning.metrics import check_metric
from caduceus_jax.train.finetuning.probe import Probe
from caduceus_jax.train.finetuning.seed import Tuner
from caduceus_jax.train.finetuning.start import read_start
from caduceus_jax.train.sharding import make_mesh
from caduceus_jax.train.tasks import find_task

log = logging.getLogger(__name__)

CONFIG, SUMMARY, RESULT = "config.yaml", "summary.json", "result.json"


def finetune(config: FinetuneConfig) -> None:
    """Trains a model on labelled sequences, with several seeds, and reports how well it predicts.

    Settings come from a YAML recipe (--config, a file or the name of a shipped one) and from the
    options below, which override it.

    Each seed draws its own validation part, head and order of examples; the epoch with the best
    validation score is tested, once. The same command continues where it was interrupted: seeds
    that are done are not trained again, and one that was interrupted goes on where it was. Ctrl-C
    and SIGTERM save and end it, with status 130 and 75.

    examples:
      caduceus-jax finetune runs/quickstart --config finetune/splice
      caduceus-jax finetune runs/quickstart --data.train train.csv --data.test test.csv
      caduceus-jax finetune runs/quickstart --data.folder DIR \\
          --data.task genomic_benchmarks/human_enhancers_cohn

    Args:
        config: the settings.

    Raises:
        UserError: a task or model cannot be used, or settings contradict each other.
    """
    task = find_task(config.data)
    metric = config.metric or task.metric
    check_metric(metric, task.kind)
    # Before the model is read: once JAX computes, its devices and flags are settled.
    use_cores(config.batch_size)
    start = read_start(config, task)
    folder = pathlib.Path(config.out)
    _begin(config, folder)
    counts = [
        len(part.sequences) if part else 0 for part in (task.train, task.validation, task.test)
    ]
    log.info(
        f"{task.name}: {task.kind} of {', '.join(task.classes)}; {counts[0]:,} training, "
        f"{counts[1] or 'no'} validation and {counts[2]:,} test sequences, up to "
        f"{task.max_length:,} tokens"
    )
    probes = config.method == "probe"
    runner = Probe(config, task, start) if probes else Tuner(config, task, start, make_mesh())
    results = []
    for seed in config.seeds:
        place = folder / f"seed-{seed}"
        if not (place / RESULT).exists():
            place.mkdir(parents=True, exist_ok=True)
            result, outputs = runner.run(seed, place)
            _write_predictions(place / "predictions.tsv", task, outputs)
            write_json(place / RESULT, result)
            progress.forget(place)
        results.append(json.loads((place / RESULT).read_text()))
        part = "test" if results[-1]["test"] else "validation"
        log.info(f"seed {seed}: {part} {metric} {_number(results[-1][part][metric])}")
    summary = summarise(task, metric, results)
    write_json(folder / SUMMARY, summary)
    print("\n".join(lines(summary)))
    print(f"in {folder}: {SUMMARY}, and seed-*/ with result.json, predictions and model/")
    if task.kind != "tracks" and not task.num_signals:
        tuned = folder / f"seed-{config.seeds[0]}" / "model"
        print(f"next: caduceus-jax predict {tuned} SEQUENCES --out predicted.tsv")


def summarise(task: Task, metric: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Computes mean and spread of every score over the seeds.

    Args:
        task: the task that was learnt.
        metric: the score that is reported first.
        results: results of each seed; a score that is not defined is None.

    Returns:
        Facts of the task; and for "validation" and "test" (if there is one), by score, `mean`,
        `std` (of a sample), `range` (largest less smallest, which the paper gives after its +-),
        and `values`. None where a score is not defined for any seed; seeds without it are left
        out.
    """
    summary: dict[str, Any] = {
        "task": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "metric": metric,
        "training": len(task.train.sequences),
        "testing": len(task.test.sequences),
        "seeds": [result["seed"] for result in results],
    }
    for part in ("validation", "test"):
        names = results[0][part]
        summary[part] = {
            name: _spread([result[part][name] for result in results]) for name in names
        }
    return summary


def lines(summary: Mapping[str, Any]) -> list[str]:
    """Formats a summary as a table."""
    part = "test" if summary["test"] else "validation"
    seeds = len(summary["seeds"])
    found = [f"{summary['task']}, {part}, {seeds} seed{'s' * (seeds > 1)}:"]
    scores = summary[part]
    for name in sorted(scores, key=lambda name: name != summary["metric"]):
        row = scores[name]
        defined = [value for value in row["values"] if value is not None]
        if not defined:
            found.append(f"  {name:10} undefined")
            continue
        missing = seeds - len(defined)
        found.append(
            f"  {name:10} {row['mean']:8.4f}"
            + f" (min {min(defined):.4f}, max {max(defined):.4f})" * (len(defined) > 1)
            + f", undefined for {missing} seed{'s' * (missing > 1)}" * bool(missing)
        )
    return found


def _spread(values: list[float | None]) -> dict[str, Any]:
    defined = [value for value in values if value is not None]
    if not defined:
        return {"mean": None, "std": None, "range": None, "values": values}
    std = float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0
    return {
        "mean": float(np.mean(defined)),
        "std": std,
        "range": float(np.ptp(defined)),
        "values": values,
    }


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _begin(config: FinetuneConfig, folder: pathlib.Path) -> None:
    """Records the run in its folder, or checks that the folder holds this one."""
    recorded, settings = folder / CONFIG, plain(config)
    free = ("out", "seeds")
    if recorded.exists():
        before = {**plain(FinetuneConfig()), **yaml.safe_load(recorded.read_text())}
        differing = [
            key for key in settings if key not in free and before.get(key) != settings[key]
        ]
        if differing:
            raise UserError(
                f"{folder} holds another fine-tuning, with other {', '.join(differing)}: choose "
                "another folder with --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(recorded, yaml.safe_dump(settings, sort_keys=False))


def _write_predictions(path: pathlib.Path, task: Task, outputs: np.ndarray) -> None:
    """Writes one row per test sequence, in its order; tracks as arrays, with their labels."""
    if task.kind == "tracks":
        names = np.array(task.test.names)
        np.savez(path.with_suffix(".npz"), names=names, labels=task.test.labels, outputs=outputs)
        return
    rows = ["\t".join(["name", *_label_columns(task), *task.classes])]
    for name, label, output in zip(task.test.names, task.test.labels, outputs, strict=True):
        known = [task.classes[label]] if task.kind == "classification" else map(str, label)
        rows.append("\t".join([name, *known, *(f"{value:.6g}" for value in output)]))
    write_text(path, "\n".join(rows) + "\n")


def _label_columns(task: Task) -> Iterator[str]:
    if task.kind == "classification":
        yield "label"
    else:
        yield from (f"label_{name}" for name in task.classes)
