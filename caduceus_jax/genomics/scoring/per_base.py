"""Predictions at every base of regions, each masked in turn.

Bases that several regions share are computed once. The results lie in memory or, for whole contigs,
in a file without a name, and are handed out region by region. All positions are 0-based half-open.
"""

import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars
from jaxtyping import Float, Int

from caduceus_jax.genomics.files.alleles import BASE_NUMBERS
from caduceus_jax.genomics.files.output import OutputError
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome, TokenWindows
from caduceus_jax.genomics.reference.locate import centred, place
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.batches import Batch, Shapes, tokens_per_batch
from caduceus_jax.inference.blocks import Block, Counts, run_work
from caduceus_jax.inference.loading import Pretrained
from caduceus_jax.inference.masked import masked_batch, masked_inputs, masked_options

log = logging.getLogger(__name__)

# Bases that are worked on, or written, at a time.
_CHUNK = 1 << 15
_BATCHES_PER_BLOCK, _FEWEST_BLOCKS, _MOST_PASSES = 8, 32, 1 << 16


class BaseChunk(NamedTuple):
    """Bases of one region that follow one another.

    Attributes:
        chrom: name of the contig, as the region has it.
        contig: its number in the genome, -1 if unknown.
        start: position of the first base, 0-based.
        status: (bases,) of `Status` as text.
        base: (bases,) the genome's, an index in ACGT; -1 for N.
        log_probabilities: (bases, 4) natural logarithms; NaN unless the status is OK.
    """

    chrom: str
    contig: int
    start: int
    status: np.ndarray
    base: Int[np.ndarray, " bases"]
    log_probabilities: Float[np.ndarray, "bases 4"]


class MergedIntervals(NamedTuple):
    """The bases of all regions in the genome's order, each once."""

    contig: Int[np.ndarray, " intervals"]
    start: Int[np.ndarray, " intervals"]
    end: Int[np.ndarray, " intervals"]

    @property
    def offset(self) -> Int[np.ndarray, " intervals"]:
        """Counts the bases that lie before each."""
        return np.cumsum(self.end - self.start) - (self.end - self.start)

    @property
    def bases(self) -> int:
        """Returns their bases altogether."""
        return int((self.end - self.start).sum())


