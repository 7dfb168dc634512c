"""Labelled sequences in files of your own: tables and FASTA."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.files.tables import checked_bases, read_table
from caduceus_jax.train.finetuning.config import Kind, LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.split_names import SPLITS

METRICS: dict[Kind, str] = {
    "classification": "accuracy",
    "multi_label": "auroc",
    "regression": "pearson",
}
_MOST_CLASSES = 1000
_SEPARATOR = ";"  # between the names of several labels in one cell
_TRUTH = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}
_WHOLE = re.compile("-?[0-9]+")


class Rows(list):
    """Holds (name, sequence, labels as text) of each row, and the file for errors."""

    def __init__(self, path: pathlib.Path, rows: Sequence[tuple[str, bytes, list[str]]]):
        super().__init__(rows)
        self.path = path


def read_task(config: LabelledConfig) -> Task:
    """Reads the task of the files that `config` names.

    Raises:
        UserError: a file is missing, is not a table of sequences, or has labels that the training
            rows lack.
    """
    if not config.train:
        raise UserError(
            "nothing to learn from: name a published task with --data.task, or a table "
            "of labelled sequences with --data.train"
        )
    parts = {
        part: read_rows(resolve_data(path), config)
        for part, path in (
            ("train", config.train),
            ("validation", config.validation),
            ("test", config.test),
        )
        if path
    }
    return task_of(_name(pathlib.Path(config.train)), parts, config)


def task_of(
    name: str,
    parts: dict[str, Rows],
    config: LabelledConfig,
    *,
    metric: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> Task:
    """Makes a task of the rows of each part.

    Args:
        name: the task's.
        parts: "train", and perhaps "validation" and "test".
        config: kind, columns and longest sequence.
        metric: name of the score; by default accuracy, or Pearson's correlation.
        classes: order of the labels; by default that of numbers, or of the alphabet.

    Raises:
        UserError: labels that do not fit the kind, or that the training rows lack.
    """
    columns = config.label if isinstance(config.label, list) else [config.label]
    if config.kind == "regression":
        classes = classes or tuple(columns)
        examples = {part: _regression(rows) for part, rows in parts.items()}
    elif config.kind == "multi_label":
        classes = classes or _label_names(parts["train"], columns)
        examples = {part: _multi_label(rows, classes) for part, rows in parts.items()}
    else:
        if len(columns) > 1:
            raise UserError(
                f"data.label names {len(columns)} columns, and data.kind classification has one "
                "label per sequence: use data.kind multi_label, or regression for values"
            )
        classes = classes or _classes(parts["train"])
        examples = {part: _classification(rows, classes) for part, rows in parts.items()}
    longest = max(map(len, examples["train"].sequences))
    outputs = (0,) if config.kind == "classification" else (0, len(classes))
    dtype = np.int32 if config.kind == "classification" else np.float32
    return Task(
        name,
        config.kind,
        classes,
        metric or METRICS[config.kind],
        config.max_length or longest,
        examples["train"],
        examples.get("validation"),
        examples.get("test", Examples([], [], np.empty(outputs, dtype))),
    )


def read_rows(path: pathlib.Path, config: LabelledConfig) -> Rows:
    """Reads the rows of one file.

    Raises:
        UserError: no such file, an ending that is not known, no such column, no row, or a
            text that is not a sequence, with its line.
    """
    labels = config.label if isinstance(config.label, list) else [config.label]
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".fa", ".fasta", ".fna")):
        return _fasta(path, len(labels))
    table = read_table(path)
    frame = table.frame
    needed = [config.sequence, *labels]
    if missing := [name for name in needed if name not in frame.columns]:
        raise UserError(
            f"{path} has no column {missing[0]}; it has {', '.join(frame.columns)}: name them with "
            "--data.sequence and --data.label"
        )
    if not len(frame):
        raise UserError(f"{path} has no rows")
    rows = []
    columns = [frame[name].to_list() for name in needed]
    for row, (sequence, *label) in enumerate(zip(*columns, strict=True)):
        where, line = table.where(row), table.line(row)
        bases = checked_bases(where, sequence)
        texts = ["" if value is None else str(value).strip() for value in label]
        # Of several labels a sequence may have none.
        if "" in texts and not (config.kind == "multi_label" and len(texts) == 1):
            raise UserError(f"{where}: the label is empty")
        rows.append((f"{path.name}:{line}", bases, texts))
    return Rows(path, rows)


def _name(train: pathlib.Path) -> str:
    """Names the task of a training file: by its name, or by its folder's where that says more."""
    name = re.sub("[-_.]?train(ing)?$", "", train.name.partition(".")[0])
    return name or train.absolute().parent.name


