"""Labelled sequences in files of your own: tables and FASTA."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.files.sequence_tables import checked_bases, read_frame, row_name
from caduceus_jax.train.finetuning.config import Kind, LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task

METRICS: dict[Kind, str] = {"classification": "accuracy", "regression": "pearson"}


class Rows(list):
    """(name, sequence, label as text) of each row, and what to call a row in errors."""

    def __init__(self, path: pathlib.Path, rows: Sequence[tuple[str, bytes, list[str]]]):
        super().__init__(rows)
        self.path = path


def read_task(config: LabelledConfig) -> Task:
    """The task of the files that `config` names.

    Raises:
        UserError: a file is missing, is no table of sequences, or has labels that others lack.
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
    """A task of the rows of each part.

    Args:
        name: the task's.
        parts: "train", and perhaps "validation" and "test".
        config: kind, columns and longest sequence.
        metric: by default accuracy, or Pearson's correlation.
        classes: order of the labels; by default numbers in their order, or else the alphabet's.

    Raises:
        UserError: labels that do not fit the kind, or that the training rows lack.
    """
    if config.kind == "regression":
        values = config.label if isinstance(config.label, list) else [config.label]
        classes = classes or tuple(values)
        examples = {part: _regression(rows) for part, rows in parts.items()}
    else:
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
    """The rows of one file.

    Raises:
        UserError: no such file, an ending that is not known, no such column, no row, or a
            sequence that is none, with its line.
    """
    labels = config.label if isinstance(config.label, list) else [config.label]
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".fa", ".fasta", ".fna")):
        return _fasta(path, len(labels))
    frame, first_line = read_frame(path)
    needed = [config.sequence, *labels]
    if missing := [name for name in needed if name not in frame.columns]:
        raise UserError(
            f"{path} has no column {missing[0]}; it has {', '.join(frame.columns)}: say which with "
            "--data.sequence and --data.label"
        )
    if not len(frame):
        raise UserError(f"{path} has no rows")
    rows = []
    columns = [frame[name].to_list() for name in needed]
    for line, (sequence, *label) in enumerate(zip(*columns, strict=True), start=first_line):
        where = row_name(path, first_line, line)
        bases = checked_bases(where, sequence)
        if any(value is None or value == "" for value in label):
            raise UserError(f"{where}: the label is empty")
        rows.append((f"{path.name}:{line}", bases, [str(value) for value in label]))
    return Rows(path, rows)


def _name(train: pathlib.Path) -> str:
    """What to call the task of a training file: its name, or its folder's where that says more."""
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
    if all(text.lstrip("-").isdecimal() for text in found):
        return tuple(sorted(found, key=int))
    if len(found) > 1000:
        raise UserError(
            f"{rows.path} has {len(found):,} different labels: for numbers, say --data.kind "
            "regression"
        )
    return tuple(sorted(found))


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
                f"{rows.path}: {name} has the label {', '.join(label)}, which is no number to "
                "regress"
            )
    return Examples(list(names), list(sequences), values)
