"""Inputs of the verbs: all that they accept as sequences, regions or variants, found and read."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.fasta import iterate_fasta
from caduceus_jax.genomics.files.inputs import STANDARD_INPUT, AnyPath, Input, as_input
from caduceus_jax.genomics.files.tables import (
    Table,
    checked_bases,
    is_frame,
    of_frame,
    read_table,
)
from caduceus_jax.genomics.files.variant_tables import COLUMNS, frame_of, variants_of
from caduceus_jax.genomics.files.vcf import Vcf
from caduceus_jax.genomics.interval import Interval, Intervals
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.kinds import is_table, kind_of
from caduceus_jax.genomics.reference.locate import Edge
from caduceus_jax.genomics.reference.regions import named_regions
from caduceus_jax.genomics.reference.sequences import (
    Sequences,
    around_records,
    around_regions,
    check_length,
    of_bases,
)
from caduceus_jax.genomics.variant import Variant, Variants

Frame = Any  # a polars or pandas DataFrame
AnyGenome = Genome | AnyPath
AnyRegions = (
    AnyPath | Interval | Intervals | Sequence[Interval | str | tuple[str, int, int]] | Frame
)
AnyVariants = (
    AnyPath | Variant | Variants | Sequence[Variant | str | tuple[str, int, str, str]] | Frame
)
AnySequences = AnyPath | Input | Sequence[str | bytes] | AnyRegions | AnyVariants | Sequences
_INTERVAL_COLUMNS = ("chrom", "start", "end")


class VariantSource(NamedTuple):
    """Holds variants, and what they came in.

    Attributes:
        name: its name in errors.
        variants: one row per ALT.
        columns: the columns of the variants' table, or chrom, pos, ref and alt.
        vcf: the file they came in, if it is a VCF.
        encoding: encoding of a table of text.
    """

    name: str
    variants: Variants
    columns: polars.DataFrame
    vcf: Vcf | None = None
    encoding: str = "utf-8"

    @property
    def declared(self) -> dict[str, int]:
        """Lengths of contigs as the VCF's header has them."""
        return {} if self.vcf is None else self.vcf.contigs


def as_genome(genome: AnyGenome) -> Genome:
    """Returns the genome itself, or the one at a path."""
    return genome if isinstance(genome, Genome) else Genome(genome)


def as_variants(variants: AnyVariants | Input) -> VariantSource:
    """Reads variants from whatever they are given in.

    Args:
        variants: a VCF or BCF file; a table, in a file or as a frame, with the columns chrom, pos
            (from 1), ref and alt; `Variant` objects, texts like "chr1:123:A>G", or tuples (chrom,
            pos, ref, alt); or one of these.

    Raises:
        UserError: no such file, or what is not a variant.
    """
    if isinstance(variants, VariantSource):
        return variants
    if isinstance(variants, Variants):
        return VariantSource("variants", variants, frame_of(variants))
    if isinstance(variants, Input | os.PathLike) or (
        isinstance(variants, str) and is_path(variants)
    ):
        source = as_input(variants)
        if is_table(source, COLUMNS):
            return _of_table(read_table(source))
        vcf = Vcf(source)
        found = vcf.variants()
        return VariantSource(source.name, found, frame_of(found), vcf)
    if is_frame(variants):
        return _of_table(Table(of_frame(variants)))
    several = [variants] if isinstance(variants, Variant | str) else variants
    found = Variants.of([_variant(variant) for variant in several])
    return VariantSource("variants", found, frame_of(found))


def as_intervals(regions: AnyRegions | Input, genome: Genome) -> Intervals:
    """Reads regions from whatever they are given in.

    Args:
        regions: a BED file (from 0, the end not included); a frame with the columns chrom, start
            and end (0-based half-open), and perhaps name and strand; `Interval` objects or tuples
            (chrom, start, end), 0-based half-open; texts like "chr22:30,000,001-30,002,000" (from
            1, the last base included); a contig's name; the word all, which is every contig; or
            several of these.
        genome: the genome that they lie on.

    Raises:
        UserError: no such file or contig, or what is not a region.
    """
    if isinstance(regions, Intervals):
        return regions
    if is_frame(regions):
        return _of_frame(of_frame(regions))
    if isinstance(regions, Interval):
        return Intervals.of([regions])
    if isinstance(regions, Input):
        return read_bed(regions)
    if isinstance(regions, str | os.PathLike):
        if str(regions) not in genome.names and is_path(regions):
            return read_bed(regions)
        return named_regions(str(regions), genome)
    parts = [_intervals(region, genome) for region in regions]
    return Intervals(
        [chrom for part in parts for chrom in part.chrom],
        np.concatenate([np.empty(0, np.int64), *(part.start for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.end for part in parts)]),
        [name for part in parts for name in part.name],
        np.concatenate([np.empty(0, np.int64), *(part.line for part in parts)]),
        [strand for part in parts for strand in part.strand or ["."] * len(part.chrom)],
    )


