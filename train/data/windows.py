"""Windows of one length over the blocks of a split, found by their number."""

from collections.abc import Sequence

import numpy as np

from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data.splits import Block, merged

_N = ord("N")


class Windows:
    """Windows of one length, in order of genome and block; those of N alone are left out.

    What is kept in memory are stretches of evenly spaced windows, not the windows: a human genome
    has millions of them.

    Args:
        stores: the genomes.
        blocks: stretches in which windows lie; none crosses a block's end.
        length: tokens of a window.
        stride: bases from one window's start to the next.
        inward: shift the last window of a block inward if it extends past the block's end;
            otherwise, and in blocks shorter than a window, N completes it.
        avoid: windows that touch these are left out.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        blocks: Sequence[Block],
        *,
        length: int,
        stride: int,
        inward: bool = False,
        avoid: Sequence[Block] = (),
    ):
        self.stores, self.length, self.stride = list(stores), length, stride
        unknown = [np.array(store.unknown).T.copy() for store in stores]
        avoided = [_offsets(store, i, avoid) for i, store in enumerate(stores)]
        tables = [np.empty((0, 4), np.int64)]
        for block in sorted(blocks, key=lambda block: block.genome):
            genome, offset = block.genome, stores[block.genome].contigs[block.contig].offset
            starts, ends = _tiles(block, length, stride, inward)
            starts, ends = starts + offset, ends + offset
            keep = ~_within(starts, ends, *unknown[genome])
            keep &= ~_touching(starts, ends, *avoided[genome])
            tables.append(_stretches(genome, starts[keep], (ends - starts)[keep], stride))
        # (stretches, 4): genome, offset of the first window, bases of a window, windows
        table = np.concatenate(tables)
        self._genome, self._offset, self._size, count = np.ascontiguousarray(table.T)
        self._first = np.concatenate([[0], np.cumsum(count)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def sequence_share(self) -> float:
        """Share of all tokens that are sequence; the rest completes windows."""
        counts = np.diff(self._first)
        return float((self._size * counts).sum() / max(len(self) * self.length, 1))

    def of_genome(self, genome: int) -> range:
        """Returns the numbers of a genome's windows."""
        first, last = np.searchsorted(self._genome, [genome, genome + 1])
        return range(int(self._first[first]), int(self._first[last]))

    def __getitem__(self, number: int) -> np.ndarray:
        """Returns (length,) uint8 letters of a window, padded with N where it is shorter."""
        stretch = np.searchsorted(self._first, number, side="right") - 1
        start = self._offset[stretch] + (number - self._first[stretch]) * self.stride
        size = self._size[stretch]
        found = self.stores[self._genome[stretch]].bases[start : start + size]
        if size == self.length:
            return found
        return np.concatenate([found, np.full(self.length - size, _N, np.uint8)])


def _tiles(block: Block, length: int, stride: int, inward: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the starts and ends of a block's windows."""
    # A start whose window would add nothing to the one before it is left out.
    last = max(block.end - block.start - length + stride, 1)
    starts = np.arange(block.start, block.start + last, stride)
    if inward:
        starts[-1] = max(block.start, min(starts[-1], block.end - length))
    return starts, np.minimum(starts + length, block.end)


def _within(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Tells whether each window lies within one of the runs, which are ascending and disjoint."""
    run = np.searchsorted(first, starts, side="right") - 1
    return (run >= 0) & (ends <= last[run]) if len(first) else np.zeros(len(starts), bool)


def _touching(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Tells whether each window shares a base with one of the runs."""
    run = np.searchsorted(first, ends, side="left") - 1
    return (run >= 0) & (starts < last[run]) if len(first) else np.zeros(len(starts), bool)


def _offsets(store: Store, genome: int, blocks: Sequence[Block]) -> np.ndarray:
    """Returns ascending starts and ends in the store of the blocks that lie in it, (2, runs)."""
    here = [block for block in merged(blocks) if block.genome == genome]
    shift = [store.contigs[block.contig].offset for block in here]
    runs = [(block.start + at, block.end + at) for block, at in zip(here, shift, strict=True)]
    return np.array(sorted(runs), np.int64).reshape(-1, 2).T.copy()


def _stretches(genome: int, starts: np.ndarray, sizes: np.ndarray, stride: int) -> np.ndarray:
    """Returns the rows of the table of `Windows`, (stretches, 4)."""
    breaks = (np.diff(starts) != stride) | (np.diff(sizes) != 0)
    first = np.flatnonzero(np.concatenate([[len(starts) > 0], breaks]))
    counts = np.diff(np.append(first, len(starts)))
    return np.stack([np.full(len(first), genome), starts[first], sizes[first], counts], axis=1)
