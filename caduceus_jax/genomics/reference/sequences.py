"""Sequences to be read by a model: of files, of regions and around variants, one row for each."""

import dataclasses
import logging
from collections.abc import Callable, Sequence

import numpy as np
import polars
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import COMPLEMENT
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.locate import Edge, centred, place
from caduceus_jax.genomics.status import STATUS_DTYPE, Status
from caduceus_jax.genomics.variant import Variants

log = logging.getLogger(__name__)

Describe = Callable[[int], str]
Rows = Int[np.ndarray, " rows"]
_ANY_LENGTH = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True, eq=False)
class Sequences:
    """One row per record, region or variant's record; positions are 0-based half-open.

    Attributes:
        what: the rows are, for example "regions".
        frame: one row per sequence; its first column is `name`.
        status: (rows,) of `Status` as text; OK where there is a sequence.
        lengths: (rows,) bases of each; 0 where a row has no sequence.
        read: the bases of a row (from 0) that is OK.
    """

    what: str
    frame: polars.DataFrame
    status: np.ndarray
    lengths: Rows
    read: Callable[[int], bytes]


def of_bases(
    names: Sequence[str], bases: Sequence[bytes], what: str = "sequences", **more: polars.Series
) -> Sequences:
    """Returns sequences that are in memory, with the columns name and length.

    Args:
        names: name of each row.
        bases: bases of each row.
        what: the rows are.
        **more: columns in place of name and length.
    """
    lengths = np.array([len(sequence) for sequence in bases], np.int64)
    columns = more or {
        "name": polars.Series(names, dtype=polars.String),
        "length": polars.Series(lengths, dtype=polars.Int64),
    }
    status = np.full(len(bases), Status.OK, STATUS_DTYPE)
    return Sequences(what, polars.DataFrame(columns), status, lengths, lambda row: bases[row])


def around_regions(
    regions: Intervals,
    genome: Genome,
    *,
    context_length: int | None = None,
    edge: Edge = "pad",
    max_length: int | None = None,
    oriented: bool = False,
    describe: Describe = lambda row: f"region {row} (0-based)",
) -> Sequences:
    """Returns the bases of regions, or of windows around their middles.

    The columns are name, chrom, start, end (of the region), window_start, window_end (of what is
    read) and padding (bases of it outside the contig, which are N); with `oriented`, strand.

    Args:
        regions: the regions.
        genome: the genome that they lie on.
        context_length: bases around a region's middle, (start + end) // 2 (0-based), which becomes
            index context_length // 2; by default the region as it is.
        edge: treatment of a window that extends past its contig: "pad", "shift", "drop" or "error".
        max_length: bases of the longest sequence that is accepted.
        oriented: read regions on the - strand as its 5' to 3'.
        describe: names a row in errors.

    Raises:
        UserError: a sequence is too long, or reaches over the edge of its contig where `edge` is
            "error".
    """
    start, end = regions.start, regions.end
    columns = {
        "name": polars.Series(regions.name, dtype=polars.String),
        "chrom": polars.Series(regions.chrom, dtype=polars.String),
        "start": polars.Series(start, dtype=polars.Int64),
        "end": polars.Series(end, dtype=polars.Int64),
    }
    reverse = np.zeros(len(start), bool)
    if oriented and regions.strand is not None and set(regions.strand) - {"."}:
        columns["strand"] = polars.Series(regions.strand, dtype=polars.String)
        reverse = np.array([strand == "-" for strand in regions.strand], bool)
    if count := int(reverse.sum()):
        said = "1 region is" if count == 1 else f"{count:,} regions are"
        log.info(f"{said} on the - strand, which is read from its 5' end")
    middle = (start + end) // 2
    span = (start, end) if context_length is None else centred(middle, context_length)
    what = _Placed("regions", columns, regions.chrom, (start, end), span, reverse)
    return _read(what, genome, edge, max_length, describe)


