"""Labelled sequences, and batches of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.finetuning.config import Kind

Batch = dict[str, np.ndarray]
_SHORTEST = 32  # tokens of the shortest bucket


class SupportsTake(Protocol):
    """Rows that are read when they are asked for."""

    def take(self, rows: np.ndarray) -> Any:
        """Returns some of the rows, in this order."""
        ...


class Signals(SupportsTake, Protocol):
    """Values that are known of each base beside the sequence."""

    def read(self) -> np.ndarray:
        """Reads (examples, length, signals) float32, for sequences of that length."""
        ...


class Examples(NamedTuple):
    """Sequences in the order of their file."""

    names: list[str]
    sequences: Sequence[bytes]
    # (examples,) int32 classes; (examples, labels) float32 zeros and ones; (examples, values) or
    # (examples, bins, tracks) float32
    labels: np.ndarray
    signals: Signals | None = None

    def take(self, rows: np.ndarray) -> "Examples":
        """Returns some of them, in the order of `rows`."""
        lazy: Any = self.sequences
        sequences = lazy.take(rows) if hasattr(lazy, "take") else [lazy[i] for i in rows]
        signals = None if self.signals is None else self.signals.take(rows)
        return Examples([self.names[i] for i in rows], sequences, self.labels[rows], signals)


@dataclasses.dataclass(frozen=True)
class Task:
    """Describes what is to be learnt, and from which sequences.

    Args:
        name: name of the task in reports.
        kind: "classification", "multi_label", "regression" or "tracks".
        classes: names of the classes, labels, values or tracks, in the order of the outputs; they
            are stored with the model.
        metric: the score that is reported first and chooses the epoch.
        max_length: tokens of the longest sequence that is read.
        train: the training sequences.
        validation: the sequences that choose when to stop, or None: a part of `train`.
        test: the sequences of the result; may be empty.
        bin_size: bases per bin of the tracks.
        num_signals: number of values that are known of each base beside the sequence.
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
    """Draws a validation part from the training sequences.

    Where labels are classes, or zeros and ones, each class or label has its share in the part, and
    at least one sequence where it has two or more: a score needs both sorts.

    Args:
        examples: the training sequences.
        fraction: share of them that validates.
        seed: the seed of the draw.

    Returns:
        The training and the validation part, each in the order of the file.

    Raises:
        UserError: one of them would be empty.
    """
    count = len(examples.sequences)
    held = round(count * fraction)
    if not 0 < held < count:
        raise UserError(
            f"{count} training sequences leave none to validate on, or none to train on"
        )
    rng = np.random.default_rng(seed)
    groups = _groups(examples.labels)
    order = rng.permutation(count)
    if groups is None:
        chosen = order[:held]
    else:
        quota = _quotas(np.bincount(groups), held, fraction, rng)
        # Place of each row among those of its group, in the drawn order.
        place = np.empty(count, int)
        for group in range(len(quota)):
            rows = order[groups[order] == group]
            place[rows] = np.arange(len(rows))
        chosen = np.flatnonzero(place < quota[groups])
    rest = np.setdiff1d(np.arange(count), chosen)
    return examples.take(rest), examples.take(np.sort(chosen))


def _groups(labels: np.ndarray) -> np.ndarray | None:
    """Numbers the groups that a validation part has its share of; None for values."""
    if np.issubdtype(labels.dtype, np.integer):
        return np.unique(labels, return_inverse=True)[1]
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        return None
    # Of several labels, each row stands for its rarest one.
    rarity = np.argsort(np.argsort(labels.sum(axis=0), kind="stable"), kind="stable")
    ranks = np.where(labels == 1, rarity, labels.shape[1])
    return np.unique(ranks.min(axis=1), return_inverse=True)[1]


