"""What a model expects at every base of regions, each of them masked in turn.

Bases that several regions share are computed once. The results lie in memory or, for whole contigs,
in a file without a name, and are handed out region by region. All positions are 0-based half-open.
"""

import logging
import pathlib
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from caduceus_jax import inference
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome, TokenWindows
from caduceus_jax.genomics.reference.windows import Edge, centred, place
from caduceus_jax.genomics.status import Status
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

BASES = "ACGT"
# Bases that are worked on, or written, at a time.
_PIECE = 1 << 15
_INDEX = np.full(256, -1, np.int64)
_INDEX[list(BASES.encode())] = range(4)


class Piece(NamedTuple):
    """Bases of one region that follow one another."""

    chrom: str  # as the region has it
    contig: int  # number in the genome, -1 if unknown
    start: int  # of the first base
    status: np.ndarray  # (bases,) of `Status` as text
    base: Int[np.ndarray, " bases"]  # the genome's, an index in ACGT; -1 for N
    log_probabilities: Float[np.ndarray, "bases 4"]  # natural; NaN unless the status is OK


class Stretches(NamedTuple):
    """The bases of all regions in the genome's order, each once."""

    contig: Int[np.ndarray, " stretches"]
    start: Int[np.ndarray, " stretches"]
    end: Int[np.ndarray, " stretches"]

    @property
    def offset(self) -> Int[np.ndarray, " stretches"]:
        """How many bases lie before each."""
        return np.cumsum(self.end - self.start) - (self.end - self.start)

    @property
    def bases(self) -> int:
        """Their bases altogether."""
        return int((self.end - self.start).sum())


class EveryBase:
    """The results at every base of regions.

    Attributes:
        regions: as they were given.
        genome: where they lie.
        status: (regions,) of `Status`: OK, unknown_chrom or out_of_range.
        stretches: their bases, each once.
        log_probabilities: (bases, 4) those of A, C, G and T in the order of `stretches`, float32,
            natural; NaN where there are none.
    """

    def __init__(self, regions: Intervals, genome: Genome):
        self.regions, self.genome = regions, genome
        self._contig = genome.contigs(regions.chrom)
        lengths = np.where(self._contig >= 0, genome.lengths[self._contig], -1)
        self.status = place(regions.start, regions.end, lengths).status
        self._end = np.minimum(regions.end, lengths)
        self.stretches = self._merged()
        self.log_probabilities = np.empty((0, 4), np.float32)
        if count := int(((self.status == Status.OK) & (regions.end > lengths)).sum()):
            log.info(
                f"{count:,} regions reach beyond the end of their contig: there is nothing there"
            )

    def _merged(self) -> Stretches:
        rows = np.flatnonzero(self.status == Status.OK)
        rows = rows[np.lexsort((self.regions.start[rows], self._contig[rows]))]
        contig, start, end = self._contig[rows], self.regions.start[rows], self._end[rows]
        # A contig after another, so that one running maximum serves all.
        shift = contig * (int(self.genome.lengths.max(initial=0)) + 1)
        reach = np.maximum.accumulate(end + shift)
        first = np.ones(len(rows), bool)
        first[1:] = (start + shift)[1:] > reach[:-1]
        last = np.roll(first, -1)
        return Stretches(contig[first], start[first], (reach - shift)[last])

    def pieces(self) -> Iterator[Piece]:
        """The bases of every region, in the order of the regions and from left to right.

        A region that is not on the genome is one piece of one base, its first, with its status.
        """
        key = self.stretches.contig << 32 | self.stretches.start
        offset = self.stretches.offset
        nothing = np.full((1, 4), np.nan, np.float32)
        for row, (contig, chrom) in enumerate(zip(self._contig, self.regions.chrom, strict=True)):
            contig, start, end = int(contig), int(self.regions.start[row]), int(self._end[row])
            if self.status[row] != Status.OK:
                yield Piece(chrom, contig, start, self.status[[row]], np.array([-1]), nothing)
                continue
            stretch = int(np.searchsorted(key, contig << 32 | start, side="right")) - 1
            shift = int(offset[stretch] - self.stretches.start[stretch])
            for first in range(start, end, _PIECE):
                last = min(first + _PIECE, end)
                yield self._piece(chrom, contig, first, last, shift)

    def stretch_pieces(self) -> Iterator[Piece]:
        """Every base once, in the order of the genome, under the genome's own names."""
        for contig, start, end, offset in zip(*self.stretches, self.stretches.offset, strict=True):
            for first in range(int(start), int(end), _PIECE):
                last, name = min(first + _PIECE, int(end)), self.genome.names[int(contig)]
                yield self._piece(name, int(contig), first, last, int(offset - start))

    def _piece(self, chrom: str, contig: int, start: int, end: int, shift: int) -> Piece:
        base = _bases(self.genome, contig, start, end)
        values = np.asarray(self.log_probabilities[start + shift : end + shift])
        status = np.full(end - start, Status.OK, self.status.dtype)
        status[np.isnan(values[:, 0])] = Status.CROSSES_EDGE
        status[base < 0] = Status.AMBIGUOUS
        return Piece(chrom, contig, start, status, base, values)


