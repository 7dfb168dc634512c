"""Rows of sequences from the files that users have: FASTA, BED and VCF."""

import pathlib
from typing import Any, Literal

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.inputs import open_binary
from caduceus_jax.genomics.files.vcf import read_vcf
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.sequences import (
    Sequences,
    around_records,
    around_regions,
    read_sequences,
)
from caduceus_jax.genomics.reference.windows import Edge


def load_sequences(
    path: pathlib.Path,
    genome: pathlib.Path | None,
    window: int | None,
    edge: Edge,
    max_length: int | None,
) -> tuple[str, Sequences]:
    """The rows of a FASTA, BED or VCF file; the latter two need the genome they lie on.

    Args:
        path: the file, plain or compressed.
        genome: FASTA file, plain or bgzip.
        window: see `sequences.around_regions`; of a VCF file it must be said.
        edge: see `windows.place`.
        max_length: bases of the longest sequence that is accepted.

    Returns:
        What the rows are ("sequences", "regions" or "records"), and the rows.

    Raises:
        UserError: a file that cannot be read, or options that do not go with it.
    """
    kind = _kind(path)
    if genome is None:
        if kind != "FASTA":
            raise UserError(
                f"{path} is a {kind} file: say with --genome where its "
                f"{'regions lie' if kind == 'BED' else 'records lie, and with --window how much'}"
            )
        if window is not None:
            raise UserError("--window is for the regions of a BED file, with --genome")
        return "sequences", read_sequences(path, max_length=max_length)
    if window is not None and window < 1:
        raise UserError(f"--window is {window}; it must be at least 1")
    if kind == "VCF":
        if window is None:
            raise UserError(
                f"{path} is a VCF file: say with --window how many bases around each record's "
                "position to embed"
            )
        variants = read_vcf(path)
        _, rows = np.unique(variants.record, return_index=True)
        return "records", around_records(
            variants,
            Genome(genome),
            window=window,
            edge=edge,
            max_length=max_length,
            describe=lambda row: f"{path}:{variants.line[rows[row]]}",
        )
    regions = read_bed(path)
    return "regions", around_regions(
        regions,
        Genome(genome),
        window=window,
        edge=edge,
        max_length=max_length,
        describe=lambda row: f"{path}:{regions.line[row]}",
    )


def _kind(path: pathlib.Path) -> Literal["FASTA", "BED", "VCF"]:
    """By how the file starts, then by its name."""
    with open_binary(path) as file:
        start = file.read(16)
    plain = path.name.removesuffix(".gz").removesuffix(".bgz")
    if start.startswith((b"##fileformat=VCF", b"BCF")) or plain.endswith((".vcf", ".bcf")):
        return "VCF"
    return "BED" if plain.endswith(".bed") else "FASTA"


def row_columns(sequences: Sequences) -> dict[str, Any]:
    """The columns of the rows and their status, as polars.Series."""
    import polars

    columns = {**sequences.columns, "status": sequences.status}
    return {
        name: polars.Series(values.tolist(), dtype=polars.String)
        if values.dtype.kind == "U"
        else polars.Series(values)
        for name, values in columns.items()
    }
