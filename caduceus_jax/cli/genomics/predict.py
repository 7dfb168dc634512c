"""`caduceus-jax predict`: what a fine-tuned model predicts, as a table or as tracks."""

import pathlib
from collections import Counter
from typing import Literal

import numpy as np

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.files.table_files import TABLES, check_columns, table_writer
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.finetuned.track_files import TRACK, track_files, write_tracks
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.genomics.predict import predicted_sequences, prediction, with_predictions
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import as_genome
from caduceus_jax.genomics.scoring.journal import open_journal, run_record
from caduceus_jax.genomics.scoring.shards import finish, open_shard, shard_of
from caduceus_jax.genomics.status import summarise
from caduceus_jax.inference.loading import Pretrained, load
from caduceus_jax.model.tracks import CaduceusForTracks


def predict(
    model: str,
    sequences: str,
    *,
    out: pathlib.Path,
    genome: str | None = None,
    sequence: str = "sequence",
    options: Prediction = Prediction(),
    dtype: Literal["float32", "bfloat16"] = "float32",
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Predicts classes with their probabilities, values, or tracks, with a fine-tuned model.

    Sequences are the records of a FASTA file, the rows of a table or, with --genome, the regions of
    a BED file (on the - strand, as its 5' to 3') or the surroundings of a VCF file's records. Every
    record comes out, in its place, with a table's own columns, or those that `caduceus-jax embed`
    gives, and: of a classifier, predicted (the most probable class) and p_CLASS, the probability of
    each class; otherwise the values, as predicted_NAME. They are empty where the status is not ok
    (unknown_chrom, out_of_range, crosses_edge).

    A model of tracks gives a value for each of its bins: in a table, one row per bin with name,
    chrom, start and end (from 0, the end not included), status and predicted_TRACK; or, with
    --genome, in a bigWig file (.bw), which has the genome's contigs; OUT.TRACK.bw for each of
    several tracks. A region is read as it is, from its first base on and completed to whole bins at
    its end, or as the --context-length bases around its middle. One that is longer than that, or
    than the model was trained on, is read in windows that overlap by half, and each bin is taken
    from the window in whose middle it lies nearest. Where regions overlap, a bigWig file has the
    mean of their bins over each base.

    What is computed is kept in a journal beside the output (OUT.journal) until the output is
    written: the same command continues a run that was interrupted.

    examples:
      caduceus-jax predict runs/splice/seed-1/model reads.fa --out reads.tsv
      caduceus-jax predict runs/splice/seed-1/model table.csv --sequence bases --out table.tsv
      caduceus-jax predict runs/enhancers/seed-1/model peaks.bed --genome hg38.fa \\
          --context-length 500 --out peaks.parquet
      caduceus-jax predict runs/accessibility/seed-1/model peaks.bed --genome hg38.fa --out peaks.bw

    Args:
        model: folder of a fine-tuned model, which `caduceus-jax finetune` wrote, or of another
            classifier.
        sequences: FASTA (plain or gzip), table (.csv or .tsv, plain or gzip, or .parquet) or, with
            --genome, BED (plain or gzip) or VCF (plain, gzip, bgzip or BCF). A pipe may be named,
            and - is standard input.
        out: file to write: .tsv, .tsv.gz, .parquet or, of tracks, .bw (bigWig). It appears when it
            is complete.
        genome: the genome that regions and records lie on: FASTA, plain or bgzip (its index, .fai,
            is made where it is missing), or a folder of `caduceus-jax prepare`.
        sequence: column of a table that has the sequences.
        options: the verb's options.
        dtype: type of matrix products and activations.
        restart: start over instead of continuing an interrupted run.
        shard: compute one of several parts, I/N (2/4 is the second of four), of about equal work,
            into OUT.shard-I-of-N, which caduceus-jax merge joins; auto takes I and N from SLURM's
            job array or tasks, or from JAX_PROCESS_ID and JAX_NUM_PROCESSES.
        skip_bad: exit with status 0 although regions or records are not on the genome.

    Raises:
        UserError: an input cannot be used, or regions are not on the genome (then the output is
            written first).
    """
    part = shard_of(shard, "predict", locals(), [sequences])
    ending = check_outputs(out, TABLES | {TRACK: "pyBigWig"}, [sequences, genome])[out]
    use_cores()
    m = load(model, dtype)
    read = Input(sequences)
    reference = None if genome is None else as_genome(genome)
    _check_track(m, ending, reference)
    record = run_record(
        m,
        "predict",
        options=options,
        sequences=read.digest(),
        column=sequence,
        genome=None if reference is None else reference.identity,
    )
    if isinstance(m.model, CaduceusForTracks):
        kept = {"part": part, "restart": restart}
        given = (read, reference, options, record, out, ending)
        places = write_tracks(m, *given, column=sequence, **kept)
        if places is not None:
            files = track_files(out, ending, Outputs.of(m).names)
            summarise(places.what, places.name, places.status, [*files], genome, skip_bad=skip_bad)
        return
    rows, table = predicted_sequences(read, reference, options, sequence=sequence)
    if table is not None:
        check_columns(table, out)
    counts: Counter[str] = Counter()
    if part is not None:
        with open_shard(part, out, record, restart=restart) as journal:
            run = {"journal": journal, "progress": True, "of_shards": part.numbers}
            finish(prediction(m, rows, options, **run)[1])
        return
    with open_journal(out.with_name(f"{out.name}.journal"), record, restart=restart) as journal:
        work, parts = prediction(m, rows, options, journal=journal, progress=True)
        with replacing(out) as partial, table_writer(partial, ending) as write:
            frame = work.empty()
            write(frame if table is None else with_predictions(table[:0], frame, work))
            for rows_done, frame in parts:
                if "predicted" in frame.columns:
                    counts.update(frame["predicted"].drop_nulls().to_list())
                some = None if table is None else table[rows_done.start : rows_done.stop]
                write(frame if some is None else with_predictions(some, frame, work))
    for label, count in sorted(counts.items()):
        print(f"{label}\t{count:,}")
    names = rows.frame["name"].to_list()
    summarise(rows.what, names, np.asarray(rows.status), [out], genome, skip_bad=skip_bad)


def _check_track(m: Pretrained, ending: str, genome: Genome | None) -> None:
    """Refuses a bigWig file of what has no place on a genome."""
    if ending != TRACK:
        return
    if not isinstance(m.model, CaduceusForTracks):
        raise UserError(
            "out is a bigWig file, which is for models of tracks, and this one predicts for whole "
            "sequences: name a .tsv or .parquet file"
        )
    if genome is None:
        raise UserError("out is a bigWig file, which has the contigs of a genome: pass `genome`")
