"""Sequences of FASTA records, of regions and around variants, one row for each."""

import logging
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.windows import Edge, centred, place
from caduceus_jax.genomics.status import Status
from caduceus_jax.genomics.variant import Variants

log = logging.getLogger(__name__)

Describe = Callable[[int], str]


class Sequences(NamedTuple):
    """One row a record, a region or a variant's record; positions are 0-based half-open."""

    columns: dict[str, np.ndarray]  # what is known of each row, (rows,) each; the first is `name`
    status: np.ndarray  # (rows,) of `windows.Status` as text; OK where there is a sequence
    bases: list[bytes]  # of the rows that are OK


def read_sequences(path: str | pathlib.Path, *, max_length: int | None = None) -> Sequences:
    """The records of a FASTA file, with the columns name and length.

    Args:
        path: the file, plain or gzip-compressed.
        max_length: bases of the longest record that is accepted.

    Raises:
        UserError: see `fasta.read_genome`; a record is too long.
    """
    names, bases = [], []
    for name, sequence in iterate_fasta(path):
        _check_length(f"{path}: record {name}", len(sequence), max_length)
        names.append(name)
        bases.append(sequence.tobytes())
    return of_bases(names, bases)


def of_bases(names: list[str], bases: list[bytes]) -> Sequences:
    """Sequences that are already there, with the columns name and length."""
    lengths = np.array([len(sequence) for sequence in bases], np.int64)
    columns = {"name": np.array(names, np.str_), "length": lengths}
    return Sequences(columns, np.full(len(names), Status.OK, _STATUS), bases)


def around_regions(
    regions: Intervals,
    genome: Genome,
    *,
    window: int | None = None,
    edge: Edge = "pad",
    max_length: int | None = None,
    describe: Describe = lambda row: f"region {row} (0-based)",
) -> Sequences:
    """The bases of regions, or of windows around their middles.

    The columns are name, chrom, start, end (of the region), window_start, window_end (of what is
    read) and padding (bases of it outside the contig, which are N).

    Args:
        regions: see `bed.read_bed`.
        genome: where they lie.
        window: bases around a region's middle, (start + end) // 2 (0-based), which becomes index
            window // 2; by default the region as it is.
        edge: see `windows.place`.
        max_length: bases of the longest sequence that is accepted.
        describe: names a row in errors.

    Raises:
        UserError: a sequence is too long, or reaches over the edge of its contig where `edge` is
            "error".
    """
    start, end = regions.start, regions.end
    columns = {
        "name": np.array(regions.name, np.str_),
        "chrom": np.array(regions.chrom, np.str_),
        "start": start,
        "end": end,
    }
    span = (start, end) if window is None else _centred((start + end) // 2, window)
    return _read(columns, regions.chrom, (start, end), span, genome, edge, max_length, describe)


def around_records(
    variants: Variants,
    genome: Genome,
    *,
    window: int,
    edge: Edge = "pad",
    max_length: int | None = None,
    describe: Describe = lambda row: f"record {row} (0-based)",
) -> Sequences:
    """The reference's bases around the records of a VCF file, one row a record.

    The columns are name (the record's ID, or chrom:pos), chrom, pos (1-based, as in the file),
    window_start, window_end and padding. A notice counts the records whose REF is not what the
    genome has there; their windows are read all the same.

    Args:
        variants: see `vcf.read_vcf`.
        genome: where they lie.
        window: bases around the first base of REF, which becomes index window // 2 (0-based).
        edge: see `windows.place`.
        max_length: bases of the longest sequence that is accepted.
        describe: names a row in errors.

    Raises:
        UserError: as for `around_regions`.
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
        "name": np.array(names, np.str_),
        "chrom": np.array(chrom, np.str_),
        "pos": position + 1,
    }
    end = position + np.array([len(bases) for bases in ref], np.int64)
    span = _centred(position, window)
    read = _read(columns, chrom, (position, end), span, genome, edge, max_length, describe)
    contig = genome.contigs(chrom)
    other = [
        i
        for i in np.flatnonzero(np.isin(read.status, (Status.OK, Status.CROSSES_EDGE)))
        if genome.bases(int(contig[i]), int(position[i]), int(end[i])).tobytes() != ref[i].encode()
    ]
    if other:
        log.info(
            f"{len(other):,} of {len(names):,} records have another REF than {genome.path}, first "
            f"{names[other[0]]}: is it the assembly that they were called on?"
        )
    return read


_ANY_LENGTH = np.iinfo(np.int64).max
_STATUS = f"<U{max(map(len, Status))}"
Span = tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]


def _centred(position: np.ndarray, window: int) -> Span:
    if window < 1:
        raise UserError(f"window is {window}; it must be at least 1")
    return centred(position, window)


def _text(field: str) -> str:
    """A field of a VCF file, which may hold any bytes, as what every table can hold."""
    valid = field.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")
    return valid.replace("\0", "\ufffd")


def _read(
    columns: dict[str, np.ndarray],
    chrom: list[str],
    what: Span,
    window: Span,
    genome: Genome,
    edge: Edge,
    max_length: int | None,
    describe: Describe,
) -> Sequences:
    """The bases of the windows around what lies on the genome."""
    contig = genome.contigs(chrom)
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    start, end = window
    for row in np.flatnonzero(end - start > (max_length or _ANY_LENGTH))[:1].tolist():
        _check_length(describe(row), int(end[row] - start[row]), max_length)
    # A region that is nowhere stays so, wherever a window around it would lie.
    on_genome = place(*what, lengths).status == Status.OK
    lengths = np.where(on_genome | (lengths < 0), lengths, 0)
    windows = place(start, end, lengths, edge=edge, describe=describe)
    bases = [
        genome.bases(int(contig[row]), int(windows.start[row]), int(windows.end[row])).tobytes()
        for row in np.flatnonzero(windows.status == Status.OK)
    ]
    columns = columns | {
        "window_start": windows.start,
        "window_end": windows.end,
        "padding": windows.padding,
    }
    return Sequences(columns, windows.status, bases)


def _check_length(what: str, length: int, max_length: int | None) -> None:
    if max_length is not None and length > max_length:
        raise UserError(
            f"{what} has {length:,} bases, more than --max-length {max_length:,}: embed windows of "
            "it with a BED file, cut it with --tile, or allow more"
        )
