"""`caduceus-jax attribute`: which bases matter to a model, as tables, tracks, arrays, a logo."""

import pathlib
from typing import Literal

import numpy as np
import polars

from caduceus_jax.devices import use_cores
from caduceus_jax.genomics import plots
from caduceus_jax.genomics.attribute import attributed_sequences, attribution, attribution_table
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_outputs
from caduceus_jax.genomics.options import Attribution
from caduceus_jax.genomics.reference.inputs import as_genome, is_path
from caduceus_jax.genomics.scoring.attribution_files import (
    FORMATS,
    check_attribution_files,
    write_attributions,
)
from caduceus_jax.genomics.scoring.journal import open_journal, run_record
from caduceus_jax.genomics.scoring.shards import finish, open_shard, shard_of
from caduceus_jax.genomics.status import summarise
from caduceus_jax.inference.loading import load


def attribute(
    model: str,
    sequences: str,
    *,
    out: list[pathlib.Path],
    genome: str | None = None,
    sequence: str = "sequence",
    options: Attribution = Attribution(),
    dtype: Literal["float32", "bfloat16"] = "float32",
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Attributes a language model's log-likelihood, or a fine-tuned model's output, to the bases.

    Of a language model it is the sum of the log-probabilities of all bases of a sequence, none of
    them masked; or, with --window, of the bases in its middle, which are masked together: what in
    their surroundings makes the model expect them. Of a classifier it is the log-odds of --output,
    of other fine-tuned models the value, and of a model of tracks the mean of the track.

    The methods are

      gradient_x_input      the gradient at the sequence, less its mean over the four bases: the
                            contribution of each base. One pass.
      gradient              the same, and as attribution of a base its Euclidean norm.
      integrated_gradients  the mean gradient on the way from a --baseline: the contributions of a
                            sequence add up to its output less the baseline's. --steps passes.
      mutagenesis           the outputs of all sequences with one base changed, less their mean
                            over the four bases. Exact; four passes per base.

    One computation writes any of these:
    a table (.parquet, .tsv), one row per base on the + strand: name, chrom (with --genome), pos
    (from 1), ref, status, attribution (that of ref), attribution_A, attribution_C, attribution_G,
    attribution_T (of each base if it were there), output, and output_baseline;
    a track (.bw, bigWig) of the attribution, the mean where several sequences have a base;
    arrays (.npz) for TF-MoDISco, of sequences of one length: X.npz has the contributions, X.one_hot
    .npz the sequences, (sequences, 4, bases) each;
    a picture (.png, .svg, .pdf) of one sequence of at most 1,000 bases: a logo of the attributions.

    An equivariant model's attributions do not depend on the strand that is given (with --window:
    where it and the sequence both have odd, or both even, numbers of bases).

    What is computed is kept in a journal beside the first output (OUT.journal) until the outputs
    are written: the same command continues a run that was interrupted.

    examples:
      caduceus-jax attribute runs/quickstart chr22:19,710,790-19,711,174 --genome hg19.fa \\
          --method integrated_gradients --out gp1bb.png gp1bb.tsv
      caduceus-jax attribute runs/enhancers/seed-1/model peaks.bed --genome hg38.fa \\
          --context-length 1024 --output LABEL_1 --out peaks.npz peaks.bw
      caduceus-jax attribute runs/enhancers/seed-1/model promoters.fa --method mutagenesis \\
          --out promoters.parquet

    Args:
        model: folder of a model, of a pretraining run or of a fine-tuned model, or a hub id such
            as owner/name.
        sequences: FASTA (plain or gzip), or a table with a column of sequences (.tsv, .csv,
            .parquet). With --genome: BED or VCF, or a region as genome browsers write it,
            chr22:30,000,001-30,000,200 (from 1, the last base included). A pipe may be named, and
            - is standard input.
        out: files to write, one or more: .parquet, .tsv, .tsv.gz, .bw, .npz, .png, .svg or .pdf.
            They appear when all are complete.
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
        UserError: an input cannot be used, an output cannot hold the attributions, or regions are
            not on the genome (then the outputs are written first).
    """
    part = shard_of(shard, "attribute", locals(), [sequences])
    outputs = check_outputs(out, FORMATS, [sequences, genome])
    reference = None if genome is None else as_genome(genome)
    region = reference is not None and not is_path(sequences)
    read = None if region else Input(sequences)
    rows = attributed_sequences(read or sequences, reference, options, sequence=sequence)
    check_attribution_files(outputs, rows, reference, plots.MOST_BASES)
    use_cores()
    m = load(model, dtype)
    record = run_record(
        m,
        "attribute",
        options=options,
        sequences=sequences if read is None else read.digest(),
        column=sequence,
        genome=None if reference is None else reference.identity,
    )

    def draw(frame: polars.DataFrame, path: pathlib.Path, ending: str) -> None:
        figure = plots.draw_attribution(frame, model=plots.short_name(model), method=options.method)
        with path.open("wb") as file:
            figure.savefig(file, format=ending[1:])

    first = next(iter(outputs))
    if part is not None:
        with open_shard(part, first, record, restart=restart) as journal:
            run = {"journal": journal, "progress": True, "of_shards": part.numbers}
            finish(attribution(m, rows, options, **run)[1])
        return
    with open_journal(first.with_name(f"{first.name}.journal"), record, restart=restart) as journal:
        _, parts = attribution(m, rows, options, journal=journal, progress=True)
        write_attributions(
            outputs,
            parts,
            rows,
            reference,
            table=lambda some, found: attribution_table(rows, some, found, options),
            draw=draw,
        )
    names = rows.frame["name"].to_list()
    summarise(rows.what, names, np.asarray(rows.status), list(outputs), genome, skip_bad=skip_bad)