def as_sequences(
    sequences: AnySequences,
    genome: AnyGenome | None,
    *,
    context_length: int | None,
    edge: Edge,
    max_length: int | None,
    oriented: bool,
    column: str = "sequence",
) -> tuple[Sequences, polars.DataFrame | None]:
    """Reads sequences from whatever they are given in.

    Args:
        sequences: texts of DNA; a FASTA file; a table, in a file or as a frame, with a column of
            sequences; or, with a genome, regions or variants in any form.
        genome: the genome that regions and variants lie on.
        context_length: bases around the middle of each region or the position of each record.
        edge: treatment of a window that extends past its contig: "pad", "shift", "drop" or "error".
        max_length: bases of the longest sequence that is accepted; None for any.
        oriented: read regions on the - strand as its 5' to 3'.
        column: column of a table that has the sequences.

    Returns:
        The sequences; and the table that they came in, if they came in one.

    Raises:
        UserError: an input that cannot be read, or options that do not go with it.
    """
    if isinstance(sequences, Sequences):
        return sequences, None
    how = _How(context_length, edge, max_length, oriented)
    if isinstance(sequences, str | os.PathLike | Input):
        if isinstance(sequences, Input) or genome is None or is_path(sequences):
            source = sequences if isinstance(sequences, Input) else Input(sequences)
            return _of_file(source, genome, how, column)
        return _around(as_intervals(sequences, as_genome(genome)), genome, how), None
    if is_frame(sequences):
        frame = of_frame(sequences)
        if set(COLUMNS) <= set(frame.columns):
            return _around(as_variants(frame).variants, genome, how), None
        if set(_INTERVAL_COLUMNS) <= set(frame.columns):
            return _around(_of_frame(frame), genome, how), None
        return _of_column(Table(frame), genome, how, column)
    if isinstance(sequences, Intervals | Variants):
        return _around(sequences, genome, how), None
    if isinstance(sequences, Interval | Variant):
        sequences = [sequences]
    return _of_items(list(sequences), genome, how), None


class _How(NamedTuple):
    context_length: int | None
    edge: Edge
    max_length: int | None
    oriented: bool


def _of_items(items: list[Any], genome: AnyGenome | None, how: _How) -> Sequences:
    if items and all(isinstance(item, Variant) for item in items):
        return _around(as_variants(items).variants, genome, how)
    if any(not isinstance(item, str | bytes) for item in items):
        if genome is None:
            raise UserError(f"{items[0]!r} lies on a genome: pass `genome`, too")
        return _around(as_intervals(items, as_genome(genome)), genome, how)
    if genome is not None and items:
        return _around(as_intervals(items, as_genome(genome)), genome, how)
    bases = [b.encode("ascii", errors="replace") if isinstance(b, str) else b for b in items]
    for i, sequence in enumerate(bases):
        if not sequence:
            raise UserError(f"sequence {i} (0-based) is empty")
        check_length(f"sequence {i} (0-based)", len(sequence), how.max_length)
    return of_bases([str(i) for i in range(len(bases))], bases)


def _of_file(
    source: Input, genome: AnyGenome | None, how: _How, column: str
) -> tuple[Sequences, polars.DataFrame | None]:
    kind = kind_of(source, column)
    if kind == "table":
        return _of_column(read_table(source), genome, how, column)
    if kind == "FASTA" and genome is None:
        if how.context_length is not None:
            raise UserError("context_length is for regions and variants, which need a `genome`")
        return _of_fasta(source, how.max_length), None
    if genome is None:
        need = "where its regions lie" if kind == "BED" else "where its records lie"
        more = ", and `context_length` to set how many bases to read" if kind == "VCF" else ""
        raise UserError(f"{source.name} is a {kind} file: pass `genome`, {need}{more}")
    if kind == "VCF":
        vcf = Vcf(source)
        if how.context_length is None:
            raise UserError(
                f"{source.name} is a VCF file: pass `context_length`, how many bases around each "
                "record's position to read"
            )
        variants = vcf.variants()
        rows = np.unique(variants.record, return_index=True)[1]
        return _around(
            variants, genome, how, lambda row: f"{source.name}:{variants.line[rows[row]]}"
        ), None
    regions = read_bed(source)
    return _around(regions, genome, how, lambda row: f"{source.name}:{regions.line[row]}"), None


