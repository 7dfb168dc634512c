"""Tracks that a fine-tuned model predicts over regions and sequences, bin by bin."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars
from jaxtyping import Float, Int

from caduceus_jax.genomics.files.bigwig import Bins
from caduceus_jax.genomics.finetuned.outputs import Outputs, forward
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnySequences, as_genome, as_sequences
from caduceus_jax.genomics.reference.sequences import Sequences, around_regions
from caduceus_jax.genomics.status import STATUS_DTYPE, Status
from caduceus_jax.inference import blocks
from caduceus_jax.inference.batches import Batch, Inputs, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block
from caduceus_jax.inference.loading import Pretrained

_BATCHES_PER_BLOCK = 8
_MOST_TOKENS = 1 << 22


class TrackWindows(NamedTuple):
    """The windows that a model of tracks reads; positions are 0-based half-open.

    Attributes:
        row: number of the region or sequence that each is for, ascending.
        kept: (windows, 2) first base, and the one after the last, that each gives values of.
        sequences: the bases of each window.
        start: (windows,) first base of each.
        reverse: (windows,) whether the - strand is read.
    """

    row: Int[np.ndarray, " windows"]
    kept: Int[np.ndarray, "windows 2"]
    sequences: Sequences
    start: Int[np.ndarray, " windows"]
    reverse: np.ndarray


class TrackPlaces(NamedTuple):
    """Regions or sequences over which tracks are predicted.

    Attributes:
        what: the name of the rows, for example "regions".
        name: name of each row.
        chrom: contig of each row; None of sequences.
        start: (rows,) first base of each, 0-based; 0 of sequences.
        end: (rows,) the base after the last one.
        status: (rows,) `Status` of each, as text.
        windows: the windows that are read.
    """

    what: str
    name: list[str]
    chrom: list[str] | None
    start: Int[np.ndarray, " rows"]
    end: Int[np.ndarray, " rows"]
    status: np.ndarray
    windows: TrackWindows


def track_places(
    sequences: AnySequences,
    genome: AnyGenome | None,
    outputs: Outputs,
    options: Prediction,
    *,
    column: str = "sequence",
) -> TrackPlaces:
    """Reads what tracks are predicted over, and divides it into windows.

    A region is read as it is, completed to whole bins at its end, or in a window of
    `context_length` around its middle. One that is longer than a window, or than the model was
    trained on, is read in windows that overlap by half, and each bin is taken from the window in
    whose middle it lies nearest.

    Args:
        sequences: sequences, regions or variants in any accepted form.
        genome: the genome that regions and records lie on.
        outputs: the model's outputs.
        options: the verb's options.
        column: column of a table that has the sequences.

    Raises:
        UserError: an input cannot be read, or the context is not made of whole bins.
    """
    context = options.context_length
    if context is not None:
        outputs.check_context(context)
    read, _ = as_sequences(
        sequences,
        genome,
        context_length=context,
        edge="pad",
        max_length=None,
        oriented=True,
        column=column,
    )
    frame, names = read.frame, read.frame.columns
    if "window_start" not in names:
        name = frame["name"].to_list() if "name" in names else [str(i) for i in range(len(frame))]
        start, end = np.zeros(len(frame), np.int64), read.lengths
        tiles = _tiles((start, end), (start, end), read.status, outputs, options)
        status = np.full(len(tiles.row), Status.OK, STATUS_DTYPE)

        def bases(row: int) -> bytes:
            """Returns the bases of a window, completed with N."""
            first, length = int(tiles.start[row]), int(tiles.length[row])
            text = read.read(int(tiles.row[row]))[max(first, 0) : first + length]
            return (b"N" * max(-first, 0) + text).ljust(length, b"N")

        windows = Sequences(read.what, polars.DataFrame(), status, tiles.length, bases)
        forwards = np.zeros(len(tiles.row), bool)
        there = TrackWindows(tiles.row, tiles.kept, windows, tiles.start, forwards)
        return TrackPlaces(read.what, name, None, start, end, read.status, there)
    which = ("start", "end") if "start" in names else ("window_start", "window_end")
    start, end = (frame[of].to_numpy() for of in which)
    chrom = frame["chrom"].to_list()
    strand = frame["strand"].to_list() if "strand" in names else None
    reference = as_genome(genome)  # pyright: ignore[reportArgumentType]
    contig = reference.contigs(chrom)
    length = np.where(contig >= 0, reference.lengths[contig], 0)
    inside = np.maximum(start, 0), np.minimum(end, length)
    tiles = _tiles((start, end), inside, read.status, outputs, options)
    windows, status = _on_genome(tiles, chrom, strand, read.status, reference, options)
    name = frame["name"].to_list()
    return TrackPlaces(read.what, name, chrom, start, end, status, windows)


class TrackWork:
    """Predicts tracks over windows, with the same result whatever part of it is asked for.

    Args:
        m: a model of tracks with its tokenizer.
        places: the regions or sequences.
        outputs: the model's outputs.
        batch_size: windows in a forward pass; None for as many as fit the device.

    Attributes:
        forward: the forward pass.
        static: keyword arguments of the forward pass.
        parts: the rows of each block.
        weights: tokens of each block.
    """

    def __init__(
        self, m: Pretrained, places: TrackPlaces, outputs: Outputs, batch_size: int | None
    ):
        self._places, self._outputs, self._tokenizer = places, outputs, m.tokenizer
        self.forward: Callable[..., Any] = forward
        self.static: dict[str, Any] = {}
        lengths = places.windows.sequences.lengths
        self._first = np.searchsorted(places.windows.row, np.arange(len(places.name) + 1))
        work = np.diff(np.concatenate([[0], np.cumsum(lengths)])[self._first])
        self._shapes = Shapes(lengths[lengths > 0], batch_size)
        # A pass is compiled once, with a mask or without.
        self._padded = self._shapes.padded or bool((lengths % outputs.task.bin_size).any())
        batch = tokens_per_batch(int(lengths.max(initial=1)), batch_size)
        self.parts = blocks.cut(work, _BATCHES_PER_BLOCK * batch, _MOST_TOKENS)
        self.weights = [int(work[part.start : part.stop].sum()) for part in self.parts]

    def blocks(self, numbers: range) -> Iterator[Block[polars.DataFrame]]:
        """Yields the blocks of these numbers."""
        for number in numbers:
            yield self._block(self.parts[number])

    def empty(self) -> polars.DataFrame:
        """Returns a table of no rows, with all columns."""
        return self._frame(range(0), [], {})

    def _block(self, part: range) -> Block[polars.DataFrame]:
        lengths = self._places.windows.sequences.lengths
        windows = np.arange(self._first[part.start], self._first[part.stop])
        rows = windows[lengths[windows] > 0]

        def finish(found: list[tuple[Batch, np.ndarray]]) -> polars.DataFrame:
            """Makes the table of a part from the outputs of its windows."""
            values = {
                int(rows[number]): result
                for batch, results in found
                for number, result in zip(batch.rows.tolist(), results, strict=True)
            }
            return self._frame(part, windows.tolist(), values)

        batches = self._shapes.plan(lengths[rows])

        def shape(batch: Batch) -> tuple[int, ...]:
            """Returns the shape of what a window of a batch gives."""
            return self._outputs.shape(self._width(batch))

        return Block(len(part), batches, self._inputs(rows), shape, finish)

    def _width(self, batch: Batch) -> int:
        """Returns the tokens that are run of each window: whole bins."""
        size = self._outputs.task.bin_size
        return -(-batch.length // size) * size

    def _inputs(self, rows: np.ndarray) -> Inputs:
        sequences, tokenizer = self._places.windows.sequences, self._tokenizer

        def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
            """Makes ids and padding mask of a batch."""
            width = self._width(batch)
            ids = np.full((len(batch.rows), width), tokenizer.pad_id, np.int32)
            chosen = rows[batch.rows]
            for i, row in enumerate(chosen.tolist()):
                tokens = tokenizer.encode(sequences.read(row))
                ids[i, : len(tokens)] = tokens
            lengths = sequences.lengths[chosen]
            if not self._padded:
                return ids, None
            return ids, np.arange(width) < lengths[:, None]

        return inputs

    def _frame(
        self, part: range, windows: list[int], values: dict[int, np.ndarray]
    ) -> polars.DataFrame:
        """Returns one row per bin, and one per row without a value."""
        places, names = self._places, self._outputs.names
        row, start, end, value = [np.empty(0, np.int64)], [], [], [np.empty((0, len(names)))]
        without = set(part) - {int(places.windows.row[w]) for w in values}
        for number in windows:
            if number in values:
                first, last, found = self._bins(number, values[number])
                row.append(np.full(len(first), places.windows.row[number]))
                start.append(first)
                end.append(last)
                value.append(found)
        for number in sorted(without):
            row.append(np.array([number]))
            start.append(places.start[[number]])
            end.append(places.end[[number]])
            value.append(np.full((1, len(names)), np.nan))
        rows = np.concatenate(row)
        order = np.argsort(rows, kind="stable")
        rows, values_of = rows[order], np.concatenate(value)[order]
        nothing = np.empty(0, np.int64)
        texts = {"name": places.name} | ({"chrom": places.chrom} if places.chrom else {})
        columns: dict[str, Any] = {
            name: polars.Series([text[i] for i in rows.tolist()], dtype=polars.String)
            for name, text in texts.items()
        }
        columns["start"] = polars.Series(np.concatenate([nothing, *start])[order])
        columns["end"] = polars.Series(np.concatenate([nothing, *end])[order])
        status = places.status[rows].tolist()
        columns["status"] = polars.Series(status, dtype=polars.String)
        for i, name in enumerate(names):
            numbers = values_of[:, i].astype(np.float32)
            columns[f"predicted_{name}"] = polars.Series(numbers).fill_nan(None)
        return polars.DataFrame(columns)

    def _bins(
        self, number: int, values: Float[np.ndarray, "bins tracks"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns start, end and values of the bins that a window gives, from left to right."""
        windows, size = self._places.windows, self._outputs.task.bin_size
        bins = int(windows.sequences.lengths[number]) // size
        values = self._outputs.values(values[:bins].astype(np.float32))
        if windows.reverse[number]:
            values = values[::-1]
        edge = int(windows.start[number]) + np.arange(bins + 1) * size
        first, last = windows.kept[number].tolist()
        start, end = np.maximum(edge[:-1], first), np.minimum(edge[1:], last)
        some = start < end
        return start[some], end[some], values[some]


