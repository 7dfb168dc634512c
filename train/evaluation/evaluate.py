"""`caduceus-jax evaluate`: whole benchmarks, and a report of what came of them."""

import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from caduceus_jax.errors import UserError
from caduceus_jax.inference import embed
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.progress import notice
from caduceus_jax.train.evaluation.eqtl_report import evaluate_eqtl
from caduceus_jax.train.evaluation.linear import baselines
from caduceus_jax.train.evaluation.masked import evaluate_masked
from caduceus_jax.train.evaluation.report import PROJECTION, Column, Row, write_report
from caduceus_jax.train.finetune import SUMMARY, finetune
from caduceus_jax.train.finetuning.config import (
    EqtlConfig,
    FinetuneConfig,
    LabelledConfig,
    MaskedConfig,
)
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.tasks import find_task
from caduceus_jax.train.tasks.published import SUITES, facts_of

SCRATCH = "scratch"
_WITHOUT_TUNING = {"eqtl": evaluate_eqtl, "masked": evaluate_masked}
_PROJECTED = 600  # test sequences whose embeddings are drawn


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(FinetuneConfig):
    """Several models on several tasks.

    Args:
        suite: published tasks: genomic-benchmarks, nucleotide-transformer or eqtl; or masked, how
            well hidden bases are known, by region.
        tasks: names of tasks of the suite, [a,b]; null takes all. Where no suite is named: folders
            with train, validation and test tables (valid and dev will do, and so will .csv.gz,
            .tsv or .parquet).
        models: what is compared: [name=path,name=path], paths as for `model`; scratch alone is
            `architecture`, trained from nothing. By default `model`.
        report: folder of the report: report.html, which needs no other file, report.md and
            results.json; and of the fine-tunings, each in a folder of its own.
        eqtl: of the suite eqtl.
        masked: of the suite masked.
    """

    suite: str = ""
    tasks: list[str] | None = None
    models: list[str] | None = None
    report: str = "runs/evaluate"
    eqtl: EqtlConfig = EqtlConfig()
    masked: MaskedConfig = MaskedConfig()


def evaluate(config: EvaluateConfig) -> None:
    """Fine-tunes models on a suite of tasks and writes a report with published numbers beside.

    caduceus-jax evaluate --suite genomic-benchmarks --model runs/pretrain --data.folder DIR
    --report out. Every setting of `caduceus-jax finetune` is there; with --protocol paper, learning
    rates and batch sizes are the paper's where it names them. Tasks that are done are not run
    again. Beside the models stand linear models of 4-mer counts and of the bases themselves.

    Args:
        config: everything there is to choose.
    """
    if config.suite in _WITHOUT_TUNING:
        return _WITHOUT_TUNING[config.suite](config)
    folder = pathlib.Path(config.report)
    columns, rows = _models(config), []
    for name, data, published in _tasks(config):
        task = find_task(data)
        linear = _remembered(folder / "baselines" / f"{_file_name(name)}.json", task)
        cells: dict[str, dict[str, Any]] = {}
        for column in columns:
            out = folder / _file_name(column.name) / _file_name(name)
            notice(f"== {name}: {column.name}")
            finetune(_settings(config, column, name, data, str(out)))
            _project(out, column, task, config)
            cells[column.name] = {
                **json.loads((out / SUMMARY).read_text()),
                "folder": str(out),
            }
        rows.append(Row(name, cells, linear, published))
    paths = write_report(folder, columns, rows, config)
    print("\n".join((folder / "report.md").read_text().splitlines()))
    print(f"written: {', '.join(map(str, paths))}")


def _models(config: EvaluateConfig) -> list[Column]:
    """Name and path of each model, the path empty for one from scratch."""
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
        raise UserError("two of the models have one name")
    return columns


def _tasks(
    config: EvaluateConfig,
) -> list[tuple[str, LabelledConfig, dict[str, tuple[float, float | None]]]]:
    """Name, data and published scores of each task."""
    suite = config.suite.replace("-", "_")
    if suite:
        if suite not in SUITES:
            known = [name.replace("_", "-") for name in SUITES] + list(_WITHOUT_TUNING)
            raise UserError(f"suite is {config.suite}; there are {', '.join(known)}")
        return [
            (
                name,
                dataclasses.replace(config.data, task=f"{suite}/{name}"),
                facts_of(suite, name).scores,
            )
            for name in config.tasks or SUITES[suite]
        ]
    if not config.tasks:
        raise UserError("nothing to evaluate on: name a --suite, or folders with --tasks [a,b]")
    return [
        (pathlib.Path(path).name, _folder_data(config.data, pathlib.Path(path)), {})
        for path in config.tasks
    ]


def _folder_data(data: LabelledConfig, folder: pathlib.Path) -> LabelledConfig:
    """The tables of a folder."""

    def find(*words: str) -> str:
        pattern = re.compile(rf"({'|'.join(words)})\.(csv|tsv|parquet|csv\.gz|tsv\.gz)")
        found = sorted(path for path in folder.glob("*") if pattern.fullmatch(path.name))
        return str(found[0]) if found else ""

    parts = {
        "train": find("train"),
        "validation": find("validation", "valid", "dev"),
        "test": find("test"),
    }
    for part in ("train", "test"):
        if not parts[part]:
            raise UserError(f"{folder} has no {part} table, such as {part}.csv")
    return dataclasses.replace(data, **parts)


def _settings(
    config: EvaluateConfig, column: Column, name: str, data: LabelledConfig, out: str
) -> FinetuneConfig:
    """The fine-tuning of one model on one task."""
    fields = {field.name for field in dataclasses.fields(FinetuneConfig)}
    settings: dict[str, Any] = {name: getattr(config, name) for name in fields}
    settings |= {"out": out, "model": column.path, "data": data}
    suite = data.task.partition("/")[0]
    if suite and config.protocol == "paper":
        facts = facts_of(suite, name)
        equivariant = config.rc_mode == "equivariant"
        settings["optimizer"] = dataclasses.replace(config.optimizer, lr=facts.lr[equivariant])
        if facts.batch_size is not None:
            settings["batch_size"] = facts.batch_size[equivariant]
    return FinetuneConfig(**settings)


def _project(out: pathlib.Path, column: Column, task: Task, config: EvaluateConfig) -> None:
    """Two principal components of test embeddings, by the model of the first seed."""
    path = out / PROJECTION
    if path.exists() or task.kind != "classification":
        return
    trained = out / f"seed-{config.seeds[0]}" / "model"
    if trained.exists():
        model = CaduceusForSequenceClassification.from_pretrained(str(trained))
    elif column.path:
        model = CaduceusForMaskedLM.from_pretrained(column.path)
    else:
        return  # a probe of random weights
    rows = np.linspace(0, len(task.test.sequences), _PROJECTED, endpoint=False).astype(int)
    some = task.test.take(np.unique(rows))
    embedded = embed(model, [bases[: task.max_length] for bases in some.sequences])
    points = PCA(2).fit_transform(embedded)
    np.savez(path, points=points, labels=some.labels)


def _remembered(path: pathlib.Path, task: Task) -> dict[str, dict[str, float]]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(baselines(task)))
    return json.loads(path.read_text())


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
