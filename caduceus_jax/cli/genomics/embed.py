"""`caduceus-jax embed`: sequences, regions or variants' surroundings as vectors in a file."""

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.embed import embedded_sequences, embedding, read_states
from caduceus_jax.genomics.files.embedding_files import FORMATS, embedding_writer
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.reference.inputs import as_genome
from caduceus_jax.genomics.scoring.embeddings import checked_overlap
from caduceus_jax.genomics.scoring.journal import open_journal, run_record
from caduceus_jax.genomics.scoring.shards import finish, open_shard, shard_of
from caduceus_jax.genomics.status import summarise
from caduceus_jax.inference.embeddings import Reading
from caduceus_jax.inference.loading import load
from caduceus_jax.version import __version__


def embed(
    model: str,
    sequences: str,
    *,
    out: pathlib.Path,
    genome: str | None = None,
    sequence: str = "sequence",
    options: Embedding = Embedding(),
    dtype: Literal["float32", "bfloat16"] = "float32",
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Embeds DNA: one vector per sequence, or one per base.

    Sequences are the records of a FASTA file, the rows of a table or, with --genome, the regions of
    a BED file or the surroundings of a VCF file's records. They may differ in length, and no vector
    depends on the others.

    Every record comes out, in its place. The columns are, for a FASTA file or a table: name,
    length, status, embedding; for a BED file: name, chrom, start, end (as given), window_start,
    window_end (what was embedded), padding (bases of it beyond the contig, read as N), status,
    embedding; for a VCF file the same with pos (1-based, as given) for start and end, and with
    chrom:pos as the name where the record has no ID. All other positions are 0-based half-open. The
    status is ok, or why a row has none (unknown_chrom, out_of_range, crosses_edge): null in
    a parquet file, NaN elsewhere.

    Both strands are read and averaged by default. With --rc-mode none, or --concatenate, a region
    on the - strand of a BED file is read as its 5' to 3', and there is a column strand.

    With --pooling none a parquet file has a list of vectors in each row; npz and HDF5 files have
    all rows' vectors one after the other, those of row i from offsets[i] to offsets[i + 1]. An
    AnnData file has the embeddings in X, the other columns in obs under unique names, and what
    made it in uns.

    Contigs of any length: --tile 32768 cuts what is longer into tiles of that many bases that
    overlap (--overlap) and lie symmetrically. Each base's vector is from the tile in which it lies
    most centrally, and the mean counts each base once; center and window are read from a tile
    around the middle.

    What is computed is kept in a journal beside the output (OUT.journal) until the output is
    written: the same command continues a run that was interrupted.

    examples:
      caduceus-jax embed runs/quickstart reads.fa --out reads.parquet
      caduceus-jax embed runs/quickstart peaks.bed --genome hg38.fa --context-length 1023 \\
          --out peaks.h5ad
      caduceus-jax embed runs/quickstart calls.vcf.gz --genome hg38.fa --context-length 1023 \\
          --pooling window --window 64 --out calls.npz
      caduceus-jax embed runs/quickstart chrM.fa --tile 8192 --pooling none --out chrM.h5

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        sequences: FASTA (plain or gzip), table with a column of sequences (.tsv, .csv, .parquet)
            or, with --genome, BED (plain or gzip) or VCF (plain, gzip, bgzip or BCF). A pipe may be
            named, and - is standard input.
        out: file to write: .parquet, .npz, .h5 or .hdf5 (HDF5), or .h5ad (AnnData). It appears
            when it is complete.
        genome: the genome that regions and records lie on: FASTA, plain or bgzip (its index, .fai,
            is made where it is missing), or a folder of `caduceus-jax prepare`.
        sequence: column of a table that has the sequences.
        options: the verb's options.
        dtype: type of matrix products and activations.
        restart: start over instead of continuing an interrupted run.
        shard: compute one of several parts, I/N (2/4 is the second of four), of about equal work,
            into OUT.shard-I-of-N, which caduceus-jax merge joins; auto takes I and N from SLURM's
            job array or tasks, or from JAX_PROCESS_ID and JAX_NUM_PROCESSES.
        skip_bad: exit with status 0 although regions or records are not on the genome
            (unknown_chrom, out_of_range).

    Raises:
        UserError: an input cannot be used, a sequence is too long, or regions are not on the genome
            (then the output is written first).
    """
    part = shard_of(shard, "embed", locals(), [sequences])
    ending = check_outputs(out, FORMATS, [sequences, genome])[out]
    if ending == ".h5ad" and options.pooling == "none":
        raise UserError("an AnnData file holds one vector per row: write pooling none to .h5")
    read = Input(sequences)
    reference = None if genome is None else as_genome(genome)
    # Before the model is loaded: an input that cannot be used is found out at once.
    forward = options.rc_mode == "none" or options.concatenate
    rows = embedded_sequences(read, reference, options, oriented=forward, sequence=sequence)
    use_cores()
    m = load(model, dtype)
    how = read_states(m, options)
    record = run_record(
        m,
        "embed",
        options=options,
        sequences=read.digest(),
        column=sequence,
        genome=None if reference is None else reference.identity,
    )
    made = _provenance(model, sequences, genome, options, how, dtype)
    if part is not None:
        with open_shard(part, out, record, restart=restart) as journal:
            run = {"journal": journal, "progress": True, "of_shards": part.numbers}
            finish(embedding(m, rows, options, how, **run)[1])
        return
    with open_journal(out.with_name(f"{out.name}.journal"), record, restart=restart) as journal:
        work, parts = embedding(m, rows, options, how, journal=journal, progress=True)
        with replacing(out) as partial, embedding_writer(partial, ending, made) as write:
            write(work.empty())
            for part in parts:
                write(part.frame)
    names = rows.frame["name"].to_list()
    summarise(rows.what, names, np.asarray(rows.status), [out], genome, skip_bad=skip_bad)


def _provenance(
    model: str, sequences: str, genome: str | None, options: Embedding, how: Reading, dtype: str
) -> dict[str, Any]:
    return {
        "model": model,
        **dataclasses.asdict(options),
        "layer": how.n_blocks,
        "overlap": checked_overlap(options),
        "dtype": dtype,
        "sequences": sequences,
        "genome": genome,
        "version": __version__,
    }