def track_bins(frame: polars.DataFrame, genome: Genome, column: str) -> Iterator[Bins]:
    """Yields the bins of a bigWig file, contig by contig, in the order of the genome.

    A base that several bins lie over, because regions overlap, has the mean of their values.

    Args:
        frame: the table of a `TrackWork`.
        genome: the genome that the regions lie on.
        column: the track.
    """
    known = frame.drop_nulls(column).select("chrom", "start", "end", value=column)
    known = known.with_columns(contig=polars.Series(genome.contigs(known["chrom"])))
    for (contig,), some in sorted(known.partition_by("contig", as_dict=True).items()):
        start, end, value = (some[name].to_numpy() for name in ("start", "end", "value"))
        yield genome.names[int(contig)], *_means(start, end, value.astype(np.float64))


def _means(
    start: np.ndarray, end: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns start, end and value of stretches over which the mean of bins is the same."""
    order = np.argsort(start, kind="stable")
    start, end, value = start[order], end[order], value[order]
    if (start[1:] >= end[:-1]).all():
        return start, end, value
    edges = np.unique(np.concatenate([start, end]))
    first, last = np.searchsorted(edges, start), np.searchsorted(edges, end)
    # Each bin is repeated for the stretches that it covers.
    counts = last - first
    which = np.repeat(np.arange(len(start)), counts)
    stretch = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    covered = np.bincount(stretch, minlength=len(edges) - 1)
    total = np.bincount(stretch, weights=value[which], minlength=len(edges) - 1)
    some = covered > 0
    return edges[:-1][some], edges[1:][some], total[some] / covered[some]


class _Tiles(NamedTuple):
    row: Int[np.ndarray, " tiles"]
    start: Int[np.ndarray, " tiles"]
    length: Int[np.ndarray, " tiles"]
    kept: Int[np.ndarray, "tiles 2"]


def _tiles(
    span: tuple[np.ndarray, np.ndarray],
    inside: tuple[np.ndarray, np.ndarray],
    status: np.ndarray,
    outputs: Outputs,
    options: Prediction,
) -> _Tiles:
    """Divides stretches into windows; what lies inside the contig is given."""
    size = outputs.task.bin_size
    most = options.context_length or outputs.task.max_length or options.max_length
    most = max(most - most % size, size)
    found: list[tuple[int, ...]] = []
    start, end = inside
    for row in np.flatnonzero((status == Status.OK) & (start < end)).tolist():
        first, last = int(start[row]), int(end[row])
        bases, whole = last - first, int(span[1][row] - span[0][row])
        if whole <= most and options.context_length is not None:
            middle = int(span[0][row] + span[1][row]) // 2
            found.append((row, middle - most // 2, most, first, last))
        elif bases <= most:
            found.append((row, first, -(-bases // size) * size, first, last))
        else:
            found += [(row, *tile) for tile in _overlapping(first, last, most, size)]
    columns = np.array(found, np.int64).reshape(-1, 5)
    return _Tiles(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3:])


def _overlapping(first: int, last: int, length: int, size: int) -> Iterable[tuple[int, ...]]:
    """Yields start, length and what is kept of windows that overlap by half."""
    step = max(length // 2 // size * size, size)
    end = first + -(-(last - first - length) // size) * size
    starts = [*range(first, end, step), end]
    middles = [(a + b) // 2 + length // 2 for a, b in zip(starts, starts[1:], strict=False)]
    cuts = [first, *(first + (middle - first) // size * size for middle in middles), last]
    for i, start in enumerate(starts):
        yield start, length, cuts[i], cuts[i + 1]


def _on_genome(
    tiles: _Tiles,
    chrom: list[str],
    strand: list[str] | None,
    status: np.ndarray,
    genome: Genome,
    options: Prediction,
) -> tuple[TrackWindows, np.ndarray]:
    """Returns the windows on a genome, and the status of each row with them."""
    rows = tiles.row.tolist()
    strands = None if strand is None else [strand[row] for row in rows]
    places = Intervals(
        [chrom[row] for row in rows],
        tiles.start,
        tiles.start + tiles.length,
        ["" for _ in rows],
        np.zeros(len(rows), np.int64),
        strands,
    )
    read = around_regions(places, genome, edge=options.edge, oriented=True)
    status = status.astype(STATUS_DTYPE)
    for row in tiles.row[read.status != Status.OK].tolist():
        status[row] = Status.CROSSES_EDGE
    reverse = np.array([s == "-" for s in strands or [""] * len(rows)], bool)
    # A row of which one window is missing has no values.
    kept = status[tiles.row] == Status.OK
    lengths = np.where(kept, read.lengths, 0)
    sequences = Sequences(read.what, read.frame, read.status, lengths, read.read)
    start = read.frame["window_start"].to_numpy()
    return TrackWindows(tiles.row, tiles.kept, sequences, start, reverse), status
