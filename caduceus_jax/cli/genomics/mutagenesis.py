"""`caduceus-jax mutagenesis`: every single-base change of regions, as tables, tracks, pictures."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics import plots
from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.files.table_files import TABLES
from caduceus_jax.genomics.finetuned.mutations import Track, mutations
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.mutagenesis import mutagenesis_tables, track_values
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.per_base import BaseChunk, PerBase, per_base
from caduceus_jax.genomics.scoring.per_base_files import (
    FORMATS,
    computed_bases,
    region_inputs,
    summarise_bases,
    write_bases,
)
from caduceus_jax.genomics.scoring.shards import shard_of
from caduceus_jax.inference.loading import Pretrained
from caduceus_jax.model.heads import CaduceusForMaskedLM

_PICTURES: dict[str, str | None] = dict.fromkeys((".png", ".svg", ".pdf"), "matplotlib")


def mutagenesis(
    model: str,
    regions: str,
    *,
    genome: str,
    out: list[pathlib.Path],
    track: Track = "mean",
    strand: Literal["+", "-"] = "+",
    output: str | None = None,
    options: Masking = Masking(),
    dtype: Literal["float32", "bfloat16"] = "float32",
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Scores every single-base change of regions: in-silico saturation mutagenesis.

    The score is that of score-variants. Of a language model it is log p(alt) - log p(ref) where
    the base is masked, given the sequence around it: negative scores mean that the change is less
    expected there than the genome's base. Of a fine-tuned model it is what the change does to the
    model's outputs for the --context-length bases around it, in the columns of score-variants.
    How to read scores: https://caduceus-jax.github.io/caduceus-jax/reading-scores/

    One computation writes any of these:
    a table (.parquet, .tsv), three rows per base: chrom, pos (from 1), ref, alt, status, scores. An
    N of the genome has one row without alt, with the status ambiguous;
    a track (.bw, bigWig), one value per base: the mean of its three scores, or the minimum;
    a picture (.png, .svg, .pdf) of one region of at most 1,000 bases: a heat map of all changes
    under a logo, with positions from 1. The logo shows what a language model predicts, and of a
    fine-tuned model how much each base adds to its output: minus the mean of the three changes.
    Tracks and pictures of a fine-tuned model are of one --output: log-odds of a class, a value, or
    the mean of a track.

    What is computed is kept in a journal beside the first output (OUT.journal) until the outputs
    are written: the same command continues a run that was interrupted.

    examples:
      caduceus-jax mutagenesis runs/quickstart chr22:19,710,790-19,711,174 --genome hg19.fa \\
          --out gp1bb.parquet gp1bb.bw gp1bb.png
      caduceus-jax mutagenesis runs/quickstart promoter_7 --genome promoters.fa --out promoter_7.svg
      caduceus-jax mutagenesis runs/enhancers/seed-1/model chr22:19,710,790-19,711,174 \\
          --genome hg19.fa --output 1 --out enhancer.tsv enhancer.png
      caduceus-jax mutagenesis runs/quickstart exons.bed --genome hg38.fa --out exons.parquet

    Args:
        model: folder of a model, of a pretraining run or of a fine-tuned model, or a hub id such as
            owner/name.
        regions: a region as genome browsers write it, chr22:30,000,001-30,002,000 (from 1, the last
            base included); the name of a contig, or of a sequence in a FASTA file; all: every one
            of them; or a BED file (from 0, the end not included; - is standard input).
        genome: FASTA, plain or bgzip (its index, .fai, is made where it is missing), or a folder of
            `caduceus-jax prepare`.
        out: files to write, one or more: .parquet, .tsv, .tsv.gz, .bw, .png, .svg or .pdf. They
            appear when all are complete.
        track: values in a bigWig file: the mean of a base's three scores, whose negative is how
            much the genome's base is preferred, or the minimum, the score of its most harmful
            change.
        strand: draw the picture as this strand is read, from its 5' end. Tables and tracks are of
            the + strand.
        output: name or number (from 0) of the class, value or track of a fine-tuned model that
            tracks and pictures show; by default the only one, or the second of two.
        options: the verb's options.
        dtype: type of matrix products and activations.
        restart: start over instead of continuing an interrupted run.
        shard: compute one of several parts, I/N (2/4 is the second of four), of about equal work,
            into OUT.shard-I-of-N, which caduceus-jax merge joins; auto takes I and N from SLURM's
            job array or tasks, or from JAX_PROCESS_ID and JAX_NUM_PROCESSES.
        skip_bad: exit with status 0 although regions are not on the genome.

    Raises:
        UserError: an input cannot be used, a picture would show several regions or too long a one,
            or regions are not on the genome (then the outputs are written first).
    """
    part = shard_of(shard, "mutagenesis", locals(), [regions])
    outputs = check_outputs(out, FORMATS | _PICTURES, (regions, genome))
    reference = Genome(genome)
    places = region_inputs(regions, reference)
    if any(ending in _PICTURES for ending in outputs.values()):
        _check_drawable(places[0], reference)
    common = {"dtype": dtype, "out": next(iter(outputs)), "restart": restart, "shard": part}
    shown = any(ending not in TABLES for ending in outputs.values())
    common["compute"] = functools.partial(_changes, output=output, shown=shown, track=track)
    with computed_bases("mutagenesis", model, places, reference, options, **common) as changes:
        if part is not None:
            return
        with contextlib.ExitStack() as whole:
            for path, ending in outputs.items():
                partial = whole.enter_context(replacing(path))
                if ending in _PICTURES:
                    _draw(partial, ending, changes, strand, plots.short_name(model))
                else:
                    write_bases(
                        partial,
                        ending,
                        changes.bases,
                        lambda _: changes.tables(),
                        changes.track_values,
                    )
    summarise_bases(changes.bases, list(outputs), skip_bad=skip_bad)