def run(
    model: CaduceusForMaskedLM,
    genome: Genome,
    regions: Intervals,
    *,
    tokenizer: Tokenizer | None = None,
    context_length: int = 1023,
    edge: Edge = "pad",
    together: int = 1,
    batch_size: int | None = None,
    show_progress: bool = False,
    folder: pathlib.Path | None = None,
) -> EveryBase:
    """Masks each base of regions and asks the model for it, on both strands.

    Args:
        model: a masked language model.
        genome: where the regions lie.
        regions: for example from `regions.read_regions`; they may overlap.
        tokenizer: of the model; the original's by default.
        context_length: bases the model sees, the masked one at 0-based index context_length // 2.
        edge: what becomes of a base whose context reaches beyond its contig; see `windows.place`.
        together: bases that one pass masks. More than one are spread over the middle half of a
            window of `context_length` bases: that many times faster, and not the same, because a
            base sees others masked and is not in the very middle.
        batch_size: windows in a forward pass; chosen for the device by default.
        show_progress: say on standard error how far it is.
        folder: keep the results in a file without a name there, 16 bytes a base, and not in memory.

    Raises:
        UserError: an option is out of range, or a context reaches beyond its contig where `edge`
            is "error".
    """
    if context_length < 1:
        raise UserError(f"context_length is {context_length}; it must be at least 1")
    if together < 1:
        raise UserError(f"together is {together}; it must be at least 1")
    if together > 1 and context_length < 2 * together:
        raise UserError(
            f"together is {together} and context_length {context_length}: masked bases need at "
            "least twice as much context as they are"
        )
    tokenizer = tokenizer or Tokenizer()
    results = EveryBase(regions, genome)
    stretches = results.stretches
    lengths = genome.lengths[stretches.contig]
    # Found out before the work; nothing but the two ends can reach out.
    for end in (stretches.start, stretches.end - 1):
        place(*centred(end, context_length), lengths, edge=edge, describe=_describe(results))
    values = results.log_probabilities = _room(stretches.bases, folder)

    def work() -> Iterator[None]:
        padded = 0
        for passes in _passes(genome, stretches, together, context_length):
            contig = passes.contig
            windows = place(
                *centred(passes.centre, context_length),
                genome.lengths[contig],
                edge="pad" if edge == "error" else edge,
            )
            kept = np.flatnonzero(windows.status == Status.OK)
            masks = passes.index >= 0
            positions = np.where(masks, passes.position - windows.start[:, None], -1)
            padded += int(masks[(windows.padding > 0) & (windows.status == Status.OK)].sum())
            for row, found in inference.iterate_masked_log_probabilities(
                model,
                TokenWindows(genome, tokenizer, contig[kept], windows.start[kept], context_length),
                positions[kept],
                tokenizer=tokenizer,
                batch_size=batch_size,
            ):
                index = passes.index[kept[row]]
                values[index[index >= 0]] = found[index >= 0]
                yield from (None for _ in range(int((index >= 0).sum())))
            yield from (None for _ in range(passes.bases - int(masks[kept].sum())))
        if padded:
            log.info(f"{padded:,} bases are near the end of a contig: N stands for what is beyond")

    done = work()
    if show_progress:
        done = track(done, total=stretches.bases, what="scoring", unit="bases")
    for _ in done:
        pass
    return results


