"""`caduceus-jax finetune`: a model learns a task, once for each seed."""

import json
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import yaml

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.inference import TaskDescription
from caduceus_jax.model.checkpoint import load
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import plain
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Examples, Task, batches, split
from caduceus_jax.train.finetuning.metrics import better, check_metric, score
from caduceus_jax.train.finetuning.probe import probe
from caduceus_jax.train.finetuning.step import (
    FinetuneProgram,
    label_scale,
    make_finetune_program,
    put,
)
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
    that are done are not trained again.

    examples:
      caduceus-jax finetune runs/quickstart --config finetune/splice
      caduceus-jax finetune runs/quickstart --data.train train.csv --data.test test.csv
      caduceus-jax finetune runs/quickstart --data.folder DIR \\
          --data.task genomic_benchmarks/human_enhancers_cohn

    Args:
        config: everything there is to choose.
    """
    task = find_task(config.data)
    metric = config.metric or task.metric
    check_metric(metric, task.kind)
    tokenizer = _tokenizer(config)
    folder = pathlib.Path(config.out)
    _begin(config, folder)
    use_cores(config.batch_size)
    counts = [
        len(part.sequences) if part else 0 for part in (task.train, task.validation, task.test)
    ]
    log.info(
        f"{task.name}: {task.kind} of {', '.join(task.classes)}; {counts[0]:,} training, "
        f"{counts[1] or 'no'} validation and {counts[2]:,} test sequences, up to "
        f"{task.max_length:,} tokens"
    )
    results = []
    for seed in config.seeds:
        place = folder / f"seed-{seed}"
        if not (place / RESULT).exists():
            place.mkdir(parents=True, exist_ok=True)
            run = probe if config.method == "probe" else _run
            result, outputs = run(config, task, tokenizer, seed, place)
            _write_predictions(place / "predictions.tsv", task, outputs)
            (place / RESULT).write_text(json.dumps(result, indent=1))
        results.append(json.loads((place / RESULT).read_text()))
        part = "test" if results[-1]["test"] else "validation"
        log.info(f"seed {seed}: {part} {metric} {results[-1][part][metric]:.4f}")
    summary = summarise(task, metric, results)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=1))
    print("\n".join(lines(summary)))
    print(f"in {folder}: {SUMMARY}, and seed-*/ with result.json, predictions and model/")
    if config.method != "probe" and task.kind != "tracks" and not task.num_signals:
        tuned = folder / f"seed-{config.seeds[0]}" / "model"
        print(f"next: caduceus-jax predict {tuned} SEQUENCES --out predicted.tsv")


def summarise(task: Task, metric: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of every score over the seeds.

    Args:
        task: what was learnt.
        metric: the score that is reported first.
        results: of each seed.

    Returns:
        The task's facts; and for "validation" and "test" (where there is one), by score, `mean`,
        `std` (of a sample), `range` (largest less smallest, which the paper gives after its +-),
        and `values`.
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
    """A summary as a table."""
    part = "test" if summary["test"] else "validation"
    seeds = len(summary["seeds"])
    found = [f"{summary['task']}, {part}, {seeds} seed{'s' * (seeds > 1)}:"]
    scores = summary[part]
    for name in sorted(scores, key=lambda name: name != summary["metric"]):
        row = scores[name]
        found.append(
            f"  {name:10} {row['mean']:8.4f}   from {min(row['values']):.4f} to "
            f"{max(row['values']):.4f}"
        )
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {
        "mean": float(np.mean(values)),
        "std": std,
        "range": float(np.ptp(values)),
        "values": values,
    }


def _run(
    config: FinetuneConfig, task: Task, tokenizer: Tokenizer, seed: int, folder: pathlib.Path
) -> tuple[dict[str, Any], np.ndarray]:
    """Trains with one seed; the result, and the outputs for the test sequences."""
    begun = time.monotonic()
    # ---- Data: of the training sequences, some validate ----
    train, validation = task.train, task.validation
    if validation is None:
        train, validation = split(train, config.data.validation_fraction, seed)
    pad: Literal["left", "right"] = "left" if config.protocol == "paper" else "right"
    shape = {"batch_size": config.batch_size, "pad": pad}
    epoch_steps = -(-len(train.sequences) // config.batch_size)

    # ---- Model ----
    mesh = make_mesh()
    steps = schedule_steps(config, task, epoch_steps)
    program = make_finetune_program(config, task, mesh, seed=seed, steps=steps)
    state, augment = program.state, config.rc_mode in ("augment", "posthoc")

    def predict(trained: Any, examples: Examples) -> np.ndarray:
        parts = [
            np.asarray(program.predict(trained, program.frozen, put(batch, mesh)))
            for batch in batches(examples, tokenizer, task.max_length, **shape)
        ]
        return np.concatenate(parts)[: len(examples.sequences)]

    # ---- Epochs ----
    metric = config.metric or task.metric
    best: tuple[float, int, Any, dict[str, float]] | None = None
    first_loss = None
    rows = (folder / "metrics.jsonl").open("w")
    with rows:
        for epoch in range(1, config.epochs + 1):
            rng = np.random.default_rng((seed, epoch))
            losses = []
            for batch in batches(
                train, tokenizer, task.max_length, rng=rng, augment=augment, **shape
            ):
                state, metrics = program.train_step(state, program.frozen, put(batch, mesh))
                losses.append(metrics["loss"])
            values = np.asarray(jax.device_get(losses))
            first_loss = float(values[0]) if first_loss is None else first_loss
            scores = score(predict(state.trained, validation), validation.labels, task.kind)
            row = {"epoch": epoch, "train_loss": float(values.mean()), **scores}
            rows.write(json.dumps(row) + "\n")
            rows.flush()
            log.info(
                f"seed {seed}, epoch {epoch}/{config.epochs}: training loss {values.mean():.4f}, "
                f"validation {metric} {scores[metric]:.4f}, {time.monotonic() - begun:.0f} s"
            )
            if not np.isfinite(values).all():
                raise UserError(
                    f"the training loss of seed {seed} is no number in epoch {epoch}: lower "
                    "--optimizer.lr"
                )
            if best is None or better(scores[metric], best[0], metric):
                best = scores[metric], epoch, jax.device_get(state.trained), scores
            elif config.patience and epoch - best[1] >= config.patience:
                break
    assert best is not None
    _, best_epoch, trained, scores = best

    # ---- Test, once, with the best epoch ----
    outputs = predict(trained, task.test) if task.test.sequences else np.empty((0, 0))
    _export(program, trained, config, task, folder / "model")
    result = {
        "seed": seed,
        "best_epoch": best_epoch,
        "epochs": epoch,
        "steps": int(state.step),
        "first_loss": first_loss,
        "seconds": round(time.monotonic() - begun, 1),
        "trained_parameters": int(sum(x.size for x in jax.tree.leaves(trained))),
        "training_sequences": len(train.sequences),
        "validation": scores,
        "test": score(outputs, task.test.labels, task.kind) if len(outputs) else {},
    }
    return result, outputs


def schedule_steps(config: FinetuneConfig, task: Task, epoch_steps: int) -> int:
    """Length of the learning rate's schedule: the run's own, or that of the original."""
    if config.protocol == "clean":
        return config.epochs * epoch_steps
    # The original's length counts the test sequences, and those that validate, as trained on.
    held = len(task.validation.sequences) if task.validation else 0
    rows = len(task.train.sequences) + held + len(task.test.sequences)
    return config.epochs * -(-rows // config.batch_size)


def _tokenizer(config: FinetuneConfig) -> Tokenizer:
    """The model's vocabulary; makes sure of `rc_mode` before anything is written."""
    architecture, tokenizer = config.architecture, Tokenizer()
    if config.model:
        from caduceus_jax.model import checkpoint

        architecture, _ = load(config.model)
        tokenizer = Tokenizer.from_pretrained(checkpoint.locate(config.model))
    if architecture.rcps != (config.rc_mode == "equivariant"):
        what = config.model or "architecture"
        kind = "reads both strands by construction" if architecture.rcps else "is not equivariant"
        way = "equivariant" if architecture.rcps else "posthoc, augment or none"
        raise UserError(f"rc_mode is {config.rc_mode}, but {what} {kind}: use rc_mode {way}")
    return tokenizer