class _Changes(NamedTuple):
    """Holds what is written, of a language model or of a fine-tuned one."""

    bases: PerBase
    tables: Callable[[], Iterator[polars.DataFrame]]
    track_values: Callable[[BaseChunk], np.ndarray]
    column: str  # of the table, which pictures show


def _changes(
    m: Pretrained,
    genome: Genome,
    regions: Intervals,
    options: Masking,
    *,
    output: str | None,
    shown: bool,
    track: Track,
    folder: pathlib.Path,
    **run: Any,
) -> _Changes:
    if isinstance(m.model, CaduceusForMaskedLM):
        if output is not None:
            raise UserError("output is for fine-tuned models: a language model has its likelihood")
        found = per_base(m, genome, regions, options, folder=folder, **run)
        tables, values = mutagenesis_tables, track_values
        return _Changes(found, lambda: tables(found), functools.partial(values, track=track), "llr")
    # An output that is not there, or is missing, is found out before the work.
    wanted = output is not None or shown
    column = Outputs.of(m).column(output) if wanted else Outputs.of(m).columns[0]
    changed = mutations(m, genome, regions, options, **run)
    values = functools.partial(changed.track_values, column=column, track=track)
    return _Changes(changed.bases, changed.tables, values, column)


def _draw(
    path: pathlib.Path, ending: str, changes: _Changes, strand: Literal["+", "-"], model: str
) -> None:
    frame = polars.concat(changes.tables())
    figure = plots.draw_mutagenesis(frame, strand=strand, model=model, column=changes.column)
    with path.open("wb") as file:
        figure.savefig(file, format=ending[1:])


def _check_drawable(regions: Intervals, genome: Genome) -> None:
    if len(regions.start) != 1:
        raise UserError(
            f"a picture shows one region, and there are {len(regions.start):,}: name one, like "
            "chr22:30,000,001-30,002,000"
        )
    (contig,) = genome.contigs(regions.chrom).tolist()
    end = min(int(regions.end[0]), int(genome.lengths[contig]))
    plots.check_length(end - int(regions.start[0]))
