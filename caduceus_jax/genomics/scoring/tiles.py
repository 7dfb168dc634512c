"""Sequences longer than a model should read at once: cut into tiles that overlap, and stitched.

Each base's vector comes from the tile in which it lies most centrally: two neighbours meet in the
middle of their overlap, and where that is a base, it gets the mean of both. Tiles lie
symmetrically, so the reverse complement is cut at the same places.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

PerTile = Int[np.ndarray, " tiles"]


class Tiles(NamedTuple):
    """Stretches of sequences, 0-based half-open."""

    sequence: PerTile  # number of the sequence
    start: PerTile  # first base
    end: PerTile  # the base after the last one
    share: Int[np.ndarray, "tiles 2"]  # the bases it answers for, in half-bases of the sequence


def cut(lengths: np.ndarray, tile: int, overlap: int) -> Tiles:
    """Covers each sequence symmetrically by the fewest tiles that overlap by `overlap` or more.

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
    """Returns the one tile in the middle of each sequence, all of a sequence that is not longer."""
    start = -(-np.maximum(lengths - tile, 0) // 2)
    end = lengths - start
    return Tiles(np.arange(len(lengths)), start, end, 2 * np.stack([start, end], axis=1))


def pooled(
    tiles: Tiles, vectors: Float[np.ndarray, "tiles channels"], rows: int
) -> Float[np.ndarray, "sequences channels"]:
    """Returns the mean over each sequence, of the means over what its tiles answer for.

    Args:
        tiles: tiles of the sequences 0 to `rows` - 1.
        vectors: (tiles, channels) the mean over each tile's share.
        rows: number of sequences.
    """
    weight = tiles.share[:, 1] - tiles.share[:, 0]
    total = np.zeros(rows, np.int64)
    np.add.at(total, tiles.sequence, weight)
    means = np.zeros((rows, vectors.shape[1]), np.float32)
    shares = (weight / total[tiles.sequence]).astype(np.float32)
    np.add.at(means, tiles.sequence, vectors * shares[:, None])
    return means


def stitched(
    tiles: Tiles, states: Iterable[tuple[int, Float[np.ndarray, "tokens channels"]]], length: int
) -> Float[np.ndarray, "length channels"]:
    """Returns the vectors of one sequence, each from the tile in which it lies most centrally.

    Args:
        tiles: tiles of all sequences.
        states: number and vectors of each tile of the sequence.
        length: its bases.
    """
    into: np.ndarray | None = None
    for number, tokens in states:
        if into is None:
            into = np.zeros((length, tokens.shape[1]), np.float32)
        start = int(tiles.start[number])
        first, last = tiles.share[number].tolist()
        whole = slice((first + 1) // 2, last // 2)
        into[whole] = tokens[whole.start - start : whole.stop - start]
        for half in (first, last):
            if half % 2:  # a base that two tiles share
                into[half // 2] += tokens[half // 2 - start] / 2
    assert into is not None
    return into
