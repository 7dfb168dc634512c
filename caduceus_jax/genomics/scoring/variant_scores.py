"""Scores of variants in blocks, each a table of consecutive rows.

There are four: the masked and the pseudo-log-likelihood ratio, the embedding distance, and the
change of a fine-tuned model's outputs.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars
from jaxtyping import Int

from caduceus_jax.genomics.finetuned import outputs
from caduceus_jax.genomics.finetuned.effects import OutputChange
from caduceus_jax.genomics.options import Mode
from caduceus_jax.genomics.scoring.variant_passes import (
    PASSES,
    EmbeddingDistance,
    Passes,
    Scorer,
)
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference import blocks
from caduceus_jax.inference.batches import Batch, Inputs, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block
from caduceus_jax.inference.embeddings import pooled_states, reading
from caduceus_jax.inference.loading import AnyModel
from caduceus_jax.inference.masked import masked_batch, masked_inputs, masked_options

log = logging.getLogger(__name__)

SCORES: dict[Mode, tuple[str, ...]] = {
    "llr": ("llr",),
    "pll": ("pllr",),
    "embedding": ("l2", "cosine"),
}
_PASSES: dict[Mode, Callable[[Scorer, polars.DataFrame], Any]] = {
    **PASSES,
    "output": OutputChange,
}
_BATCHES_PER_BLOCK = 4
_MOST_PASSES = 1 << 12  # of a block


class ScoringWork:
    """Scores variants, with the same result whatever part of it is asked for.

    Args:
        scorer: the model and all else that scores need.
        model: a language model.
        sites: the changes that variants make, of `locate`.
        record: (rows,) number of each row's record; records are not divided.
        mode: "llr", "pll", "embedding", or "output" where the scorer has outputs.

    Attributes:
        forward: the forward pass.
        static: its keyword arguments.
        parts: the rows of each block.
        weights: forward passes of each block.
        padded: windows so far that reach beyond their contigs.
    """

    def __init__(
        self,
        scorer: Scorer,
        model: AnyModel,
        sites: polars.DataFrame,
        record: Int[np.ndarray, " rows"],
        mode: Mode,
    ):
        options = scorer.options
        self._scorer, self._sites, self.padded = scorer, sites, 0
        self._mode: Mode = mode
        self.forward: Callable[..., Any]
        self.static: dict[str, Any]
        ok = (sites["status"] == Status.OK.value).to_numpy()
        per_row = {"llr": 1, "pll": 2 * options.window, "embedding": 2, "output": 2}[mode]
        work = np.where(ok, per_row, 0)
        self.forward, self.static = _forward(model, scorer, mode, int(work.sum()))
        length = options.context
        if scorer.outputs is not None:
            length = scorer.outputs.run_length(length)
        batch = tokens_per_batch(length, options.batch_size) // length
        most = max(_MOST_PASSES, batch)
        self.parts = blocks.cut(work, min(_BATCHES_PER_BLOCK * batch, most), most, record)
        self.weights = [int(work[part.start : part.stop].sum()) for part in self.parts]
        self._shapes = Shapes(np.full(max(int(work.sum()), 1), length), options.batch_size)
        if options.edge == "error":  # found out before the work
            for part in self.parts:
                self._passes(part)

    def blocks(self, numbers: range) -> Iterator[Block[polars.DataFrame]]:
        """Yields the blocks of these numbers."""
        for number in numbers:
            yield self._block(self.parts[number])

    def report_padding(self) -> None:
        """Logs how many windows reached beyond their contigs."""
        if self.padded:
            log.info(
                f"{self.padded:,} windows extend past the end of a contig and are padded with N"
            )

    def empty(self) -> polars.DataFrame:
        """Returns a table of no rows, with all columns."""
        passes = self._passes(range(0))
        return passes.scores(np.zeros((0, *passes.item)))

    def _passes(self, part: range) -> Passes:
        sites = self._sites[part.start : part.stop]
        return _PASSES[self._mode](self._scorer, sites)

    def _block(self, part: range) -> Block[polars.DataFrame]:
        passes = self._passes(part)
        self.padded += passes.padded
        count, length = passes.tokens.shape

        def finish(found: list[tuple[Batch, np.ndarray]]) -> polars.DataFrame:
            """Makes scores from the results of all passes."""
            values = np.full((count, *passes.item), np.nan, np.float32)
            for batch, results in found:
                values[batch.rows] = results
            return passes.scores(values)

        return Block(
            len(part),
            self._shapes.plan(np.full(count, length)),
            _inputs(passes),
            lambda batch: passes.item,
            finish,
        )


def _forward(
    model: AnyModel, scorer: Scorer, mode: Mode, passes: int
) -> tuple[Any, dict[str, Any]]:
    rc_mode = scorer.options.rc_mode
    if mode == "embedding":
        how = reading(model, scorer.tokenizer, rc_mode=rc_mode)
        return pooled_states, {"strands": how.strands, "n_blocks": how.n_blocks}
    if mode == "output":
        return outputs.forward, {}
    static = masked_options(model, scorer.tokenizer, rc_mode, passes=passes)  # pyright: ignore
    return masked_batch, static


def _inputs(passes: Passes) -> Inputs:
    if isinstance(passes, OutputChange):
        return lambda batch: (np.asarray(passes.tokens[batch.rows], np.int32), None)
    if not isinstance(passes, EmbeddingDistance):
        return masked_inputs(passes.tokens, passes.extra)

    def inputs(batch: Batch) -> tuple[np.ndarray, tuple[None, np.ndarray]]:
        """Makes ids and what else the forward pass takes."""
        ids = np.asarray(passes.tokens[batch.rows], np.int32)
        return ids, (None, passes.extra[batch.rows].astype(np.int32))

    return inputs
