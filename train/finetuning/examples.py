"""Labelled sequences, and batches of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.finetuning.config import Kind

Batch = dict[str, np.ndarray]


class SupportsTake(Protocol):
    """Rows that are read when they are asked for."""

    def take(self, rows: np.ndarray) -> Any:
        """Some of the rows, in this order."""
        ...


class Signals(SupportsTake, Protocol):
    """What is known of each base beside the sequence."""

    def read(self) -> np.ndarray:
        """(examples, length, signals) float32, for sequences of that length."""
        ...


class Examples(NamedTuple):
    """Sequences in the order of their file."""

    names: list[str]
    sequences: Sequence[bytes]
    # (examples,) int32 classes; (examples, values) or (examples, bins, tracks) float32
    labels: np.ndarray
    signals: Signals | None = None

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of them, in the order of `rows`."""
        lazy: Any = self.sequences
        sequences = lazy.take(rows) if hasattr(lazy, "take") else [lazy[i] for i in rows]
        signals = None if self.signals is None else self.signals.take(rows)
        return Examples([self.names[i] for i in rows], sequences, self.labels[rows], signals)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be learnt, and from what.

    Args:
        name: what the task is called in reports.
        kind: "classification", "regression" or "tracks".
        classes: what the label ids stand for, in their order, which is stored with the model; of
            the other kinds, the names of the values or tracks.
        metric: which score is reported first and chooses the epoch.
        max_length: longest sequence in tokens.
        train: the training sequences.
        validation: the sequences that choose when to stop, or None: a part of `train`.
        test: the sequences of the result; may be empty.
        bin_size: bases of a bin of the tracks.
        num_signals: values that are known of each base beside the sequence.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    metric: str
    max_length: int
    train: Examples
    validation: Examples | None
    test: Examples
    bin_size: int = 1
    num_signals: int = 0


def split(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Training and validation part, by chance.

    Raises:
        UserError: one of them would be empty.
    """
    count = len(examples.sequences)
    held = round(count * fraction)
    if not 0 < held < count:
        raise UserError(
            f"{count} training sequences leave none to validate on, or none to train on"
        )
    order = np.random.default_rng(seed).permutation(count)
    return examples.take(np.sort(order[held:])), examples.take(np.sort(order[:held]))


def encode(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    pad: Literal["left", "right"],
    reverse: np.ndarray | None = None,
) -> Batch:
    """The sequences as one batch.

    Args:
        examples: what to encode.
        tokenizer: the vocabulary.
        max_length: tokens of a row; longer sequences lose their end.
        pad: the side on which shorter ones are completed.
        reverse: (examples,) whether to take the reverse complement; by default of none.

    Returns:
        input_ids (examples, max_length) int32, padding_mask (examples, max_length) bool, labels as
        they are, and signals (examples, max_length, signals) float32 where there are any; tracks
        and signals turned around where the sequence is.
    """
    count = len(examples.sequences)
    ids = np.full((count, max_length), tokenizer.pad_id, np.int32)
    mask = np.zeros((count, max_length), bool)
    for row, sequence in enumerate(examples.sequences):
        tokens = tokenizer.encode(sequence[:max_length])
        if reverse is not None and reverse[row]:
            tokens = tokenizer.reverse_complement(tokens)
        place = slice(max_length - len(tokens), None) if pad == "left" else slice(len(tokens))
        ids[row, place], mask[row, place] = tokens, True
    labels = examples.labels
    if reverse is not None and labels.ndim == 3:
        labels = np.where(reverse[:, None, None], labels[:, ::-1], labels)
    batch = {"input_ids": ids, "padding_mask": mask, "labels": labels}
    if examples.signals is not None:
        signals = examples.signals.read()
        if reverse is not None:
            signals = np.where(reverse[:, None, None], signals[:, ::-1], signals)
        batch["signals"] = signals
    return batch


def batches(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    batch_size: int,
    pad: Literal["left", "right"],
    rng: np.random.Generator | None = None,
    augment: bool = False,
) -> Iterator[Batch]:
    """All examples once. The last batch is completed with rows of weight 0: no example is lost.

    Args:
        examples: what to read.
        tokenizer: the vocabulary.
        max_length: tokens of a row.
        batch_size: rows of a batch.
        pad: see `encode`.
        rng: order of the examples, and which strand of each; by default the order of the file.
        augment: take the reverse complement of each with odds of one half.

    Yields:
        What `encode` returns and weights (batch_size,) float32: 1, or 0 in rows that only fill.
    """
    count = len(examples.sequences)
    order = np.arange(count) if rng is None else rng.permutation(count)
    reverse = rng.random(count) < 0.5 if augment and rng is not None else np.zeros(count, bool)
    for first in range(0, count, batch_size):
        rows = order[first : first + batch_size]
        filled = np.resize(rows, batch_size)
        batch = encode(
            examples.take(filled), tokenizer, max_length, pad=pad, reverse=reverse[filled]
        )
        batch["weights"] = (np.arange(batch_size) < len(rows)).astype(np.float32)
        yield batch
