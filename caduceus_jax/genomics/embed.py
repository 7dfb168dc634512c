"""Embeddings of sequences and of regions of a genome: `caduceus-jax embed`."""

import pathlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.bed import read_bed
from caduceus_jax.genomics.fasta import iterate_fasta
from caduceus_jax.genomics.genome import Genome
from caduceus_jax.genomics.output import check_output, finish, replacing
from caduceus_jax.genomics.windows import Edge, Status, centred, place

_FORMATS = {".parquet": "polars", ".npz": None}


class Sequences(NamedTuple):
    """What is to be embedded: one row a record or a region; positions are 0-based half-open."""

    columns: dict[str, np.ndarray]  # of the output, (rows,) each
    status: np.ndarray  # (rows,) of `windows.Status`; OK where there is a sequence
    bases: list[bytes]  # of the rows that are OK


def embed(
    model: str,
    sequences: pathlib.Path,
    *,
    out: pathlib.Path,
    genome: pathlib.Path | None = None,
    pooling: Literal["mean", "center", "none"] = "mean",
    strands: inference.StrandMode = "average",
    window: int | None = None,
    edge: Edge = "pad",
    max_length: int = 131_072,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """Embeds DNA: one vector a sequence, or one a base.

    Sequences are the records of a FASTA file or, with --genome, the regions of a BED file. They may
    differ in length, and no vector depends on the others.

    Every record comes out, in its place. The columns are, for a FASTA file: name, length, status,
    embedding; for a BED file: name, chrom, start, end (as given), window_start, window_end (what
    was embedded), padding (bases of it beyond the contig, read as N), status, embedding. Positions
    are 0-based half-open. The status is ok, or why there is no embedding (unknown_chrom,
    out_of_range, crosses_edge): null in a parquet file, NaN in an npz file. With --pooling none a
    parquet file has a list of vectors in each row; an npz file has all rows' vectors one after the
    other, those of row i from offsets[i] to offsets[i + 1].

    examples:
      caduceus-jax embed runs/quickstart reads.fa --out reads.parquet
      caduceus-jax embed runs/quickstart peaks.bed --genome hg38.fa --window 1023 --out peaks.npz

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        sequences: FASTA (plain or gzip) or, with --genome, BED (plain or gzip).
        out: file to write: .parquet or .npz. It appears when it is complete.
        genome: the genome that a BED file's regions lie on: FASTA, plain or bgzip; its index (.fai)
            is made where it is missing.
        pooling: mean over the sequence, its center (0-based index length // 2), or none: one
            vector a base.
        strands: average of both strands, concatenate both (twice as many channels), or the strand
            as given (forward).
        window: bases to embed around each region's middle, (start + end) // 2 (0-based), which
            becomes index window // 2; by default the region as it is. Only with --genome.
        edge: what to do where a window reaches beyond the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        max_length: longest sequence that is accepted, in bases; memory grows in proportion.
        batch_size: sequences in a forward pass; chosen for the device and the length by default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although regions are not on the genome (unknown_chrom,
            out_of_range).

    Raises:
        UserError: an input cannot be used, a sequence is too long, or regions are not on the genome
            (then the output is written first).
    """
    sequences, out = pathlib.Path(sequences), pathlib.Path(out)
    ending = check_output(out, _FORMATS)
    if genome is None:
        if window is not None:
            raise UserError("--window is for the regions of a BED file, with --genome")
        read = _fasta(sequences, max_length)
    else:
        read = _bed(sequences, Genome(genome), window, edge, max_length)
    use_cores()
    network, tokenizer = inference.load(model, dtype=dtype)
    options = {
        "tokenizer": tokenizer,
        "strands": strands,
        "batch_size": batch_size,
        "show_progress": True,
    }
    if pooling == "none":
        embeddings = inference.embed_tokens(network, read.bases, **options)
    else:
        embeddings = inference.embed(network, read.bases, pooling=pooling, **options)
    with replacing(out) as partial:
        channels = network.config.d_model * (2 if strands == "concatenate" else 1)
        write = _write_parquet if ending == ".parquet" else _write_npz
        write(partial, read, embeddings, channels)
    what = "sequences" if genome is None else "regions"
    finish(what, read.columns["name"], read.status, out, genome, skip_bad)


def _fasta(path: pathlib.Path, max_length: int) -> Sequences:
    if path.is_file() and path.name.removesuffix(".gz").endswith(".bed"):
        raise UserError(f"{path} is a BED file: say with --genome where its regions lie")
    names, bases = [], []
    for name, sequence in iterate_fasta(path):
        _check_length(f"{path}: record {name}", len(sequence), max_length)
        names.append(name)
        bases.append(sequence.tobytes())
    lengths = np.array([len(sequence) for sequence in bases], np.int64)
    status = np.full(len(names), Status.OK, f"<U{len(Status.OK)}")
    return Sequences({"name": np.array(names), "length": lengths}, status, bases)


def _bed(
    path: pathlib.Path, genome: Genome, window: int | None, edge: Edge, max_length: int
) -> Sequences:
    if window is not None and window < 1:
        raise UserError(f"--window is {window}; it must be at least 1")
    regions = read_bed(path)
    contig = genome.contigs(regions.chrom)
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    start, end = regions.start, regions.end
    if window is not None:
        start, end = centred((start + end) // 2, window)
    for row in np.flatnonzero(end - start > max_length)[:1]:
        _check_length(f"{path}:{regions.line[row]}", int(end[row] - start[row]), max_length)
    # A region that is nowhere stays so, wherever a window around it would lie.
    on_genome = place(regions.start, regions.end, lengths).status == Status.OK
    lengths = np.where(on_genome | (lengths < 0), lengths, 0)
    windows = place(
        start, end, lengths, edge=edge, describe=lambda row: f"{path}:{regions.line[row]}"
    )
    bases = [
        genome.fetch(int(contig[row]), int(windows.start[row]), int(windows.end[row])).tobytes()
        for row in np.flatnonzero(windows.status == Status.OK)
    ]
    columns = {
        "name": np.array(regions.name, np.str_),
        "chrom": np.array(regions.chrom, np.str_),
        "start": regions.start,
        "end": regions.end,
        "window_start": windows.start,
        "window_end": windows.end,
        "padding": windows.padding,
    }
    return Sequences(columns, windows.status, bases)


def _check_length(what: str, length: int, max_length: int) -> None:
    if length > max_length:
        raise UserError(
            f"{what} has {length:,} bases, more than --max-length {max_length:,}: embed windows of "
            "it with a BED file, or allow more"
        )


def _write_npz(
    path: pathlib.Path,
    sequences: Sequences,
    embeddings: Float[np.ndarray, "sequences channels"] | list[np.ndarray],
    channels: int,
) -> None:
    columns = {**sequences.columns, "status": sequences.status}
    ok = sequences.status == Status.OK
    if isinstance(embeddings, list):
        columns["offsets"] = _offsets(ok, embeddings)
        columns["embedding"] = np.concatenate([np.empty((0, channels), np.float32), *embeddings])
    else:
        columns["embedding"] = np.full((len(ok), channels), np.nan, np.float32)
        columns["embedding"][ok] = embeddings
    with path.open("wb") as file:
        np.savez(file, **columns)  # pyright: ignore[reportArgumentType]


def _write_parquet(
    path: pathlib.Path,
    sequences: Sequences,
    embeddings: Float[np.ndarray, "sequences channels"] | list[np.ndarray],
    channels: int,
) -> None:
    import polars
    import pyarrow

    ok = sequences.status == Status.OK
    if isinstance(embeddings, list):
        offsets = pyarrow.array(_offsets(ok, embeddings))
        tokens = np.concatenate([np.empty((0, channels), np.float32), *embeddings])
        vectors = pyarrow.FixedSizeListArray.from_arrays(tokens.reshape(-1), channels)
        column = pyarrow.LargeListArray.from_arrays(offsets, vectors, mask=pyarrow.array(~ok))
    else:
        rows = np.zeros((len(ok), channels), np.float32)
        rows[ok] = embeddings
        column = pyarrow.FixedSizeListArray.from_arrays(
            rows.reshape(-1), channels, mask=pyarrow.array(~ok)
        )
    columns = {**sequences.columns, "status": sequences.status}
    frame = polars.DataFrame(
        {
            name: polars.Series(values.tolist(), dtype=polars.String)
            if values.dtype.kind == "U"
            else polars.Series(values)
            for name, values in columns.items()
        }
    )
    frame.with_columns(polars.Series("embedding", column)).write_parquet(path)


def _offsets(ok: np.ndarray, embeddings: list[np.ndarray]) -> Int[np.ndarray, " ends"]:
    """Where the vectors of each row start, and where the last row's end."""
    lengths = np.zeros(len(ok), np.int64)
    lengths[ok] = [len(tokens) for tokens in embeddings]
    return np.concatenate([[0], np.cumsum(lengths)])