class PerBase:
    """The results at every base of regions.

    Attributes:
        regions: the regions in the order of the input.
        genome: the genome that they lie on.
        status: (regions,) of `Status`: OK, unknown_chrom or out_of_range.
        merged: their bases, each once.
        log_probabilities: (bases, 4) those of A, C, G and T in the order of `merged`, float32,
            natural; NaN where there are none.
    """

    def __init__(self, regions: Intervals, genome: Genome):
        self.regions, self.genome = regions, genome
        self._contig = genome.contigs(regions.chrom)
        lengths = np.where(self._contig >= 0, genome.lengths[self._contig], -1)
        self.status = place(regions.start, regions.end, lengths).status
        self._end = np.minimum(regions.end, lengths)
        self.merged = self._merged()
        self.log_probabilities = np.empty((0, 4), np.float32)
        if count := int(((self.status == Status.OK) & (regions.end > lengths)).sum()):
            log.info(f"{count:,} regions reach beyond the end of their contig, and end there")

    def _merged(self) -> MergedIntervals:
        rows = np.flatnonzero(self.status == Status.OK)
        rows = rows[np.lexsort((self.regions.start[rows], self._contig[rows]))]
        contig, end = self._contig[rows], self._end[rows]
        start = np.maximum(self.regions.start[rows], 0)
        # One contig after another, so that one running maximum serves all.
        shift = contig * (int(self.genome.lengths.max(initial=0)) + 1)
        reach = np.maximum.accumulate(end + shift)
        first = np.ones(len(rows), bool)
        first[1:] = (start + shift)[1:] > reach[:-1]
        last = np.roll(first, -1)
        return MergedIntervals(contig[first], start[first], (reach - shift)[last])

    def chunks(self) -> Iterator[BaseChunk]:
        """Yields the bases of every region, in the order of the regions and from left to right.

        A region that is not on the genome is one chunk of one base, its first, with its status.
        """
        key = self.merged.contig << 32 | self.merged.start
        offset = self.merged.offset
        nothing = np.full((1, 4), np.nan, np.float32)
        for row, (contig, chrom) in enumerate(zip(self._contig, self.regions.chrom, strict=True)):
            contig, start, end = int(contig), int(self.regions.start[row]), int(self._end[row])
            if self.status[row] != Status.OK:
                yield BaseChunk(chrom, contig, start, self.status[[row]], np.array([-1]), nothing)
                continue
            start = max(start, 0)
            interval = int(np.searchsorted(key, contig << 32 | start, side="right")) - 1
            shift = int(offset[interval] - self.merged.start[interval])
            for first in range(start, end, _CHUNK):
                yield self._chunk(chrom, contig, first, min(first + _CHUNK, end), shift)

    def merged_chunks(self) -> Iterator[BaseChunk]:
        """Yields every base once, in the order of the genome, under the genome's own names."""
        for contig, start, end, offset in zip(*self.merged, self.merged.offset, strict=True):
            for first in range(int(start), int(end), _CHUNK):
                last, name = min(first + _CHUNK, int(end)), self.genome.names[int(contig)]
                yield self._chunk(name, int(contig), first, last, int(offset - start))

    def tables(
        self, schema: dict[str, Any], table: Callable[[BaseChunk, bool], dict[str, Any]]
    ) -> Iterator[polars.DataFrame]:
        """Yields tables of a chunk each, in the order of `chunks`; first one without rows.

        Args:
            schema: name and type of each column; NaN is null.
            table: the columns of a chunk; and whether it lies on the genome.
        """
        yield polars.DataFrame(schema=schema)
        numbers = [name for name, dtype in schema.items() if dtype == polars.Float32]
        for chunk in self.chunks():
            known = chunk.contig >= 0 and 0 <= chunk.start < self.genome.lengths[chunk.contig]
            frame = polars.DataFrame(table(chunk, bool(known)), schema=schema)
            yield frame.with_columns(polars.col(numbers).fill_nan(None))

    def _chunk(self, chrom: str, contig: int, start: int, end: int, shift: int) -> BaseChunk:
        base = _bases(self.genome, contig, start, end)
        values = np.asarray(self.log_probabilities[start + shift : end + shift])
        status = np.full(end - start, Status.OK, self.status.dtype)
        status[np.isnan(values[:, 0])] = Status.CROSSES_EDGE
        status[base < 0] = Status.AMBIGUOUS
        return BaseChunk(chrom, contig, start, status, base, values)


def per_base(
    m: Pretrained,
    genome: Genome,
    regions: Intervals,
    options: Masking,
    *,
    folder: pathlib.Path | None = None,
    **run: Any,
) -> PerBase:
    """Masks every base of regions in turn, and keeps what the model predicts there.

    Args:
        m: a masked language model with its tokenizer.
        genome: the genome that the regions lie on.
        regions: the regions; they may overlap.
        options: the verb's options.
        folder: keep the results in a file without a name there, 16 bytes per base, and not in
            memory.
        **run: the keyword arguments of `run_work`.

    Raises:
        UserError: a model without a language-model head, or a context that reaches beyond its
            contig where edge is "error".
    """
    results = PerBase(regions, genome)
    work = PerBaseWork(results, m, options)
    values = results.log_probabilities = _room(results.merged.bases, folder)
    parts: Iterable[Any] = run_work(m.model, work, what="scoring", unit="bases", **run)
    for part in parts:
        values[part.rows.start : part.rows.stop] = part.frame
    if work.padded:
        log.info(
            f"the contexts of {work.padded:,} bases extend past the end of a contig and are padded "
            "with N"
        )
    return results


