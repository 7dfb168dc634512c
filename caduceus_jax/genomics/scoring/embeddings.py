"""Embeddings of sequences in blocks, each a table of consecutive rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.scoring.tiles import Tiles, cut, middle, pooled, stitched
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference import blocks
from caduceus_jax.inference.batches import Batch, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block
from caduceus_jax.inference.embeddings import (
    Reading,
    Spans,
    embedding_inputs,
    pooled_spans,
    pooled_states,
)

_BATCHES_PER_BLOCK = 8
_MOST_NUMBERS = 1 << 24  # of a block's results
_MOST_TOKENS = 1 << 22

Results = list[tuple[Batch, np.ndarray]]


class EmbeddingWork:
    """Embeds sequences, with the same result whatever part of it is asked for.

    Args:
        sequences: the rows.
        options: the verb's options.
        how: hidden states are read from the model.

    Attributes:
        forward: the forward pass.
        static: its keyword arguments.
        parts: the rows of each block.
        weights: tokens of each block.
    """

    def __init__(self, sequences: Sequences, options: Embedding, how: Reading):
        self._sequences, self._how = sequences, how
        self.forward: Callable[..., Any] = pooled_states
        self.static: dict[str, Any] = {"strands": how.strands, "n_blocks": how.n_blocks}
        self._per_token = options.pooling == "none"
        self._tiles, self._spans = _tiles(sequences, options)
        lengths = self._tiles.end - self._tiles.start
        self._shapes = Shapes(lengths, options.batch_size)
        batch = tokens_per_batch(int(lengths.max(initial=1)), options.batch_size)
        most = _MOST_NUMBERS // how.channels if self._per_token else _MOST_TOKENS
        self.parts = blocks.cut(sequences.lengths, _BATCHES_PER_BLOCK * batch, max(most, 1))
        reached = np.concatenate([[0], np.cumsum(sequences.lengths)])
        self.weights = [int(reached[part.stop] - reached[part.start]) for part in self.parts]

    def blocks(self, numbers: range) -> Iterator[Block[polars.DataFrame]]:
        """Yields the blocks of these numbers."""
        for number in numbers:
            yield self._block(self.parts[number])

    def empty(self) -> polars.DataFrame:
        """Returns a table of no rows, with all columns."""
        return self._frame(range(0), np.zeros((0, self._how.channels), np.float32))

    def _block(self, part: range) -> Block[polars.DataFrame]:
        first, last = np.searchsorted(self._tiles.sequence, [part.start, part.stop]).tolist()
        tiles = Tiles(*(column[first:last] for column in self._tiles))
        spans = None if self._spans is None else self._spans[first:last]
        lengths = tiles.end - tiles.start
        views = _Views(self._sequences, tiles)

        def item(batch: Batch) -> tuple[int, ...]:
            vector = (self._how.channels,)
            return vector if spans is not None else (batch.length, *vector)

        def finish(found: Results) -> polars.DataFrame:
            """Makes the table of a part from the vectors of its tiles."""
            return self._frame(part, self._vectors(part, tiles, found))

        return Block(
            len(part),
            self._shapes.plan(lengths),
            embedding_inputs(
                views, lengths, spans, self._how.tokenizer, padded=self._shapes.padded
            ),
            item,
            finish,
        )

    def _vectors(
        self, part: range, tiles: Tiles, found: Results
    ) -> Float[np.ndarray, "ok channels"] | list[Float[np.ndarray, "length channels"]]:
        """Puts together what is known of the rows that are OK."""
        ok = np.flatnonzero(self._sequences.status[part.start : part.stop] == Status.OK)
        if not self._per_token:
            vectors = np.zeros((len(tiles.start), self._how.channels), np.float32)
            for batch, values in found:
                vectors[batch.rows] = values
            local = tiles._replace(sequence=np.searchsorted(ok, tiles.sequence - part.start))
            return pooled(local, vectors, len(ok))
        states: dict[int, list[tuple[int, np.ndarray]]] = {}
        for batch, values in found:
            for number, tokens in zip(batch.rows.tolist(), values, strict=True):
                row = int(tiles.sequence[number]) - part.start
                states.setdefault(row, []).append((number, tokens))
        lengths = self._sequences.lengths[part.start : part.stop]
        return [stitched(tiles, states[row], int(lengths[row])) for row in ok.tolist()]

    def _frame(
        self,
        part: range,
        vectors: Float[np.ndarray, "ok channels"] | list[Float[np.ndarray, "length channels"]],
    ) -> polars.DataFrame:
        import pyarrow

        status = self._sequences.status[part.start : part.stop]
        ok, channels = status == Status.OK, self._how.channels
        if self._per_token:
            counts = np.zeros(len(ok), np.int64)
            counts[ok] = [len(tokens) for tokens in vectors]
            offsets = pyarrow.array(np.concatenate([[0], np.cumsum(counts)]))
            flat = np.concatenate([np.empty((0, channels), np.float32), *vectors])
            arrays = pyarrow.FixedSizeListArray.from_arrays(flat.reshape(-1), channels)
            column = pyarrow.LargeListArray.from_arrays(offsets, arrays, mask=pyarrow.array(~ok))
        else:
            flat = np.zeros((len(ok), channels), np.float32)
            flat[ok] = vectors
            column = pyarrow.FixedSizeListArray.from_arrays(
                flat.reshape(-1), channels, mask=pyarrow.array(~ok)
            )
        return self._sequences.frame[part.start : part.stop].with_columns(
            polars.Series("status", status.tolist(), dtype=polars.String),
            polars.Series("embedding", column),
        )


class _Views(Sequence[memoryview]):
    """The bases of tiles, read when they are needed."""

    def __init__(self, sequences: Sequences, tiles: Tiles):
        self._sequences, self._tiles = sequences, tiles
        self._last: tuple[int, bytes] = (-1, b"")

    def __len__(self) -> int:
        return len(self._tiles.start)

    def __getitem__(self, number: int) -> memoryview:
        row = int(self._tiles.sequence[number])
        if self._last[0] != row:
            self._last = row, self._sequences.read(row)
        start, end = int(self._tiles.start[number]), int(self._tiles.end[number])
        return memoryview(self._last[1])[start:end]


def _tiles(sequences: Sequences, options: Embedding) -> tuple[Tiles, Spans | None]:
    """Returns the tiles of all rows that are OK, by their numbers, and what of each is averaged."""
    rows = np.flatnonzero(sequences.status == Status.OK)
    lengths = sequences.lengths[rows]
    tile = options.tile or int(lengths.max(initial=1))
    if options.pooling in ("center", "window"):
        tiles = middle(lengths, tile)
        spans = pooled_spans(tiles.end - tiles.start, options.pooling, options.window)
    else:
        tiles = cut(lengths, tile, checked_overlap(options) or 0)
        spans = tiles.share - 2 * tiles.start[:, None] if options.pooling == "mean" else None
    return tiles._replace(sequence=rows[tiles.sequence]), spans


def checked_overlap(options: Embedding) -> int | None:
    """Returns the bases that neighbouring tiles share at least; None without tiles."""
    if options.tile is None:
        return None
    return options.tile // 4 if options.overlap is None else options.overlap
