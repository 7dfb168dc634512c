"""Sequences longer than a model should read at once: cut into tiles that overlap, and stitched.

Each base's vector comes from the tile in which it lies most centrally: two neighbours meet in the
middle of their overlap, and where that is a base, it gets the mean of both. Tiles lie
symmetrically, so the reverse complement is cut at the same places.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from caduceus_jax import inference
from caduceus_jax.errors import UserError
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

Pooling = Literal["mean", "center", "window", "none"]
PerTile = Int[np.ndarray, " tiles"]


class Tiles(NamedTuple):
    """Stretches of sequences, 0-based half-open."""

    sequence: PerTile  # number of the sequence
    start: PerTile  # first base
    end: PerTile  # the base after the last one
    share: Int[np.ndarray, "tiles 2"]  # the bases it answers for, in half-bases of the sequence


def cut(lengths: np.ndarray, tile: int, overlap: int) -> Tiles:
    """Tiles that cover each sequence symmetrically, as few as overlap by at least `overlap`.

    Args:
        lengths: (sequences,) bases of each.
        tile: bases of a tile; the one in the middle may be one shorter, and a sequence that is
            not longer is one tile.
        overlap: bases that neighbours share at least.
    """
    parts = []
    for number, length in enumerate(lengths.tolist()):
        free = length - min(tile, length)  # how far in the last tile starts
        steps = -(-free // (tile - overlap))
        half = np.arange(steps // 2 + 1)
        first = -(-half * free // max(steps, 1))  # starts of the left half, rounded up
        # Seen from its other end, the right half is the left one.
        mirrored = first[::-1] if steps % 2 else first[-2::-1]
        start = np.concatenate([first, free - mirrored])
        end = length - start[::-1]
        # Twice the middle of an overlap is the number of the half-base where tiles meet.
        meet = end[:-1] + start[1:]
        share = np.stack([np.concatenate([[0], meet]), np.concatenate([meet, [2 * length]])], 1)
        parts.append(Tiles(np.full(len(start), number), start, end, share))
    if not parts:
        none = np.zeros(0, np.int64)
        return Tiles(none, none, none, np.zeros((0, 2), np.int64))
    return Tiles(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def middle(lengths: np.ndarray, tile: int) -> Tiles:
    """The one tile in the middle of each sequence, all of a sequence that is not longer."""
    start = -(-np.maximum(lengths - tile, 0) // 2)
    end = lengths - start
    return Tiles(np.arange(len(lengths)), start, end, 2 * np.stack([start, end], axis=1))


def embed_tiled(
    model: inference.AnyModel,
    sequences: Sequence[bytes],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    pool_window: int | None = None,
    strands: inference.StrandMode = "average",
    layer: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "sequences channels"] | list[Float[np.ndarray, "length channels"]]:
    """`inference.embed` and `inference.embed_tokens` for sequences of any length.

    With `tile`, the mean is that over the stitched vectors, each base counted once, and the vectors
    of a tile are dropped when they are summed. The center and the window in the middle are read
    from one tile around the middle of the sequence: nowhere do they have more context.

    Args:
        model: see `inference.embed`.
        sequences: DNA.
        tokenizer: see `inference.embed`.
        pooling: see `inference.embed`; "none" gives one vector a base.
        pool_window: see `inference.embed`.
        strands: see `inference.embed`.
        layer: see `inference.embed`.
        tile: bases the model reads at once; by default all of a sequence.
        overlap: bases that neighbouring tiles share at least; by default a quarter of `tile`.
        batch_size: tiles in a forward pass; chosen for the device and the length by default.
        show_progress: say on standard error how far it is.

    Raises:
        UserError: see `inference.embed`; a `tile` or an `overlap` that makes no sense.
    """
    lengths = inference.sequence_lengths(sequences)
    longest = int(lengths.max(initial=1))
    overlap = checked_overlap(tile, overlap)
    if tile is not None and pool_window is not None and pool_window > tile:
        raise UserError(f"a pool_window of {pool_window:,} does not fit into a tile of {tile:,}")
    # Said before anything is computed, whatever the sequences.
    inference.pooled_spans(lengths[:0], "mean" if pooling == "none" else pooling, pool_window)
    if pooling in ("center", "window"):
        tiles = middle(lengths, tile or longest)
        spans = inference.pooled_spans(tiles.end - tiles.start, pooling, pool_window)
    else:
        tiles = cut(lengths, tile or longest, overlap)
        spans = tiles.share - 2 * tiles.start[:, None] if pooling == "mean" else None
    views = [
        memoryview(sequences[number])[start:end]
        for number, start, end in zip(
            tiles.sequence.tolist(), tiles.start.tolist(), tiles.end.tolist(), strict=True
        )
    ]
    results: Any = inference.iterate_embeddings(
        model,
        views,
        spans,
        tokenizer=tokenizer,
        strands=strands,
        layer=layer,
        batch_size=batch_size,
    )
    if show_progress:
        unit = "sequences" if tile is None else "tiles"
        results = track(results, total=len(views), what="embedding", unit=unit)
    width = inference.channels(model, strands)
    if pooling == "none":
        return _stitched(results, tiles, lengths, width)
    total = np.zeros(len(lengths), np.int64)
    np.add.at(total, tiles.sequence, tiles.share[:, 1] - tiles.share[:, 0])
    pooled = np.zeros((len(lengths), width), np.float32)
    for row, vector in results:
        number, (first, last) = tiles.sequence[row], tiles.share[row]
        pooled[number] += vector * np.float32((last - first) / total[number])
    return pooled


def _stitched(
    results: Any, tiles: Tiles, lengths: np.ndarray, width: int
) -> list[Float[np.ndarray, "length channels"]]:
    states = [np.zeros((length, width), np.float32) for length in lengths.tolist()]
    for row, tokens in results:
        into, start = states[tiles.sequence[row]], int(tiles.start[row])
        first, last = tiles.share[row].tolist()
        whole = slice((first + 1) // 2, last // 2)
        into[whole] = tokens[whole.start - start : whole.stop - start]
        for half in (first, last):
            if half % 2:  # a base that two tiles share
                into[half // 2] += tokens[half // 2 - start] / 2
    return states


def checked_overlap(tile: int | None, overlap: int | None) -> int:
    """The overlap, or its default; 0 without tiles.

    Raises:
        UserError: a `tile` or an `overlap` that makes no sense.
    """
    if tile is None:
        if overlap is not None:
            raise UserError("overlap is what tiles share: say how long a tile is, too")
        return 0
    if tile < 1:
        raise UserError(f"tile is {tile}; it must be at least 1")
    if overlap is None:
        return tile // 4
    if not 0 <= overlap < tile:
        raise UserError(f"overlap is {overlap}; it must be from 0 to {tile - 1}, below tile")
    return overlap
