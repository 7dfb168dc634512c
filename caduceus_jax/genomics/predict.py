"""What a fine-tuned model says of sequences, regions and variants' surroundings."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.output import finish, replacing
from caduceus_jax.genomics.files.sequence_tables import (
    checked_bases,
    is_sequence_table,
    read_frame,
    row_name,
)
from caduceus_jax.genomics.reference.sequence_files import load_sequences, row_columns
from caduceus_jax.genomics.reference.sequences import Sequences, of_bases
from caduceus_jax.genomics.reference.windows import Edge
from caduceus_jax.genomics.scoring.base_files import TABLES, check_outputs, write_table
from caduceus_jax.genomics.status import Status

if TYPE_CHECKING:
    import polars


def predictions(
    tuned: inference.TaskModel,
    sequences: Sequences | Sequence[str],
    *,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Any:
    """A table of predictions, one row a sequence.

    Args:
        tuned: see `inference.load_task`.
        sequences: DNA as text; or what `sequences.read_sequences`, `around_regions` or
            `around_records` return.
        batch_size: sequences in a forward pass; chosen for the device by default.
        show_progress: say on standard error how far it is.

    Returns:
        polars.DataFrame with the columns of `sequences` (name and length for text, whose names are
        its numbers from 0), status, and: of a classifier, `label`, the most probable class, and its
        probability of each class as `p_CLASS`, float32; otherwise the values, float32, by name.
        Null where the status is not ok.

    Raises:
        UserError: see `inference.predict`.
    """
    import polars

    if not isinstance(sequences, Sequences):
        bases = [sequence.encode("ascii", errors="replace") for sequence in sequences]
        sequences = of_bases([str(i) for i in range(len(bases))], bases)
    outputs = inference.predict(
        tuned, sequences.bases, batch_size=batch_size, show_progress=show_progress
    )
    ok = sequences.status == Status.OK
    values = np.full((len(ok), len(tuned.names)), np.nan, np.float32)
    values[ok] = outputs
    columns: dict[str, Any] = row_columns(sequences)
    if tuned.task.kind == "classification":
        labels = np.full(len(ok), None, object)
        labels[ok] = np.array(tuned.names, object)[outputs.argmax(axis=1)]
        columns["predicted"] = polars.Series(labels.tolist(), dtype=polars.String)
    for i, name in enumerate(_new_columns(tuned)[-len(tuned.names) :]):
        columns[name] = polars.Series(values[:, i]).fill_nan(None)
    return polars.DataFrame(columns)


def predict(
    model: str,
    sequences: pathlib.Path,
    *,
    out: pathlib.Path,
    genome: pathlib.Path | None = None,
    window: int | None = None,
    edge: Edge = "pad",
    sequence: str = "sequence",
    max_length: int = 131_072,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """What a fine-tuned model says of DNA: classes with their probabilities, or values.

    Sequences are the records of a FASTA file, the rows of a table or, with --genome, the regions of
    a BED file or the surroundings of a VCF file's records. Every record comes out, in its place,
    with a table's own columns, or those that `caduceus-jax embed` gives, and: of a classifier,
    predicted (the most probable class) and p_CLASS, the probability of each class; otherwise the
    values, as predicted_NAME. They are empty where the status is not ok (unknown_chrom,
    out_of_range, crosses_edge).

    examples:
      caduceus-jax predict runs/splice/seed-1/model reads.fa --out reads.tsv
      caduceus-jax predict runs/splice/seed-1/model table.csv --sequence bases --out table.tsv
      caduceus-jax predict runs/enhancers/seed-1/model peaks.bed --genome hg38.fa --window 500 \\
          --out peaks.parquet

    Args:
        model: folder of a fine-tuned model, which `caduceus-jax finetune` wrote.
        sequences: FASTA (plain or gzip), table (.csv, .tsv, either with .gz, or .parquet) or, with
            --genome, BED (plain or gzip) or VCF (plain, gzip, bgzip or BCF).
        out: file to write: .tsv or .parquet. It appears when it is complete.
        genome: the genome that regions and records lie on: FASTA, plain or bgzip; its index (.fai)
            is made where it is missing.
        window: bases around each region's middle, (start + end) // 2 (0-based), or around each
            record's position; by default the region as it is. Only with --genome.
        edge: what to do where a window reaches beyond the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        sequence: column of a table that has the sequences.
        max_length: bases of the longest sequence that is accepted. The model reads as many of them
            as it was trained on.
        batch_size: sequences in a forward pass; chosen for the device by default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although regions or records are not on the genome.

    Raises:
        UserError: an input cannot be used, or regions are not on the genome (then the output is
            written first).
    """
    sequences, out = pathlib.Path(sequences), pathlib.Path(out)
    ending = check_outputs(out, TABLES, [sequences, *([genome] if genome else [])])[out]
    tuned = inference.load_task(model, dtype=dtype)
    table = None
    if is_sequence_table(sequences):
        if genome is not None or window is not None:
            raise UserError(
                f"{sequences} is a table of sequences: --genome and --window are for BED and VCF"
            )
        what, read, table = _table(sequences, sequence, _new_columns(tuned))
    else:
        what, read = load_sequences(sequences, genome, window, edge, max_length)
    use_cores()
    frame = predictions(tuned, read, batch_size=batch_size, show_progress=True)
    if table is not None:
        frame = table.hstack(frame.select(_new_columns(tuned)))
    with replacing(out) as partial:
        write_table(partial, ending, [frame])
    if tuned.task.kind == "classification":
        for label, count in sorted(frame["predicted"].drop_nulls().value_counts().rows()):
            print(f"{label}\t{count:,}")
    finish(what, read.columns["name"], read.status, out, genome, skip_bad)


def _new_columns(tuned: inference.TaskModel) -> list[str]:
    if tuned.task.kind == "classification":
        return ["predicted", *(f"p_{name}" for name in tuned.names)]
    return [f"predicted_{name}" for name in tuned.names]


def _table(
    path: pathlib.Path, column: str, new: list[str]
) -> tuple[str, Sequences, "polars.DataFrame"]:
    """What the rows are, their sequences, and all of the table."""
    table, first = read_frame(path)
    if column not in table.columns:
        raise UserError(
            f"{path} has no column {column}; it has {', '.join(table.columns)}: say with "
            "--sequence which has the sequences"
        )
    if taken := [name for name in new if name in table.columns]:
        raise UserError(f"{path} has a column {taken[0]} already: rename it")
    names = [row_name(path, first, row) for row in range(first, first + len(table))]
    bases = [checked_bases(*row) for row in zip(names, table[column].to_list(), strict=True)]
    return "rows", of_bases(names, bases), table