class PerBaseWork:
    """The bases that are masked, in blocks that depend on the regions and the options alone.

    Args:
        results: the regions.
        m: a masked language model with its tokenizer.
        options: the verb's options.

    Attributes:
        forward: the forward pass.
        static: its keyword arguments.
        parts: numbers of each block's bases among the merged ones.
        masks_per_pass: bases masked in one pass.
        weights: known bases of each block, counted when they are asked for.
        padded: bases so far whose context reaches beyond their contig.
    """

    def __init__(self, results: PerBase, m: Pretrained, options: Masking):
        self._genome, self._tokenizer, self._options = results.genome, m.tokenizer, options
        self.forward: Callable[..., Any] = masked_batch
        model: Any = m.model
        self.padded, self.masks_per_pass = 0, options.masks_per_pass
        merged, length = results.merged, options.context
        all_passes = -(-merged.bases // options.masks_per_pass)
        self.static: dict[str, Any] = masked_options(
            model, m.tokenizer, options.rc_mode, passes=all_passes
        )
        # Found out before the work; nothing but the two ends can reach out.
        for end in (merged.start, merged.end - 1):
            place(
                *centred(end, length),
                self._genome.lengths[merged.contig],
                edge=options.edge,
                describe=lambda i: _named(results, i),
            )
        batch = tokens_per_batch(length, options.batch_size) // length * options.masks_per_pass
        target = max(merged.bases // _FEWEST_BLOCKS, _BATCHES_PER_BLOCK * batch)
        self._pieces = list(_blocks(merged, min(target, _CHUNK), options))
        self.parts = [range(group[0].offset, group[-1].end_offset) for group in self._pieces]
        # N takes no pass: shards of equal work differ in bases.
        self.weights = Counts(self._known, len(self.parts))
        # Their number matters while it is below a batch's.
        passes = min(all_passes, max(batch, _MOST_PASSES))
        self._shapes = Shapes(np.full(max(passes, 1), length), options.batch_size)

    def blocks(self, numbers: range) -> Iterator[Block[np.ndarray]]:
        """Yields the blocks of these numbers; the result of each is (bases, 4)."""
        for number in numbers:
            yield self._block(number)

    def passes(self, number: int) -> int:
        """Counts the forward passes of a block, at most."""
        some = _passes(self._genome, self._pieces[number], self._options.masks_per_pass)
        return len(some.centre)

    def _known(self, number: int) -> int:
        pieces = self._pieces[number]
        found = (_bases(self._genome, piece.contig, piece.start, piece.end) for piece in pieces)
        return sum(int(np.count_nonzero(base >= 0)) for base in found)

    def _block(self, number: int) -> Block[np.ndarray]:
        options, part = self._options, self.parts[number]
        passes = _passes(self._genome, self._pieces[number], options.masks_per_pass)
        windows = place(
            *centred(passes.centre, options.context),
            self._genome.lengths[passes.contig],
            edge="pad" if options.edge == "error" else options.edge,
        )
        kept = np.flatnonzero(windows.status == Status.OK)
        masks = passes.index >= 0
        positions = np.where(masks, passes.position - windows.start[:, None], -1)[kept]
        self.padded += int(masks[(windows.padding > 0) & (windows.status == Status.OK)].sum())
        tokens = TokenWindows(
            self._genome,
            self._tokenizer,
            passes.contig[kept],
            windows.start[kept],
            options.context,
        )
        index = passes.index[kept]
        item = (options.masks_per_pass, 4)

        def finish(found: list[tuple[Batch, np.ndarray]]) -> np.ndarray:
            """Puts results where their bases are; NaN for bases without one."""
            values = np.full((len(part), 4), np.nan, np.float32)
            for batch, results in found:
                where = index[batch.rows]
                values[where[where >= 0]] = results[where >= 0]
            return values

        batches = self._shapes.plan(np.full(len(kept), options.context))
        inputs = masked_inputs(tokens, positions)
        return Block(len(part), batches, inputs, lambda batch: item, finish)


class _Piece(NamedTuple):
    """Bases of one merged interval that are masked in passes of their own."""

    contig: int
    start: int
    end: int
    offset: int  # number of the first base among the merged ones
    spacing: int  # bases between masks of one pass

    @property
    def end_offset(self) -> int:
        """The place after this piece's last base, among all bases."""
        return self.offset + self.end - self.start


def _blocks(merged: MergedIntervals, target: int, options: Masking) -> Iterator[list[_Piece]]:
    """Returns pieces of about `target` bases together."""
    masks, length = options.masks_per_pass, options.context
    waiting, bases = [], 0
    for contig, start, end, offset in zip(*merged, merged.offset, strict=True):
        contig, start, end, offset = int(contig), int(start), int(end), int(offset)
        # Groups of `spacing` passes, each with a mask every `spacing` bases.
        widest = max(length // (2 * masks), 1) * masks
        groups = -(-(end - start) // widest)
        spacing = -(-(end - start) // (groups * masks))
        step = max(target // (spacing * masks), 1) * spacing * masks
        for first in range(start, end, step):
            last = min(first + step, end)
            waiting.append(_Piece(contig, first, last, offset + first - start, spacing))
            bases += last - first
            if bases >= target:
                yield waiting
                waiting, bases = [], 0
    if waiting:
        yield waiting


class _Passes(NamedTuple):
    """Forward passes, one per row, and the bases they mask."""

    contig: Int[np.ndarray, " passes"]
    centre: Int[np.ndarray, " passes"]  # of the window
    position: Int[np.ndarray, "passes masks"]
    index: Int[np.ndarray, "passes masks"]  # of the base in its block; -1 for no base


def _passes(genome: Genome, pieces: list[_Piece], masks: int) -> _Passes:
    """Passes over all bases of a block but N."""
    found = [_passes_of(genome, piece, masks, pieces[0].offset) for piece in pieces]
    return _Passes(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _passes_of(genome: Genome, piece: _Piece, masks: int, block: int) -> _Passes:
    length, spacing = piece.end - piece.start, piece.spacing
    groups = np.arange(0, length, spacing * masks)
    first = (groups[:, None] + np.arange(spacing)).reshape(-1)
    index = first[:, None] + np.arange(masks) * spacing
    known = np.zeros(len(groups) * spacing * masks, bool)
    known[:length] = _bases(genome, piece.contig, piece.start, piece.end) >= 0
    index[~known[index]] = -1
    some = (index >= 0).any(axis=1)
    index, centre = index[some], first[some] + piece.start + (masks - 1) * spacing // 2
    position = index + piece.start
    numbered = np.where(index >= 0, index + piece.offset - block, -1)
    return _Passes(np.full(len(index), piece.contig), centre, position, numbered)


def entropy(log_probabilities: Float[np.ndarray, "*bases 4"]) -> Float[np.ndarray, "*bases"]:
    """Computes the entropy in bits of the four bases, made to sum to 1; NaN for NaN.

    Args:
        log_probabilities: (..., 4) natural logarithms, up to a constant.
    """
    exact = log_probabilities.astype(np.float64)
    exact = exact - exact.max(axis=-1, keepdims=True)
    normal = exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    # p log p is 0 where p is 0.
    terms = np.exp(normal) * np.where(np.isneginf(normal), 0.0, normal)
    return (np.maximum(-terms.sum(axis=-1), 0.0) / np.log(2)).astype(np.float32)


def information(log_probabilities: Float[np.ndarray, "*bases 4"]) -> Float[np.ndarray, "*bases"]:
    """Computes what is known of the base, in bits: 2 less the entropy.

    Args:
        log_probabilities: (..., 4) natural logarithms, up to a constant.
    """
    return np.maximum(2 - entropy(log_probabilities), 0.0)


def _bases(genome: Genome, contig: int, start: int, end: int) -> np.ndarray:
    return BASE_NUMBERS[genome.bases(contig, start, end)]


def _room(bases: int, folder: pathlib.Path | None) -> np.ndarray:
    """Makes room for results: (bases, 4) float32 of NaN."""
    if folder is None or not bases:
        return np.full((bases, 4), np.nan, np.float32)
    nothing = np.full((min(bases, _CHUNK), 4), np.nan, np.float32)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            # Written, not left sparse: a disk that is full is found out here.
            for first in range(0, bases, _CHUNK):
                left = memoryview(nothing[: bases - first].tobytes())
                while left:
                    left = left[file.write(left) :]
            return np.memmap(file, np.float32, "r+", shape=(bases, 4))
    except OSError as error:
        raise OutputError(
            f"the results, 16 bytes per base, cannot be kept in {folder}: {error.strerror}"
        ) from None


def _named(results: PerBase, number: int) -> str:
    contig, start, end = (int(column[number]) for column in results.merged)
    return f"{results.genome.names[contig]}:{start + 1:,}-{end:,}"