def _fasta(path: pathlib.Path, labels: int) -> Rows:
    """Records whose header's first word ends in |label, or |a|b for several values."""
    rows = []
    for name, bases in iterate_fasta(path):
        word, *label = name.rsplit("|", labels)
        if len(label) < labels:
            raise UserError(
                f"{path}: the record {name} has no label: its header is >name|label"
                + ("|label" * (labels - 1))
            )
        rows.append((word, bases.tobytes(), label))
    return Rows(path, rows)


def _classes(rows: Rows) -> tuple[str, ...]:
    found = {label for _, _, (label,) in rows}
    if len(found) < 2:
        raise UserError(
            f"{rows.path} has one class only, {next(iter(found))}: a classification needs two"
        )
    if len(found) > _MOST_CLASSES:
        raise UserError(
            f"{rows.path} has {len(found):,} different labels: for numbers, pass --data.kind "
            "regression"
        )
    if all(_WHOLE.fullmatch(text) for text in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _label_names(rows: Rows, columns: list[str]) -> tuple[str, ...]:
    """Lists the labels: the columns, or the names that stand in a single one."""
    if len(columns) > 1:
        return tuple(columns)
    found = {name for _, _, (cell,) in rows for name in _cell(cell)}
    if not found:
        raise UserError(f"{rows.path} has no label in the column {columns[0]}")
    return tuple(sorted(found))


def _cell(text: str) -> list[str]:
    return [name.strip() for name in text.split(_SEPARATOR) if name.strip()]


def _multi_label(rows: Rows, classes: tuple[str, ...]) -> Examples:
    """Reads zeros and ones from several columns, or names from a single one."""
    names, sequences, labels = zip(*rows, strict=True)
    values = np.zeros((len(rows), len(classes)), np.float32)
    number = {name: i for i, name in enumerate(classes)}
    for row, (name, cells) in enumerate(zip(names, labels, strict=True)):
        if len(cells) > 1:
            truth = [_TRUTH.get(cell.lower()) for cell in cells]
            if None in truth:
                wrong = cells[truth.index(None)]
                raise UserError(f"{rows.path}: {name} has the label {wrong}; it is 0 or 1")
            values[row] = truth
            continue
        for label in _cell(cells[0]):
            if label not in number:
                raise UserError(
                    f"{rows.path}: {name} has the label {label}, which no training sequence has; "
                    f"they have {', '.join(classes)}"
                )
            values[row, number[label]] = 1
    return Examples(list(names), list(sequences), values)


def _classification(rows: Rows, classes: tuple[str, ...]) -> Examples:
    number = {name: i for i, name in enumerate(classes)}
    names, sequences, labels = zip(*rows, strict=True)
    for name, (label,) in zip(names, labels, strict=True):
        if label not in number:
            raise UserError(
                f"{rows.path}: {name} has the label {label}, which no training sequence has; they "
                f"have {', '.join(classes)}"
            )
    ids = np.array([number[label] for (label,) in labels], np.int32)
    return Examples(list(names), list(sequences), ids)


def _regression(rows: Rows) -> Examples:
    names, sequences, labels = zip(*rows, strict=True)
    values = np.empty((len(rows), len(labels[0])), np.float32)
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        try:
            values[row] = [float(text) for text in label]
        except ValueError:
            values[row] = np.nan
        if not np.isfinite(values[row]).all():
            raise UserError(
                f"{rows.path}: {name} has the label {', '.join(label)}, which is not a number to "
                "regress"
            )
    return Examples(list(names), list(sequences), values)


def tables_of_folder(data: LabelledConfig, folder: pathlib.Path) -> LabelledConfig:
    """Finds the tables of a folder by their names: train, validation and test.

    Args:
        data: the other settings.
        folder: folder with files such as train.csv and test.tsv.gz.

    Raises:
        UserError: a table to train on or to test on is missing.
    """

    def find(*words: str) -> str:
        pattern = re.compile(rf"({'|'.join(words)})\.(csv|tsv|parquet|csv\.gz|tsv\.gz)")
        found = sorted(path for path in folder.glob("*") if pattern.fullmatch(path.name))
        return str(found[0]) if found else ""

    parts = {part: find(*known) for part, known in SPLITS.items()}
    for part in ("train", "test"):
        if not parts[part]:
            raise UserError(f"{folder} has no {part} table, such as {part}.csv")
    return dataclasses.replace(data, **parts)
