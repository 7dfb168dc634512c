"""Baselines: how well simple models predict the held-out sequence.

All figures are nats per base; 1.386 (ln 4) is a guess among four bases.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from caduceus_jax.train.data.splits import Block, Splits, without

# Longer stretches are counted piece by piece, and of a very large genome evenly chosen pieces.
_PIECE = 1 << 20
_MOST_PIECES = 256
_UNKNOWN = 4
_CODE = np.full(256, _UNKNOWN, np.int8)
_CODE[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3] * 2


def baselines(splits: Splits) -> dict[str, float]:
    """Computes the cross-entropy of the validation sequence under simple models.

    Args:
        splits: splits of genomes that are read piece by piece.

    Returns:
        `order_0_entropy`, of the validation sequence's own composition, which no model that
        ignores context can beat; `markov_3` and `markov_5`, of Markov models of these orders
        fitted on the training sequence.
    """
    train = without(splits.train, [*splits.validation, *splits.test])
    validation = without(splits.validation, [])
    found = {"order_0_entropy": order_0_entropy(_pieces(splits, validation))}
    for order in (3, 5):
        model = fit_markov(_pieces(splits, train), order)
        found[f"markov_{order}"] = markov_cross_entropy(model, _pieces(splits, validation))
    return found


def recorded_baselines(splits: Splits, path: pathlib.Path, *, begun: bool) -> dict[str, float]:
    """Returns a run's baselines: counted when it begins, and read from `path` when it continues."""
    if begun and path.exists():
        return json.loads(path.read_text())
    found = baselines(splits)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def order_0_entropy(sequences: Iterable[np.ndarray]) -> float:
    """Computes the entropy of the base composition.

    Args:
        sequences: (length,) codes A 0, C 1, G 2, T 3; anything else is unknown and left out.

    Returns:
        Nats per base; 0 where no base is known.
    """
    counts = sum((np.bincount(s, minlength=5)[:4] for s in sequences), np.zeros(4))
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-np.sum(share * np.log(share)))


def fit_markov(sequences: Iterable[np.ndarray], order: int) -> list[np.ndarray]:
    """Fits a Markov model with add-one counts from both strands.

    Args:
        sequences: codes of the bases, as for `order_0_entropy`.
        order: bases of context.

    Returns:
        For each order up to this one (4**order, 4) log-probabilities. A context is a number in
        base 4 whose last digit is the base just before.
    """
    counts = [np.ones((4**k, 4)) for k in range(order + 1)]
    for sequence in sequences:
        for strand in (sequence, _reverse_complement(sequence)):
            for k, (context, known) in enumerate(_contexts(strand, order)):
                known = known & (strand != _UNKNOWN)
                grams = 4 * context[known] + strand[known]
                counts[k] += np.bincount(grams, minlength=4 ** (k + 1)).reshape(-1, 4)
    return [np.log(c / c.sum(axis=1, keepdims=True)) for c in counts]


def markov_cross_entropy(model: list[np.ndarray], sequences: Iterable[np.ndarray]) -> float:
    """Computes the cross-entropy of sequences, left to right, under a Markov model.

    Args:
        model: model from `fit_markov`. Where fewer bases of context are known, as at a sequence's
            start, a lower order predicts.
        sequences: codes of the bases, as for `order_0_entropy`.

    Returns:
        Nats per known base.
    """
    total, bases = 0.0, 0
    for sequence in sequences:
        counted = sequence != _UNKNOWN
        nats = np.zeros(len(sequence))
        for log_probs, (context, known) in zip(
            model, _contexts(sequence, len(model) - 1), strict=True
        ):
            here = known & counted
            nats[here] = -log_probs[context[here], sequence[here]]
        total += nats.sum()
        bases += int(counted.sum())
    return float(total / max(bases, 1))


def _contexts(sequence: np.ndarray, order: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Returns, per order from 0, each position's context, and whether all its bases are known."""
    context = np.zeros(len(sequence), np.int64)
    known = np.ones(len(sequence), bool)
    yield context, known
    for k in range(1, order + 1):
        before = np.concatenate([np.full(k, _UNKNOWN, sequence.dtype), sequence])[: len(sequence)]
        known = known & (before != _UNKNOWN)
        context = context + before.astype(np.int64) * 4 ** (k - 1)
        yield context, known


def _reverse_complement(sequence: np.ndarray) -> np.ndarray:
    return np.where(sequence == _UNKNOWN, sequence, 3 - sequence)[::-1]


def _pieces(splits: Splits, blocks: list[Block]) -> Iterator[np.ndarray]:
    """Returns the codes of the blocks' sequence, in pieces."""
    pieces = [
        (block, start, min(start + _PIECE, block.end))
        for block in blocks
        for start in range(block.start, block.end, _PIECE)
    ]
    for block, start, end in pieces[:: -(-len(pieces) // _MOST_PIECES) or 1]:
        yield _CODE[splits.stores[block.genome][block.contig][start:end]]