def finish(results: EveryBase, out: list[pathlib.Path], skip_bad: bool) -> None:
    """Says what became of regions and bases, and where they are.

    Raises:
        UserError: regions are not on the genome; everything is written all the same.
    """
    status, counts = results.status, {Status.AMBIGUOUS: 0, Status.CROSSES_EDGE: 0}
    for piece in results.stretch_pieces():
        for kind in counts:
            counts[kind] += int((piece.status == kind).sum())
    regions = [(int((status == kind).sum()), kind) for kind in Status]
    of_regions = ", ".join(f"{count:,} {kind}" for count, kind in regions if count) or "none"
    of_bases = "".join(f", {count:,} of them {kind}" for kind, count in counts.items() if count)
    files = ", ".join(map(str, out))
    log.info(
        f"regions: {of_regions}; {results.stretches.bases:,} bases{of_bases}; written to {files}"
    )
    lost = np.flatnonzero(status != Status.OK)
    if len(lost) and not skip_bad:
        raise UserError(
            f"{len(lost):,} of {len(status):,} regions are not on {results.genome.path}, first "
            f"{results.regions.name[lost[0]]}: {files} is written without them; --skip-bad accepts "
            "that"
        )


def entropy(log_probabilities: Float[np.ndarray, "*bases 4"]) -> Float[np.ndarray, "*bases"]:
    """Entropy in bits of the four bases, whose probabilities are made to sum to 1; NaN for NaN.

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
    """What is known of the base, in bits: 2 less the entropy."""
    return np.maximum(2 - entropy(log_probabilities), 0.0)


class _Passes(NamedTuple):
    """Forward passes, one a row, and the bases they mask."""

    contig: Int[np.ndarray, " passes"]
    centre: Int[np.ndarray, " passes"]  # of the window
    position: Int[np.ndarray, "passes masks"]
    index: Int[np.ndarray, "passes masks"]  # where the results go; -1 for no base
    bases: int  # all that they stand for, N included


def _passes(
    genome: Genome, stretches: Stretches, together: int, context_length: int
) -> Iterator[_Passes]:
    """Passes over all bases but N, of some ten thousand bases at a time."""
    waiting, bases = [], 0
    for contig, start, end, offset in zip(*stretches, stretches.offset, strict=True):
        contig, start, end, offset = int(contig), int(start), int(end), int(offset)
        # Blocks of `spacing` passes, each with a mask every `spacing` bases.
        widest = max(context_length // (2 * together), 1) * together
        blocks = -(-(end - start) // widest)
        spacing = -(-(end - start) // (blocks * together))
        step = max(_PIECE // (spacing * together), 1) * spacing * together
        for first in range(start, end, step):
            last = min(first + step, end)
            waiting.append(_stretch(genome, contig, first, last, together, spacing))
            waiting[-1].index[waiting[-1].index >= 0] += offset + first - start
            bases += last - first
            if bases >= _PIECE:
                yield _joined(waiting)
                waiting, bases = [], 0
    if waiting:
        yield _joined(waiting)


def _stretch(
    genome: Genome, contig: int, start: int, end: int, together: int, spacing: int
) -> _Passes:
    block = spacing * together
    blocks = np.arange(0, end - start, block)
    first = (blocks[:, None] + np.arange(spacing)).reshape(-1)
    index = first[:, None] + np.arange(together) * spacing
    known = np.zeros(len(blocks) * block, bool)
    known[: end - start] = _bases(genome, contig, start, end) >= 0
    index[~known[index]] = -1
    some = (index >= 0).any(axis=1)
    index, centre = index[some], first[some] + start + (together - 1) * spacing // 2
    return _Passes(np.full(len(index), contig), centre, index + start, index, end - start)


def _joined(passes: list[_Passes]) -> _Passes:
    contig, centre, position, index = (
        np.concatenate(arrays) for arrays in zip(*(p[:-1] for p in passes), strict=True)
    )
    return _Passes(contig, centre, position, index, sum(p.bases for p in passes))


def _bases(genome: Genome, contig: int, start: int, end: int) -> np.ndarray:
    return _INDEX[genome.bases(contig, start, end)]


def _room(bases: int, folder: pathlib.Path | None) -> np.ndarray:
    """(bases, 4) float32 of NaN."""
    if folder is None or not bases:
        return np.full((bases, 4), np.nan, np.float32)
    nothing = np.full((min(bases, _PIECE), 4), np.nan, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        # Written, not left sparse: a disk that is full is found out here.
        for first in range(0, bases, _PIECE):
            file.write(nothing[: bases - first].tobytes())
        file.flush()
        return np.memmap(file, np.float32, "r+", shape=(bases, 4))


def _describe(results: EveryBase):
    def describe(stretch: int) -> str:
        contig, start, end = (int(column[stretch]) for column in results.stretches)
        return f"{results.genome.names[contig]}:{start + 1:,}-{end:,}"

    return describe
