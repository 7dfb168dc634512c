"""Attributions of sequences in blocks of consecutive rows."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASE_NUMBERS, BASES
from caduceus_jax.genomics.options import Attribution
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference import blocks
from caduceus_jax.inference.attributions import attributed_batch, attribution_target
from caduceus_jax.inference.batches import Batch, Inputs, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block
from caduceus_jax.inference.loading import Pretrained
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.tracks import CaduceusForTracks

_BATCHES_PER_BLOCK = 4
_MOST_TOKENS = 1 << 20
_NUMBERS = BASE_NUMBERS.copy()
_NUMBERS[list(BASES.lower().encode())] = range(4)


class Attributed(NamedTuple):
    """The attributions of one sequence, from left to right on the + strand of its contig.

    Attributes:
        row: number of the sequence.
        base: (bases,) indices in ACGT; -1 for N.
        contributions: (bases, 4) of A, C, G and T; NaN where the sequence has N.
        output: the target of the sequence.
        start: the target of the baseline; NaN unless gradients are integrated.
    """

    row: int
    base: np.ndarray
    contributions: Float[np.ndarray, "bases 4"]
    output: float
    start: float


class AttributionWork:
    """Attributes sequences, with the same result whatever part of it is asked for.

    Args:
        m: any model but a backbone, with its tokenizer.
        sequences: the rows.
        options: the verb's options.

    Attributes:
        forward: the forward pass.
        static: its keyword arguments.
        parts: the rows of each block.
        weights: tokens of each block.

    Raises:
        UserError: options that do not go with the model, or a sequence that it cannot read.
    """

    def __init__(self, m: Pretrained, sequences: Sequences, options: Attribution):
        self._sequences, self._options, self._tokenizer = sequences, options, m.tokenizer
        target = attribution_target(
            m.model,
            m.tokenizer,
            output=options.output,
            rc_mode=options.rc_mode,
            masked=options.window is not None,
        )
        self.forward: Callable[..., Any] = attributed_batch
        self.static: dict[str, Any] = {
            "target": target,
            "method": options.method,
            "baseline": options.baseline,
            "steps": options.steps,
        }
        task = None if isinstance(m.model, CaduceusForMaskedLM) else m.model.task
        bins = m.model.bin_size if isinstance(m.model, CaduceusForTracks) else 1
        self._bins, lengths = bins, sequences.lengths
        _check_lengths(sequences, options.window, bins, None if task is None else task.max_length)
        # Models that were trained with tokens on the left are used with them.
        self._padded = task is not None and task.padded
        most = (task.max_length if task is not None else None) or int(lengths.max(initial=1))
        self._run = np.where(lengths > 0, most, 0) if self._padded else lengths
        self._shapes = Shapes(self._run[self._run > 0], options.batch_size)
        batch = tokens_per_batch(int(self._run.max(initial=1)), options.batch_size)
        self.parts = blocks.cut(self._run, _BATCHES_PER_BLOCK * batch, _MOST_TOKENS)
        self.weights = [int(self._run[part.start : part.stop].sum()) for part in self.parts]
        self._reverse = np.zeros(len(lengths), bool)
        if "strand" in sequences.frame.columns:
            self._reverse = (sequences.frame["strand"] == "-").to_numpy()

    def blocks(self, numbers: range) -> Iterator[Block[list[Attributed]]]:
        """Yields the blocks of these numbers; rows without a sequence have no attributions."""
        for number in numbers:
            yield self._block(self.parts[number])

    def _block(self, part: range) -> Block[list[Attributed]]:
        rows = part.start + np.flatnonzero(self._run[part.start : part.stop])

        def finish(found: list[tuple[Batch, np.ndarray]]) -> list[Attributed]:
            done = {
                int(rows[number]): values
                for batch, results in found
                for number, values in zip(batch.rows.tolist(), results, strict=True)
            }
            return [self._attributed(row, done[row]) for row in rows.tolist()]

        batches = self._shapes.plan(self._run[rows])
        return Block(
            len(part),
            batches,
            self._inputs(rows),
            lambda batch: (self._width(batch) + 1, 4),
            finish,
        )

    def _width(self, batch: Batch) -> int:
        """Returns the tokens that are run of each sequence: whole bins of a model of tracks."""
        return -(-batch.length // self._bins) * self._bins

    def _inputs(self, rows: np.ndarray) -> Inputs:
        def inputs(batch: Batch) -> tuple[np.ndarray, tuple[np.ndarray | None, np.ndarray]]:
            width = self._width(batch)
            shape = (len(batch.rows), width)
            ids = np.full(shape, self._tokenizer.pad_id, np.int32)
            chosen = rows[batch.rows]
            lengths = self._sequences.lengths[chosen]
            first = width - lengths if self._padded else np.zeros_like(lengths)
            for i, row in enumerate(chosen.tolist()):
                tokens = self._tokenizer.encode(self._sequences.read(row))
                ids[i, first[i] : first[i] + len(tokens)] = tokens
            window = self._options.window
            begin = first if window is None else first + (lengths - window) // 2
            spans = np.stack([begin, begin + (lengths if window is None else window)], axis=1)
            mask = None
            if not self._padded and self._shapes.padded:
                mask = np.arange(width) < lengths[:, None]
            return ids, (mask, spans.astype(np.int32))

        return inputs

    def _attributed(self, row: int, values: Float[np.ndarray, "rows 4"]) -> Attributed:
        length = int(self._sequences.lengths[row])
        first = len(values) - 1 - length if self._padded else 0
        four = values[first : first + length].astype(np.float32)
        base = _NUMBERS[np.frombuffer(self._sequences.read(row), np.uint8)]
        if self._reverse[row]:
            # The complement of index i is 3 - i.
            four, base = four[::-1, ::-1], np.where(base >= 0, 3 - base, -1)[::-1]
        four = np.where((base >= 0)[:, None], four, np.float32(np.nan))
        start = float(values[-1, 1])
        integrated = self._options.method == "integrated_gradients"
        return Attributed(row, base, four, float(values[-1, 0]), start if integrated else np.nan)


def attribution_of_bases(
    four: Float[np.ndarray, "bases 4"], base: np.ndarray, method: str
) -> Float[np.ndarray, " bases"]:
    """Returns one value per base: its contribution, or the size of the gradient there.

    Args:
        four: (bases, 4) contributions of A, C, G and T.
        base: (bases,) the sequence's, an index in ACGT; -1 for N.
        method: "gradient" gives the Euclidean norm, the others the base's own contribution.
    """
    if method == "gradient":
        return np.linalg.norm(four, axis=1)
    return four[np.arange(len(base)), base]


def completeness_gap(attributed: Attributed) -> float:
    """Computes how far the contributions' sum is from what they explain, as a share of it.

    Args:
        attributed: attributions by integrated gradients.
    """
    known = attributed.base >= 0
    total = attributed.contributions[np.flatnonzero(known), attributed.base[known]].sum()
    explained = attributed.output - attributed.start
    return abs(float(total) - explained) / max(abs(explained), 1e-12)


def _check_lengths(sequences: Sequences, window: int | None, bins: int, most: int | None) -> None:
    lengths = np.where(sequences.status == Status.OK, sequences.lengths, 0)
    for row in np.flatnonzero(lengths > 0).tolist():
        length, name = int(lengths[row]), sequences.frame["name"][row]
        if window is not None and length < window:
            raise UserError(f"{name} has {length:,} bases, fewer than window, {window:,}")
        if length % bins:
            raise UserError(
                f"{name} has {length:,} bases, which is not a multiple of the model's bins of "
                f"{bins}: pass `context_length`"
            )
        if most is not None and length > most:
            raise UserError(
                f"{name} has {length:,} bases, more than the {most:,} that the model was trained "
                "on: pass `context_length`, or shorter sequences"
            )