def _begin(config: FinetuneConfig, folder: pathlib.Path) -> None:
    """Records the run in its folder, or makes sure that the folder's is this one."""
    recorded, settings = folder / CONFIG, plain(config)
    free = ("out", "seeds")
    if recorded.exists():
        before = yaml.safe_load(recorded.read_text())
        differing = [
            key for key in settings if key not in free and before.get(key) != settings[key]
        ]
        if differing:
            raise UserError(
                f"{folder} holds another fine-tuning, with other {', '.join(differing)}: choose "
                "another folder with --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    recorded.write_text(yaml.safe_dump(settings, sort_keys=False))


def _export(
    program: FinetuneProgram, trained: Any, config: FinetuneConfig, task: Task, folder: pathlib.Path
) -> None:
    """The model in Hugging Face layout, with what its outputs mean."""
    program.export(trained).save_pretrained(str(folder))
    # What the model says is in units of `scale`, from `centre`.
    centre, scale = label_scale(task) if task.kind != "classification" else ((), ())
    TaskDescription(
        kind=task.kind,
        max_length=task.max_length,
        pooling=config.pooling,
        rc_mode="posthoc" if config.rc_mode == "posthoc" else None,
        padded=config.protocol == "paper",
        centre=tuple(map(float, centre)),
        scale=tuple(map(float, scale)),
        bin_size=task.bin_size,
    ).write(folder, task.classes)


def _write_predictions(path: pathlib.Path, task: Task, outputs: np.ndarray) -> None:
    """One row a test sequence, in its order; tracks as arrays, with their labels."""
    if task.kind == "tracks":
        names = np.array(task.test.names)
        np.savez(path.with_suffix(".npz"), names=names, labels=task.test.labels, outputs=outputs)
        return
    rows = ["\t".join(["name", *_label_columns(task), *task.classes])]
    for name, label, output in zip(task.test.names, task.test.labels, outputs, strict=True):
        known = [task.classes[label]] if task.kind == "classification" else map(str, label)
        rows.append("\t".join([name, *known, *(f"{value:.6g}" for value in output)]))
    path.write_text("\n".join(rows) + "\n")


def _label_columns(task: Task) -> Iterator[str]:
    if task.kind == "classification":
        yield "label"
    else:
        yield from (f"label_{name}" for name in task.classes)