def _of_fasta(source: Input, max_length: int | None) -> Sequences:
    names, bases = [], []
    for name, sequence in iterate_fasta(source):
        check_length(f"{source.name}: record {name}", len(sequence), max_length)
        names.append(name)
        bases.append(sequence.tobytes())
    return of_bases(names, bases)


def _of_column(
    table: Table, genome: AnyGenome | None, how: _How, column: str
) -> tuple[Sequences, polars.DataFrame]:
    if genome is not None or how.context_length is not None:
        raise UserError(
            f"{table.name} is a table of sequences: `genome` and `context_length` are for BED and "
            "VCF"
        )
    if column not in table.frame.columns:
        raise UserError(
            f"{table.name} has no column {column}; it has {', '.join(table.frame.columns)}: pass "
            "`sequence`, the one that has the sequences"
        )
    names = [table.where(row) for row in range(len(table.frame))]
    cells = table.frame[column].to_list()
    bases = [checked_bases(*row) for row in zip(names, cells, strict=True)]
    for where, sequence in zip(names, bases, strict=True):
        check_length(where, len(sequence), how.max_length)
    return of_bases(names, bases, "rows"), table.frame


def _around(
    places: Intervals | Variants,
    genome: AnyGenome | None,
    how: _How,
    describe: Callable[[int], str] | None = None,
) -> Sequences:
    if genome is None:
        raise UserError("regions and variants lie on a genome: pass `genome`, too")
    reference = as_genome(genome)
    more = {"edge": how.edge, "max_length": how.max_length}
    more |= {} if describe is None else {"describe": describe}
    if isinstance(places, Variants):
        if how.context_length is None:
            raise UserError(
                "context_length is missing: it sets how many bases around each variant to read"
            )
        return around_records(places, reference, context_length=how.context_length, **more)
    length = how.context_length
    return around_regions(places, reference, context_length=length, oriented=how.oriented, **more)


def _of_table(table: Table) -> VariantSource:
    return VariantSource(table.name, variants_of(table), table.frame, encoding=table.encoding)


def _of_frame(frame: polars.DataFrame) -> Intervals:
    missing = [name for name in _INTERVAL_COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"the table has no column {', '.join(missing)}: a table of regions has chrom, start "
            "and end"
        )
    chrom = [str(name) for name in frame["chrom"].to_list()]
    start, end = (frame[name].cast(polars.Int64).to_numpy() for name in ("start", "end"))
    for row in np.flatnonzero((start >= end) | (start < 0))[:1].tolist():
        raise UserError(
            f"the table: row {row + 1}: start is {start[row]} and end {end[row]}: they count from "
            "0, and the end is the base after the last one"
        )
    names = [f"{c}:{s}-{e}" for c, s, e in zip(chrom, start.tolist(), end.tolist(), strict=True)]
    if "name" in frame.columns:
        given = frame["name"].to_list()
        names = [names[i] if name is None else str(name) for i, name in enumerate(given)]
    strand = None
    if "strand" in frame.columns:
        strand = [s if s in ("+", "-") else "." for s in frame["strand"].to_list()]
    return Intervals(chrom, start, end, names, np.zeros(len(chrom), np.int64), strand)


def _intervals(region: Any, genome: Genome) -> Intervals:
    if isinstance(region, str):
        return named_regions(region, genome)
    if isinstance(region, Interval):
        return Intervals.of([region])
    try:
        chrom, start, end, *strand = region
        return Intervals.of([Interval(str(chrom), int(start), int(end), *strand)])
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{region!r} is not a region: pass (chrom, start, end)") from None


def _variant(variant: Any) -> Variant:
    if isinstance(variant, Variant):
        return variant
    if isinstance(variant, str):
        return Variant.from_str(variant)
    try:
        chrom, pos, ref, alt = variant
        return Variant(str(chrom), int(pos), ref, "." if alt is None else alt)
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{variant!r} is not a variant: pass (chrom, pos, ref, alt)") from None


def is_path(text: str | os.PathLike[str]) -> bool:
    """Tells whether a text names a file, not a region or a variant."""
    if isinstance(text, os.PathLike):
        return True
    if text in STANDARD_INPUT or pathlib.Path(text).exists():
        return True
    endings = (".bed", ".gz", ".bgz", ".vcf", ".bcf", ".tsv", ".csv", ".parquet")
    return text.endswith(endings) or ("/" in text and ":" not in text)
