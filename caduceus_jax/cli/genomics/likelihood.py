"""`caduceus-jax likelihood`: masked probabilities of every base, as tables and tracks."""

import contextlib
import pathlib
from typing import Literal, get_args

from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.genome_wide.writing import compute_store, wants_store
from caduceus_jax.genomics.likelihood import Track, likelihood_tables, track_values
from caduceus_jax.genomics.options import Masking
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.per_base_files import (
    FORMATS,
    check_track_files,
    computed_bases,
    region_inputs,
    summarise_bases,
    write_bases,
)
from caduceus_jax.genomics.scoring.shards import shard_of


def likelihood(
    model: str,
    regions: str,
    *,
    genome: str,
    out: list[pathlib.Path],
    track: Literal["logp", "entropy", "information", "all"] = "logp",
    options: Masking = Masking(),
    dtype: Literal["float32", "bfloat16"] = "float32",
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Masks each base of regions in turn and writes what the model predicts there.

    A table has one row per base, region by region in the order given: chrom, pos (from 1), ref,
    status, logp_A, logp_C, logp_G, logp_T (natural logarithms of the probabilities given the
    sequence around the masked base), logp (that of ref) and entropy (in bits, of the four
    probabilities made to sum to 1: 0 where the model is certain, 2 where it knows nothing). The
    status is ok; ambiguous, where the genome has N; crosses_edge, with --edge drop; or
    unknown_chrom or out_of_range, in the one row of a region that is not on the genome. The other
    columns are empty then. A bigWig file has the value of one of the columns logp and entropy, or
    the information, 2 bits - entropy, for each base that has one, whatever the number of regions
    it is in. How to read them:
    https://caduceus-jax.github.io/caduceus-jax/reading-scores/

    A store (.zarr) has the four logarithms at every base as float16, 8 bytes per known base, in
    one file for each contig: score-variants --scores answers from it, Zarr's readers read it, and
    in Python cj.ScoreStore. It is what to write for whole genomes, with several --masks-per-pass.
    The command first says what it will take: passes, time and disk.

    Contigs of any length: memory does not grow with them. 16 bytes per base are kept beside the
    first output while the command runs, and as many in a journal (OUT.journal): the same command
    continues a run that was interrupted. For a store that is 8 bytes in the journal alone.

    examples:
      caduceus-jax likelihood runs/quickstart chr22:30,000,001-30,002,000 --genome hg38.fa \\
          --out region.tsv
      caduceus-jax likelihood runs/quickstart genes.bed --genome hg38.fa \\
          --out genes.parquet genes.bw
      caduceus-jax likelihood runs/quickstart all --genome phage.fa --track all --out phage.bw
      caduceus-jax likelihood runs/quickstart all --genome phage.fa --masks-per-pass 8 \\
          --out phage.zarr

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        regions: BED file (from 0, the end not included; - is standard input); or a region as genome
            browsers write it, chr22:30,000,001-30,002,000 (from 1, the last base included), or a
            contig's name, or all: every contig.
        genome: FASTA, plain or bgzip (its index, .fai, is made where it is missing), or a folder of
            `caduceus-jax prepare`.
        out: files to write, one or more: .parquet, .tsv, .tsv.gz or .bw (bigWig); or a store,
            .zarr, alone. They appear when all are complete.
        track: values in bigWig files: logp, entropy or information; all writes three files, and
            X.bw becomes X.logp.bw, X.entropy.bw and X.information.bw.
        options: the verb's options.
        dtype: type of matrix products and activations.
        restart: start over instead of continuing an interrupted run.
        shard: compute one of several parts, I/N (2/4 is the second of four), of about equal work,
            into OUT.shard-I-of-N, which caduceus-jax merge joins; auto takes I and N from SLURM's
            job array or tasks, or from JAX_PROCESS_ID and JAX_NUM_PROCESSES.
        skip_bad: exit with status 0 although regions are not on the genome.

    Raises:
        UserError: an input cannot be used, a store of that name is another run's, or regions are
            not on the genome (then the outputs are written first).
    """
    part = shard_of(shard, "likelihood", locals(), [regions])
    if wants_store(out):
        reference = Genome(genome)
        how = {"dtype": dtype, "out": out[0], "restart": restart, "shard": part}
        places = region_inputs(regions, reference)
        compute_store(model, places, reference, options, skip_bad=skip_bad, **how)
        return
    outputs = check_outputs(out, FORMATS, (regions, genome))
    tracks: tuple[Track, ...] = get_args(Track) if track == "all" else (track,)
    files = check_track_files(outputs, tracks)
    reference = Genome(genome)
    places = region_inputs(regions, reference)
    common = {"dtype": dtype, "out": next(iter(outputs)), "restart": restart, "shard": part}
    with computed_bases("likelihood", model, places, reference, options, **common) as results:
        if part is not None:
            return
        with contextlib.ExitStack() as whole:
            for path, ending, name in files:
                partial = whole.enter_context(replacing(path))
                write_bases(
                    partial,
                    ending,
                    results,
                    likelihood_tables,
                    lambda chunk, name=name: track_values(chunk, name),
                )
    summarise_bases(results, [path for path, _, _ in files], skip_bad=skip_bad)