def around_records(
    variants: Variants,
    genome: Genome,
    *,
    context_length: int,
    edge: Edge = "pad",
    max_length: int | None = None,
    describe: Describe = lambda row: f"record {row} (0-based)",
) -> Sequences:
    """Returns the reference's bases around variants' records, one row per record.

    The columns are name (the record's ID, or chrom:pos), chrom, pos (1-based, as in the file),
    window_start, window_end and padding. A log line counts the records whose REF is not what the
    genome has there; their windows are read all the same.

    Args:
        variants: the variants.
        genome: the genome that they lie on.
        context_length: bases around the first base of REF, which becomes index
            context_length // 2 (0-based).
        edge: treatment of a window that extends past its contig: "pad", "shift", "drop" or "error".
        max_length: bases of the longest sequence that is accepted.
        describe: names a row in errors.

    Raises:
        UserError: a sequence is too long, or reaches over the edge of its contig where `edge` is
            "error".
    """
    rows: list[int] = np.unique(variants.record, return_index=True)[1].tolist()
    chrom = [_text(variants.chrom[row]) for row in rows]
    ref = [variants.ref[row].upper() for row in rows]
    position = variants.position[rows]
    given = [_text(variants.identifier[row]) if variants.identifier else "." for row in rows]
    names = [
        f"{chrom[i]}:{position[i] + 1}" if given[i] in ("", ".") else given[i]
        for i in range(len(rows))
    ]
    columns = {
        "name": polars.Series(names, dtype=polars.String),
        "chrom": polars.Series(chrom, dtype=polars.String),
        "pos": polars.Series(position + 1, dtype=polars.Int64),
    }
    end = position + np.array([len(bases) for bases in ref], np.int64)
    span = centred(position, context_length)
    forward = np.zeros(len(rows), bool)
    what = _Placed("records", columns, chrom, (position, end), span, forward)
    read = _read(what, genome, edge, max_length, describe)
    contig = genome.contigs(chrom)
    other = [
        i
        for i in np.flatnonzero(np.isin(read.status, (Status.OK, Status.CROSSES_EDGE))).tolist()
        if genome.bases(int(contig[i]), int(position[i]), int(end[i])).tobytes() != ref[i].encode()
    ]
    if other:
        log.info(
            f"{len(other):,} of {len(names):,} records have another REF than {genome.path}, first "
            f"{names[other[0]]}: is it the assembly that they were called on?"
        )
    return read


def check_length(where: str, length: int, max_length: int | None) -> None:
    """Refuses a sequence that is too long to be read at once.

    Raises:
        UserError: a sequence is longer than `max_length`.
    """
    if max_length is not None and length > max_length:
        raise UserError(
            f"{where} has {length:,} bases, more than max_length, {max_length:,}: read windows of "
            "it with a BED file, cut it with `tile`, or allow more"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Placed:
    """Rows that lie somewhere, and the windows of them that are read."""

    what: str
    columns: dict[str, polars.Series]
    chrom: list[str]
    span: tuple[Rows, Rows]  # of what lies on the genome
    window: tuple[Rows, Rows]
    reverse: np.ndarray  # (rows,) read as the reverse complement


def _text(field: str) -> str:
    """Returns a field of a VCF file, which may hold any bytes, as what every table can hold."""
    raw = field.encode("utf-8", errors="surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\0", "\ufffd")


def _read(
    rows: _Placed, genome: Genome, edge: Edge, max_length: int | None, describe: Describe
) -> Sequences:
    """Returns the bases of the windows around what lies on the genome."""
    contig = genome.contigs(rows.chrom)
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    start, end = rows.window
    for row in np.flatnonzero(end - start > (max_length or _ANY_LENGTH))[:1].tolist():
        check_length(describe(row), int(end[row] - start[row]), max_length)
    # A region that is nowhere stays so, wherever a window around it would lie.
    on_genome = place(*rows.span, lengths).status == Status.OK
    lengths = np.where(on_genome | (lengths < 0), lengths, 0)
    windows = place(start, end, lengths, edge=edge, describe=describe)

    def read(row: int) -> bytes:
        """Returns the bases of a row, reverse-complemented on the - strand."""
        first, last = int(windows.start[row]), int(windows.end[row])
        bases = genome.bases(int(contig[row]), first, last).tobytes()
        return bases.translate(COMPLEMENT)[::-1] if rows.reverse[row] else bases

    columns = rows.columns | {
        "window_start": polars.Series(windows.start, dtype=polars.Int64),
        "window_end": polars.Series(windows.end, dtype=polars.Int64),
        "padding": polars.Series(windows.padding, dtype=polars.Int64),
    }
    ok = windows.status == Status.OK
    read_lengths = np.where(ok, windows.end - windows.start, 0)
    return Sequences(rows.what, polars.DataFrame(columns), windows.status, read_lengths, read)
