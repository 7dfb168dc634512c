"""Predictions of a fine-tuned model in blocks, each a table of consecutive rows."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference import blocks
from caduceus_jax.inference.batches import Batch, Inputs, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block
from caduceus_jax.inference.loading import Pretrained, checked_tokenizer
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import CaduceusForSequenceClassification
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.model.typing import PaddingMask, TokenIds

log = logging.getLogger(__name__)

_BATCHES_PER_BLOCK = 8
_MOST_TOKENS = 1 << 22


class PredictionWork:
    """Predicts for sequences, with the same result whatever part of it is asked for.

    Args:
        m: a fine-tuned model with its tokenizer.
        sequences: the rows. What is longer than the model was trained on loses its end, as it did
            there, and a log line tells how many did.
        options: the verb's options.

    Attributes:
        forward: the forward pass.
        static: its keyword arguments.
        parts: the rows of each block.
        weights: tokens of each block.
        columns: names of the columns of the predictions.

    Raises:
        UserError: the model has no head that was fine-tuned, or one of another kind; or its
            tokenizer does not fit.
    """

    def __init__(self, m: Pretrained, sequences: Sequences, options: Prediction):
        self._task, model = _task_of(m), m.model
        assert isinstance(model, CaduceusForSequenceClassification)
        self._names = self._task.labels or tuple(f"LABEL_{i}" for i in range(model.num_labels))
        self._sequences = sequences
        self._tokenizer = checked_tokenizer(model, m.tokenizer, both_strands=True)
        self.forward: Callable[..., Any] = _logits
        self.static: dict[str, Any] = {}
        self.columns = _columns(self._task, self._names)
        lengths = sequences.lengths
        most = self._task.max_length or int(lengths.max(initial=1))
        if cut := int((lengths > most).sum()):
            log.info(
                f"{cut:,} of {len(lengths):,} sequences are longer than the {most:,} bases that "
                "the model was trained on: their ends are not read"
            )
        self._lengths = np.minimum(lengths, most)
        ok = self._lengths > 0
        self._run = np.where(ok, most, 0) if self._task.padded else self._lengths
        self._shapes = Shapes(self._run[ok], options.batch_size)
        batch = tokens_per_batch(int(self._run.max(initial=1)), options.batch_size)
        self.parts = blocks.cut(self._run, _BATCHES_PER_BLOCK * batch, _MOST_TOKENS)
        self.weights = [int(self._run[part.start : part.stop].sum()) for part in self.parts]

    def blocks(self, numbers: range) -> Iterator[Block[polars.DataFrame]]:
        """Yields the blocks of these numbers."""
        for number in numbers:
            yield self._block(self.parts[number])

    def empty(self) -> polars.DataFrame:
        """Returns a table of no rows, with all columns."""
        return self._frame(range(0), np.zeros((0, len(self._names)), np.float32))

    def _block(self, part: range) -> Block[polars.DataFrame]:
        rows = part.start + np.flatnonzero(self._run[part.start : part.stop])
        item = (len(self._names),)

        def finish(found: list[tuple[Batch, np.ndarray]]) -> polars.DataFrame:
            """Makes the table of a part from the outputs of its rows."""
            outputs = np.empty((len(rows), len(self._names)), np.float32)
            for batch, values in found:
                outputs[batch.rows] = values
            return self._frame(part, outputs)

        batches = self._shapes.plan(self._run[rows])
        return Block(len(part), batches, self._inputs(rows), lambda batch: item, finish)

    def _inputs(self, rows: np.ndarray) -> Inputs:
        padded, tokenizer = self._task.padded, self._tokenizer

        def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
            """Makes ids and padding mask of a batch."""
            ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
            chosen = rows[batch.rows]
            for i, row in enumerate(chosen.tolist()):
                tokens = tokenizer.encode(self._sequences.read(row)[: int(self._lengths[row])])
                ids[i, slice(-len(tokens), None) if padded else slice(len(tokens))] = tokens
            if padded:
                return ids, None
            return ids, np.arange(batch.length) < self._lengths[chosen][:, None]

        return inputs

    def _frame(self, part: range, outputs: Float[np.ndarray, "ok outputs"]) -> polars.DataFrame:
        status = self._sequences.status[part.start : part.stop]
        ok = status == Status.OK
        values = np.full((len(ok), len(self._names)), np.nan, np.float32)
        values[ok] = self._in_units(outputs)
        new = [polars.Series("status", status.tolist(), dtype=polars.String)]
        names = self.columns[-len(self._names) :]
        if self._task.kind == "classification":
            likeliest = np.full(len(ok), None, object)
            likeliest[ok] = np.array(self._names, object)[outputs.argmax(axis=1)]
            new.append(polars.Series("predicted", likeliest.tolist(), dtype=polars.String))
        new += [polars.Series(name, values[:, i]).fill_nan(None) for i, name in enumerate(names)]
        return self._sequences.frame[part.start : part.stop].with_columns(new)

    def _in_units(self, outputs: np.ndarray) -> np.ndarray:
        """Returns probabilities of classes, or values as they were before training scaled them."""
        if self._task.kind == "classification":
            return np.asarray(jax.nn.softmax(outputs, axis=1))
        if self._task.kind == "multi_label":
            return np.asarray(jax.nn.sigmoid(outputs))
        scale = np.asarray(self._task.scale or 1.0, np.float32)
        return outputs * scale + np.asarray(self._task.centre or 0.0, np.float32)


def _task_of(m: Pretrained) -> TaskDescription:
    if isinstance(m.model, CaduceusForTracks):
        raise UserError(
            "the model predicts tracks: read it in Python, with CaduceusForTracks.from_pretrained"
        )
    if not isinstance(m.model, CaduceusForSequenceClassification):
        raise UserError(
            "the model was not fine-tuned and predicts only masked bases: name a folder "
            "that caduceus-jax finetune wrote, such as runs/finetune/seed-1/model"
        )
    if m.model.signals is not None:
        raise UserError(
            "the model reads signals beside the sequence: use it in Python, with "
            "CaduceusForSequenceClassification"
        )
    return m.model.task


def _columns(task: TaskDescription, names: tuple[str, ...]) -> list[str]:
    if task.kind == "classification":
        return ["predicted", *(f"p_{name}" for name in names)]
    if task.kind == "multi_label":
        return [f"p_{name}" for name in names]
    return [f"predicted_{name}" for name in names]


def _logits(
    model: CaduceusForSequenceClassification, ids: TokenIds, mask: PaddingMask | None
) -> jax.Array:
    return model(ids, mask).logits
