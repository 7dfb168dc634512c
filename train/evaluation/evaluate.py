"""`caduceus-jax evaluate`: models fine-tuned on whole benchmarks, with a report."""

import dataclasses
import json
import logging
import pathlib
import re
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from caduceus_jax.errors import UserError
from caduceus_jax.files import write_json
from caduceus_jax.inference import embed
from caduceus_jax.model import checkpoint
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.evaluation.config import EvaluateConfig
from caduceus_jax.train.evaluation.figures import PROJECTION, draw_task
from caduceus_jax.train.evaluation.linear import baselines
from caduceus_jax.train.evaluation.report import Picture, Report, markdown, write_report
from caduceus_jax.train.evaluation.score_table import Column, Row, score_table
from caduceus_jax.train.finetune import SUMMARY, finetune
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.tasks import find_task
from caduceus_jax.train.tasks.published import SUITES, published_task
from caduceus_jax.train.tasks.tables import tables_of_folder

log = logging.getLogger(__name__)

SCRATCH = "scratch"
_OTHER_SUITES = ("eqtl", "masked")  # commands of their own
_PROJECTED = 600  # test sequences whose embeddings are drawn


def evaluate(config: EvaluateConfig) -> None:
    """Fine-tunes models on a suite of tasks and writes a report with published numbers beside.

    With --tuning.protocol paper, learning rates and batch sizes are the paper's where it names
    them. Tasks that are done are not run again. Beside the models stand linear models of 4-mer
    counts and of the bases themselves.

    examples:
      caduceus-jax evaluate MODEL --suite genomic-benchmarks --tuning.data.folder DIR --out out
      caduceus-jax evaluate --tasks [enhancers,promoters] --models [mine=runs/pretrain,scratch]

    Args:
        config: the settings.

    Raises:
        UserError: the suite, a task or a model does not exist.
    """
    folder = pathlib.Path(config.out)
    columns, rows = _models(config), []
    for name, data, published in _tasks(config):
        task = find_task(data)
        linear = _remembered(folder / "baselines" / f"{_file_name(name)}.json", task)
        cells: dict[str, dict[str, Any]] = {}
        for column in columns:
            out = folder / _file_name(column.name) / _file_name(name)
            log.info(f"== {name}: {column.name}")
            finetune(_settings(config, column, name, data, str(out)))
            _project(out, column, task, config.tuning)
            cells[column.name] = {
                **json.loads((out / SUMMARY).read_text()),
                "folder": str(out),
            }
        rows.append(Row(name, cells, linear, published))
    report = _report(columns, rows, config.tuning)
    paths = write_report(folder, report, [row._asdict() for row in rows])
    print("\n".join(markdown(report)))
    print(f"written: {', '.join(map(str, paths))}")


def _report(columns: list[Column], rows: list[Row], tuning: FinetuneConfig) -> Report:
    probe = tuning.method == "probe"
    models = [f"{column.name} ({column.path or 'random weights'})" for column in columns]
    facts = (
        f"Models: {', '.join(models)}. "
        f"Trained: {tuning.method}; rc_mode {tuning.rc_mode or 'of the model'}, "
        f"protocol {tuning.protocol}, "
        f"{'' if probe else f'{tuning.epochs} epochs, '}"
        f"seeds {', '.join(map(str, tuning.seeds))}. A cell is the mean of the test score over "
        f"seeds, each {'with the penalty' if probe else 'at the epoch'} of the best validation "
        "score, ± largest less smallest. Published figures are comparable only where the whole "
        "official task was read."
    )
    pictures = [
        Picture(
            row.task,
            f"learning curves and test predictions of {row.task}",
            draw_task(columns, row),
        )
        for row in rows
    ]
    return Report("Evaluation", facts, score_table(columns, rows), 2, pictures)


def _models(config: EvaluateConfig) -> list[Column]:
    """Lists name and path of each model, the path empty for one from scratch."""
    if config.models is None:
        name = pathlib.Path(config.model).name if config.model else SCRATCH
        return [Column(name, config.model)]
    columns = []
    for text in config.models:
        name, equals, path = text.partition("=")
        if not equals and name != SCRATCH:
            raise UserError(f"models has {text}; each is name=path, or {SCRATCH}")
        columns.append(Column(name, path))
    if len({column.name for column in columns}) < len(columns):
        raise UserError("two of the models have the same name")
    return columns


def _tasks(
    config: EvaluateConfig,
) -> list[tuple[str, LabelledConfig, dict[str, tuple[float, float | None]]]]:
    """Lists name, data and published scores of each task."""
    suite, tables = config.suite.replace("-", "_"), config.tuning.data
    if suite in _OTHER_SUITES:
        raise UserError(f"suite is {suite}, which is a command of its own: evaluate {suite}")
    if suite:
        if suite not in SUITES:
            known = [name.replace("_", "-") for name in SUITES]
            raise UserError(f"suite is {config.suite}; it is one of {', '.join(known)}")
        return [
            (
                name,
                dataclasses.replace(tables, task=f"{suite}/{name}"),
                published_task(suite, name).scores,
            )
            for name in config.tasks or SUITES[suite]
        ]
    if not config.tasks:
        raise UserError("nothing to evaluate on: name a suite, or folders of tables in tasks")
    return [
        (pathlib.Path(path).name, tables_of_folder(tables, pathlib.Path(path)), {})
        for path in config.tasks
    ]


def _settings(
    config: EvaluateConfig, column: Column, name: str, data: LabelledConfig, out: str
) -> FinetuneConfig:
    """Makes the settings of the fine-tuning of one model on one task."""
    tuning = dataclasses.replace(config.tuning, out=out, model=column.path, data=data)
    suite = data.task.partition("/")[0]
    if not suite or tuning.protocol != "paper":
        return tuning
    facts = published_task(suite, name)
    equivariant = tuning.rc_mode in (None, "equivariant")
    optimizer = dataclasses.replace(tuning.optimizer, lr=facts.lr[equivariant])
    batch_size = tuning.batch_size if facts.batch_size is None else facts.batch_size[equivariant]
    return dataclasses.replace(tuning, optimizer=optimizer, batch_size=batch_size)


def _project(out: pathlib.Path, column: Column, task: Task, tuning: FinetuneConfig) -> None:
    """Stores two principal components of test embeddings, by the model of the first seed."""
    projection = out / PROJECTION
    if projection.exists() or task.kind != "classification":
        return
    trained = out / f"seed-{tuning.seeds[0]}" / "model"
    if trained.exists() and tuning.method != "probe":
        model, path = CaduceusForSequenceClassification.from_pretrained(str(trained)), trained
    elif column.path:
        model, path = CaduceusForMaskedLM.from_pretrained(column.path), column.path
    else:
        return  # a probe of random weights
    rows = np.linspace(0, len(task.test.sequences), _PROJECTED, endpoint=False).astype(int)
    some = task.test.take(np.unique(rows))
    tokenizer = Tokenizer.from_pretrained(checkpoint.locate(path))
    cut = [bases[: task.max_length] for bases in some.sequences]
    embedded = embed(model, cut, tokenizer=tokenizer)
    points = PCA(2).fit_transform(embedded)
    np.savez(projection, points=points, labels=some.labels)


def _remembered(path: pathlib.Path, task: Task) -> dict[str, dict[str, float]]:
    """Reads the scores of the linear baselines, or computes and stores them."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, baselines(task))
    return json.loads(path.read_text())


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
