"""Embeddings of sequences, regions and variants' surroundings: `caduceus-jax embed`."""

import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files import embedding_files
from caduceus_jax.genomics.files.output import check_output, finish, replacing
from caduceus_jax.genomics.reference.sequence_files import load_sequences, row_columns
from caduceus_jax.genomics.reference.sequences import Sequences, of_bases
from caduceus_jax.genomics.reference.windows import Edge
from caduceus_jax.genomics.scoring.tiles import Pooling, checked_overlap, embed_tiled
from caduceus_jax.genomics.status import Status
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.version import __version__


def embeddings(
    model: inference.AnyModel,
    sequences: Sequences | Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    pool_window: int | None = None,
    strands: inference.StrandMode = "average",
    layer: int | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Any:
    """A table of embeddings, one row a sequence.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA as text; or what `sequences.read_sequences`, `around_regions` or
            `around_records` return.
        tokenizer: of the model; the original's by default.
        pooling: "mean" over the sequence, the "center" token, the mean over a "window" in the
            middle (see `inference.embed`), or "none": one vector a base.
        pool_window: bases of the window in the middle.
        strands: "average", "concatenate" or "forward"; see `inference.embed`.
        layer: blocks to run; see `inference.embed`.
        tile: cut sequences longer than this many bases into tiles and stitch their vectors; see
            `tiles.embed_tiled`. By default sequences of any length are read at once.
        overlap: bases that neighbouring tiles share at least; by default a quarter of `tile`.
        batch_size: sequences (tiles) in a forward pass; chosen for the device by default.
        show_progress: say on standard error how far it is.

    Returns:
        polars.DataFrame with the columns of `sequences` (name and length for text, whose names are
        its numbers from 0), status, and embedding: an array of float32, or with pooling "none" a
        list of them; null where the status is not ok.

    Raises:
        UserError: an option or a tokenizer that does not fit.
    """
    if not isinstance(sequences, Sequences):
        bases = [sequence.encode("ascii", errors="replace") for sequence in sequences]
        sequences = of_bases([str(i) for i in range(len(bases))], bases)
    vectors = embed_tiled(
        model,
        sequences.bases,
        tokenizer=tokenizer,
        pooling=pooling,
        pool_window=pool_window,
        strands=strands,
        layer=layer,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        show_progress=show_progress,
    )
    return _frame(sequences, vectors, inference.channels(model, strands))


def embed(
    model: str,
    sequences: pathlib.Path,
    *,
    out: pathlib.Path,
    genome: pathlib.Path | None = None,
    pooling: Pooling = "mean",
    pool_window: int | None = None,
    layer: int | None = None,
    strands: inference.StrandMode = "average",
    window: int | None = None,
    edge: Edge = "pad",
    max_length: int = 131_072,
    tile: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """Embeds DNA: one vector a sequence, or one a base.

    Sequences are the records of a FASTA file or, with --genome, the regions of a BED file or the
    surroundings of a VCF file's records. They may differ in length, and no vector depends on the
    others.

    Every record comes out, in its place. The columns are, for a FASTA file: name, length, status,
    embedding; for a BED file: name, chrom, start, end (as given), window_start, window_end (what
    was embedded), padding (bases of it beyond the contig, read as N), status, embedding; for a VCF
    file the same with pos (1-based, as given) for start and end, and with chrom:pos as the name
    where the record has no ID. All other positions are 0-based half-open. The status is ok, or why
    there is no embedding (unknown_chrom, out_of_range, crosses_edge): null in a parquet file, NaN
    elsewhere.

    With --pooling none a parquet file has a list of vectors in each row; npz and HDF5 files have
    all rows' vectors one after the other, those of row i from offsets[i] to offsets[i + 1]. An
    AnnData file has the embeddings in X, the other columns in obs under unique names, and what
    made it in uns.

    Contigs of any length: --tile 32768 cuts what is longer into tiles of that many bases that
    overlap (--overlap) and lie symmetrically. Each base's vector is from the tile in which it lies
    most centrally, and the mean counts each base once; center and window are read from a tile
    around the middle.

    examples:
      caduceus-jax embed runs/quickstart reads.fa --out reads.parquet
      caduceus-jax embed runs/quickstart peaks.bed --genome hg38.fa --window 1023 --out peaks.h5ad
      caduceus-jax embed runs/quickstart calls.vcf.gz --genome hg38.fa --window 1023 \\
          --pooling window --pool-window 64 --out calls.npz
      caduceus-jax embed runs/quickstart chrM.fa --tile 8192 --pooling none --out chrM.h5

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        sequences: FASTA (plain or gzip) or, with --genome, BED (plain or gzip) or VCF (plain, gzip,
            bgzip or BCF).
        out: file to write: .parquet, .npz, .h5 or .hdf5 (HDF5), or .h5ad (AnnData). It appears
            when it is complete.
        genome: the genome that regions and records lie on: FASTA, plain or bgzip; its index (.fai)
            is made where it is missing.
        pooling: mean over the sequence, its center (0-based index length // 2), the mean over a
            window in the middle (--pool-window), or none: one vector a base.
        pool_window: bases in the middle that --pooling window takes the mean of; base
            pool_window // 2 of them is the center.
        layer: use the residual stream after this many blocks, through the final norm; -1 is the
            last block, and the default.
        strands: average of both strands, concatenate both (twice as many channels), or the strand
            as given (forward).
        window: bases to embed around each region's middle, (start + end) // 2 (0-based), or around
            each record's position, which becomes index window // 2; by default the region as it
            is. Only with --genome.
        edge: what to do where a window reaches beyond the end of a contig: pad it with N, shift it
            inward, drop the region (status crosses_edge), or stop with an error.
        max_length: most bases that are read at once: the longest sequence that is accepted without
            --tile. Memory grows in proportion.
        tile: cut what is longer than this many bases into tiles of that length.
        overlap: bases that neighbouring tiles share at least; by default a quarter of --tile.
        batch_size: sequences, or tiles, in a forward pass; chosen for the device and the length by
            default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although regions or records are not on the genome
            (unknown_chrom, out_of_range).

    Raises:
        UserError: an input cannot be used, a sequence is too long, or regions are not on the genome
            (then the output is written first).
    """
    sequences, out = pathlib.Path(sequences), pathlib.Path(out)
    ending = check_output(out, embedding_files.FORMATS)
    if ending == ".h5ad" and pooling == "none":
        raise UserError("an AnnData file holds one vector a row: write --pooling none to .h5")
    if tile is not None and tile > max_length:
        raise UserError(f"--tile is {tile:,}, more than --max-length {max_length:,}: allow more")
    longest = None if tile is not None else max_length
    what, read = load_sequences(sequences, genome, window, edge, longest)
    use_cores()
    network, tokenizer = inference.load(model, dtype=dtype)
    frame = embeddings(
        network,
        read,
        tokenizer=tokenizer,
        pooling=pooling,
        pool_window=pool_window,
        strands=strands,
        layer=layer,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        show_progress=True,
    )
    provenance = {
        "model": str(model),
        "layer": inference.resolve_layer(network, layer),
        "pooling": pooling,
        "pool_window": pool_window,
        "strands": strands,
        "tile": tile,
        "overlap": None if tile is None else checked_overlap(tile, overlap),
        "dtype": dtype,
        "sequences": str(sequences),
        "genome": None if genome is None else str(genome),
        "version": __version__,
    }
    with replacing(out) as partial:
        embedding_files.write(frame, partial, ending, provenance)
    finish(what, read.columns["name"], read.status, out, genome, skip_bad)


def _frame(
    sequences: Sequences,
    vectors: Float[np.ndarray, "sequences channels"] | list[np.ndarray],
    channels: int,
) -> Any:
    import polars
    import pyarrow

    ok = sequences.status == Status.OK
    if isinstance(vectors, list):
        counts = np.zeros(len(ok), np.int64)
        counts[ok] = [len(tokens) for tokens in vectors]
        offsets = pyarrow.array(np.concatenate([[0], np.cumsum(counts)]))
        flat = np.concatenate([np.empty((0, channels), np.float32), *vectors])
        arrays = pyarrow.FixedSizeListArray.from_arrays(flat.reshape(-1), channels)
        column = pyarrow.LargeListArray.from_arrays(offsets, arrays, mask=pyarrow.array(~ok))
    else:
        flat = vectors
        if not ok.all():
            flat = np.zeros((len(ok), channels), np.float32)
            flat[ok] = vectors
        column = pyarrow.FixedSizeListArray.from_arrays(
            flat.reshape(-1), channels, mask=pyarrow.array(~ok)
        )
    frame = polars.DataFrame(row_columns(sequences))
    return frame.with_columns(polars.Series("embedding", column))