def _quotas(sizes: np.ndarray, held: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Divides `held` rows among groups of these sizes, in proportion (largest remainders)."""
    exact = sizes * fraction
    least = np.where(sizes >= 2, 1, 0)
    quota = np.maximum(np.floor(exact).astype(int), least)
    remainder = exact - quota + 1e-9 * rng.random(len(sizes))
    while quota.sum() < held:
        open_ = quota < np.maximum(sizes - 1, 1)
        group = np.argmax(np.where(open_, remainder, -np.inf))
        if not open_[group]:
            break
        quota[group] += 1
        remainder[group] -= 1
    return quota


def encode(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    pad: Literal["left", "right"],
    reverse: np.ndarray | None = None,
) -> Batch:
    """Encodes sequences as one batch.

    Args:
        examples: the examples to encode.
        tokenizer: the vocabulary.
        max_length: tokens of a row; longer sequences lose their end.
        pad: the side on which shorter sequences are padded.
        reverse: (examples,) whether to take the reverse complement; None takes none.

    Returns:
        input_ids (examples, max_length) int32, padding_mask (examples, max_length) bool, labels as
        they are, and signals (examples, max_length, signals) float32 where there are any; tracks
        and signals are reversed where the sequence is.
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


class Bucket(NamedTuple):
    """Rows that are padded to one length."""

    length: int  # tokens
    rows: np.ndarray  # numbers of the examples, ascending


def buckets(examples: Examples, max_length: int, batch_size: int, *, single: bool) -> list[Bucket]:
    """Sorts examples by length, so that a long one does not make all others long.

    Lengths are 32, 48, 64, 96, 128 and so on, and `max_length`: at most a third of a longer row is
    padding. A bucket of less than a batch joins the next one if that is at most twice as long.

    Args:
        examples: the sequences.
        max_length: tokens of the longest row; longer sequences lose their end.
        batch_size: rows per batch.
        single: pad all rows to `max_length` instead.

    Returns:
        The buckets, the shortest first; none is empty.
    """
    if single or not isinstance(examples.sequences, list) or examples.signals is not None:
        return [Bucket(max_length, np.arange(len(examples.sequences)))]
    lengths = np.array([min(len(s), max_length) for s in examples.sequences], int)
    wanted = np.minimum([_bucket(length) for length in lengths.tolist()], max_length)
    sizes = np.unique(wanted).tolist()
    for size, longer in zip(sizes[:-1], sizes[1:], strict=True):
        if (wanted == size).sum() < batch_size and longer <= 2 * size:
            wanted[wanted == size] = longer
    return [Bucket(int(size), np.flatnonzero(wanted == size)) for size in np.unique(wanted)]


def _bucket(length: int) -> int:
    power = max(1 << (length - 1).bit_length(), _SHORTEST) if length else _SHORTEST
    return power * 3 // 4 if length <= power * 3 // 4 and power > _SHORTEST else power


def count_batches(found: Sequence[Bucket], batch_size: int) -> int:
    """Counts the batches of an epoch."""
    return sum(-(-len(bucket.rows) // batch_size) for bucket in found)


def batches(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int,
    *,
    batch_size: int,
    pad: Literal["left", "right"],
    rng: np.random.Generator | None = None,
    augment: bool = False,
    single: bool = False,
    least: int | None = None,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yields all examples once, in batches of sequences of similar length.

    The last batch of a bucket is completed with rows of weight 0, so that no example is lost.

    Args:
        examples: the examples to read.
        tokenizer: the vocabulary.
        max_length: tokens of the longest row; longer sequences lose their end.
        batch_size: rows per batch.
        pad: the side on which shorter sequences are padded.
        rng: draws the order of the examples, and which strand of each; None keeps the order of
            the file, and the strand.
        augment: take the reverse complement of each example with odds of one half.
        single: pad all rows to `max_length`.
        least: the last batch of a bucket has this many rows times a power of two; None gives it
            as many as the others.
        skip: number of batches that are left out at the beginning.

    Yields:
        What `encode` returns; weights (rows,) float32: 1, or 0 in rows that only fill; and rows
        (rows,), the number of the example that each is.
    """
    count = len(examples.sequences)
    found = buckets(examples, max_length, batch_size, single=single)
    order = np.arange(count) if rng is None else rng.permutation(count)
    reverse = rng.random(count) < 0.5 if augment and rng is not None else np.zeros(count, bool)
    bucket_of = np.empty(count, int)
    for number, bucket in enumerate(found):
        bucket_of[bucket.rows] = number
    planned = [
        (bucket.length, rows[first : first + batch_size])
        for number, bucket in enumerate(found)
        for rows in [order[bucket_of[order] == number]]
        for first in range(0, len(rows), batch_size)
    ]
    if rng is not None and len(found) > 1:
        planned = [planned[i] for i in rng.permutation(len(planned))]
    for length, rows in planned[skip:]:
        size = batch_size
        if least is not None:
            size = min(batch_size, least * (1 << max(-(-len(rows) // least) - 1, 0).bit_length()))
        filled = np.resize(rows, size)
        batch = encode(examples.take(filled), tokenizer, length, pad=pad, reverse=reverse[filled])
        weights = (np.arange(size) < len(rows)).astype(np.float32)
        yield {**batch, "weights": weights, "rows": filled}
