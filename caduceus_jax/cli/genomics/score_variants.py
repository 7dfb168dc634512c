"""`caduceus-jax score-variants`: the variants of a file scored, in the same kind of file."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import polars

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.files.table_files import check_columns, table_writer
from caduceus_jax.genomics.files.variant_tables import vcf_lines
from caduceus_jax.genomics.files.vcf import Vcf, write_vcf
from caduceus_jax.genomics.files.vcf_index import index_vcf, remove_indexes
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.genes.columns import GeneColumns
from caduceus_jax.genomics.genome_wide.background import Background
from caduceus_jax.genomics.genome_wide.comparison import Comparison
from caduceus_jax.genomics.genome_wide.lookup import open_scores
from caduceus_jax.genomics.genome_wide.phased import Phased
from caduceus_jax.genomics.options import Mode, VariantScoring, fitted
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import VariantSource, as_variants
from caduceus_jax.genomics.score_variants import scored_table, scoring
from caduceus_jax.genomics.scoring.journal import open_journal, run_record
from caduceus_jax.genomics.scoring.shards import finish, open_shard, shard_of
from caduceus_jax.genomics.scoring.variant_fields import (
    combined,
    declarations,
    fields_of,
    haplotypes_of,
    info_of_records,
    quantiles_of,
)
from caduceus_jax.genomics.status import Status, summarise, tell_how_to_read_scores
from caduceus_jax.inference.blocks import Part
from caduceus_jax.inference.loading import Pretrained, load
from caduceus_jax.version import __version__

_FORMATS: dict[str, str | None] = {
    ".vcf": None,
    ".vcf.gz": "pysam",
    ".parquet": "pyarrow",
    ".tsv": "polars",
    ".tsv.gz": "polars",
}


def score_variants(
    model: str,
    variants: str,
    *,
    genome: str,
    out: pathlib.Path,
    mode: Mode | None = None,
    options: VariantScoring = VariantScoring(),
    scores: pathlib.Path | None = None,
    background: Background = Background(),
    gtf: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tabix: bool = False,
    restart: bool = False,
    shard: str | None = None,
    skip_bad: bool = False,
) -> None:
    """Scores the variants of a VCF, or of a table, with a model.

    There are four modes:

      llr        log p(ALT) - log p(REF): the changed bases are masked, and the model is asked for
                 REF's and ALT's given the sequence around them. One forward pass serves all ALTs
                 of a position. For substitutions of one or several bases; insertions and deletions
                 have no base to compare and get the status indel: use one of the other modes.
      pll        pseudo-log-likelihood ratio: every base of a --window around the variant is masked
                 in turn, in the sequence with REF and in the one with ALT; the sum of log p over
                 ALT's window minus that over REF's. Takes --window forward passes for each
                 allele. For insertions and deletions too.
      embedding  distance between the mean embeddings of the --window with ALT and with REF,
                 Euclidean (l2) and cosine (1 - cos). For insertions and deletions too.
      output     of a fine-tuned model: its output for the --context-length bases with ALT minus
                 that with REF. Two passes for a variant. For insertions and deletions too.

    Negative llr and pllr mean that ALT is less expected there than REF. No threshold separates
    harmless from harmful; which comparisons are honest, and how much context to give:
    https://caduceus-jax.github.io/caduceus-jax/reading-scores/

    The model always sees --context-length bases with the allele in the middle, REF's or ALT's:
    more of the genome on both sides makes up for a deletion. What REF and ALT share at their ends
    does not belong to the allele; an insertion or deletion within a repeat covers all of the repeat
    that it can be moved in (up to the context's length on either side), wherever the VCF puts it.
    So the score depends neither on how the variant is written nor on the strand of the genome.
    (With an odd --context-length, and with an odd --window. Where an allele of an even number of
    bases leaves one base more on one side, the alphabetical order of both strands decides on which,
    so that both decide alike. A base that is the window's middle has the 0-based index
    context_length // 2.)

    Of a VCF or BCF the modes pll, embedding and output also score <DEL>, <DUP> (in tandem), <INV>
    and <INS>, as the same alleles written in bases: INFO has the length of the first three, END or
    SVLEN, and what <INS> inserts, SEQ or SVINSSEQ. POS is the base before. In mode llr they have
    the status indel.

    Every record comes out, in its place, with a status for each ALT: ok, or why it has no score
    (indel, too_long: more changed bases than the window or the context has, symbolic: a breakend or
    a symbol whose length or bases INFO does not have, spanning_deletion, missing_alt, ambiguous:
    bases other than A, C, G, T, also where N leaves the windows of pll with different numbers of
    bases, ref_mismatch, unknown_chrom, out_of_range, crosses_edge). A VCF gets the INFO fields
    CADUCEUS_LLR, CADUCEUS_PLLR, or CADUCEUS_L2 and CADUCEUS_COSINE; CADUCEUS_STATUS_LLR,
    CADUCEUS_STATUS_PLL or CADUCEUS_STATUS_EMBEDDING; and CADUCEUS_STATUS, which is ok where any of
    the modes that have been run has a score. Tables get the columns status and llr, pllr, or l2 and
    cosine, one row per ALT, besides chrom, pos (from 1), ref, alt. Fields of an earlier run in
    another mode stay.

    A fine-tuned model reads strands as in predict, and gives these columns (INFO fields, in capital
    letters, after CADUCEUS_; and CADUCEUS_STATUS_OUTPUT): of each class difference_p_CLASS, its
    probability with ALT minus that with REF, and log_odds_ratio_CLASS, the same of its log-odds; of
    each value difference_NAME, in the units of the values; of each track difference_NAME, the mean
    over all bins of the context, and largest_difference_NAME, that of the bin where it is largest
    in size.

    With --scores single-base substitutions are looked up in a store that likelihood wrote
    (--out NAME.zarr), many thousands per second, and what it does not have is computed: every row
    has the status that it has without a store, and scores differ by what the store's float16 and
    its --masks-per-pass cost. The store must be of this model, genome, --context-length and --edge.

    With --null matched each single-base substitution is compared with random ones like it, which
    are scored in the same run: the share that scores lower goes into the columns llr_quantile,
    pllr_quantile, or l2_quantile and cosine_quantile (CADUCEUS_LLR_QUANTILE, ...), and half of the
    share that scores the same. Insertions, deletions and changes of several bases have none.

    With --phased the variants of a haplotype of the --sample of a VCF that fit into a --window are
    scored together, as one change: GT says on which haplotype each is (0|1; 1/1 is on both), PS
    which haplotypes belong together. Each row gets the score of its group on haplotype 1 and on
    haplotype 2 (llr_haplotype_1, ...; CADUCEUS_LLR_HAPLOTYPE_1), none where the haplotype does not
    have ALT. More statuses: unphased, not_carried, conflict (another change of the haplotype
    overlaps this one). What does not fit into one window is parted at its widest gaps.

    With --gtf each row gets gene, that POS lies in, or whose transcription start site (TSS) is the
    nearest; region, the first that holds of CDS, UTR, exon, intron, upstream (up to 2,000 bases
    before a TSS) and intergenic; tss_gene, the gene of the nearest TSS; and tss_distance, the bases
    from it, negative upstream (CADUCEUS_GENE, ... in a VCF). Of several genes with the same region
    the first in the alphabet counts. summarise sums up the scores of each gene or region.

    What is computed is kept in a journal beside the output (OUT.journal) until the output is
    written: the same command continues a run that was interrupted, to the very bytes that it would
    have written.

    examples:
      caduceus-jax score-variants runs/quickstart calls.vcf.gz --genome hg38.fa \\
          --out scored.vcf.gz --tabix
      caduceus-jax score-variants runs/quickstart indels.tsv --genome hg38.fa --mode pll \\
          --out scored.tsv
      caduceus-jax score-variants runs/enhancers/seed-1/model calls.vcf.gz --genome hg38.fa \\
          --out effects.tsv
      caduceus-jax score-variants runs/quickstart calls.vcf.gz --genome hg38.fa --null matched \\
          --null-size 20 --context-length 127 --out ranked.tsv
      caduceus-jax score-variants runs/quickstart calls.vcf.gz --genome hg38.fa \\
          --context-length 127 --gtf genes.gtf.gz --out with_genes.tsv
      bcftools view -r chr22 calls.bcf | caduceus-jax score-variants runs/quickstart - \\
          --genome hg38.fa --out chr22.parquet

    Args:
        model: folder of a model, of a pretraining run or of a fine-tuned model, or a hub id such as
            owner/name.
        variants: VCF (plain, gzip or bgzip), BCF, or a table with the columns chrom, pos (from 1),
            ref and alt, one row per ALT, further columns stay: .parquet, .tsv or .csv (plain or
            gzip). A pipe may be named, and - is standard input.
        genome: the reference the variants were called on: FASTA, plain or bgzip (its index, .fai,
            is made where it is missing), or a folder of `caduceus-jax prepare`.
        out: file to write: .vcf, .vcf.gz (bgzip), .parquet, .tsv or .tsv.gz. It appears when it
            is complete. A VCF written from a table has the four columns alone.
        mode: llr, pll, embedding or output, as described above; by default llr of a language model
            and output of a fine-tuned one.
        options: the verb's options.
        scores: store of likelihood, for mode llr.
        background: settings of the background.
        gtf: annotation of genes: GTF or GFF3, plain or gzip.
        dtype: type of matrix products and activations.
        tabix: also write the index of a .vcf.gz: .tbi, or .csi where a contig has more than 2^29
            bases; the records must be sorted.
        restart: start over instead of continuing an interrupted run.
        shard: compute one of several parts, I/N (2/4 is the second of four), of about equal work,
            into OUT.shard-I-of-N, which caduceus-jax merge joins; auto takes I and N from SLURM's
            job array or tasks, or from JAX_PROCESS_ID and JAX_NUM_PROCESSES.
        skip_bad: exit with status 0 although variants are not on the genome (unknown_chrom,
            out_of_range).

    Raises:
        UserError: an input cannot be used, REF differs too often, the journal is another run's,
            or, with everything written, records are not sorted (--tabix) or variants are not on
            the genome.
    """
    part = shard_of(shard, "score-variants", locals(), [variants, gtf])
    ending = check_outputs(out, _FORMATS, [variants, genome, gtf])[out]
    if tabix and ending != ".vcf.gz":
        raise UserError(f"tabix is for .vcf.gz, which {out} is not: name the output so")
    options.check_window(mode)
    use_cores()
    m = load(model, dtype)
    mode, options = fitted(m, mode, options)
    read = Input(variants)
    source, reference = as_variants(read), Genome(genome)
    if not ending.startswith(".vcf"):
        check_columns(source.columns, out)
    genes = None if gtf is None else GeneColumns(Input(gtf), source, reference)
    compared, others = _compared(scores, background, m, mode, options, reference, source)
    given: dict[str, Any] = {"variants": read.digest(), "genome": reference.identity, **others}
    record = run_record(m, "score-variants", mode=mode, options=options, **given)
    statuses: list[np.ndarray] = []
    if part is not None:
        with open_shard(part, out, record, restart=restart) as journal:
            run = {"journal": journal, "progress": True, "of_shards": part.numbers}
            finish(scoring(m, source, reference, mode, options, compared=compared, **run)[-1])
        return
    with open_journal(out.with_name(f"{out.name}.journal"), record, restart=restart) as journal:
        run = {"compared": compared, "journal": journal, "progress": True}
        work, empty, parts = scoring(m, source, reference, mode, options, **run)
        seen = _remembering(parts, statuses)
        if genes is not None:
            empty, seen = genes.beside(range(0), empty), genes.added(seen)
        with replacing(out) as partial:
            if ending.startswith(".vcf"):
                titles = _provenance(mode, model, genome, options) | _named(scores, background)
                fields = fields_of(mode, Outputs.of(m) if mode == "output" else None)
                fields |= {} if background.null is None else quantiles_of(fields)
                fields = haplotypes_of(fields) if options.phased else fields
                declared = declarations(mode, fields)
                declared |= {} if genes is None else genes.declarations()
                told = info_of_records(source, mode, fields, seen)
                zipped = ending == ".vcf.gz"
                _write_vcf(partial, source, reference, mode, declared, told, titles, zipped)
                if zipped:  # before the new file is in place: an index of another one never is
                    remove_indexes(out)
            else:
                _write_table(partial, ending, source, empty, seen)
    work.report_padding()
    if tabix:
        index_vcf(out)
    status = np.concatenate([np.empty(0, np.str_), *statuses])
    if (status == Status.OK).any():
        tell_how_to_read_scores()
    summarise("variants", _names(source), status, [out], genome, skip_bad=skip_bad)


def _names(source: VariantSource) -> list[str]:
    positions = source.variants.position.tolist()
    return [f"{c}:{p + 1}" for c, p in zip(source.variants.chrom, positions, strict=True)]


def _write_table(
    path: pathlib.Path,
    ending: str,
    source: VariantSource,
    empty: polars.DataFrame,
    parts: Iterable[Part[polars.DataFrame]],
) -> None:
    with table_writer(path, ending, encoding=source.encoding) as write:
        write(scored_table(source, range(0), empty))
        for part in parts:
            write(scored_table(source, part.rows, part.frame))


def _remembering(
    parts: Iterable[Part[polars.DataFrame]], statuses: list[np.ndarray]
) -> Iterator[Part[polars.DataFrame]]:
    """Yields the parts as they pass; their statuses are appended to a list."""
    for part in parts:
        statuses.append(part.frame["status"].to_numpy().astype(np.str_))
        yield part


def _write_vcf(
    path: pathlib.Path,
    source: VariantSource,
    genome: Genome,
    mode: Mode,
    declared: Mapping[str, str],
    fields: Iterable[dict[str, str]],
    titles: Mapping[str, str],
    compress: bool,
) -> None:
    write_vcf(
        source.vcf or _vcf_of(source, genome),
        path,
        declared,
        fields,
        provenance=titles,
        compress=compress,
        combine=lambda there, new: combined(there, new, mode),
    )


def _vcf_of(source: VariantSource, genome: Genome) -> Vcf:
    """Makes a VCF of variants that came in a table, with contigs as its records name them."""
    names = list(dict.fromkeys(source.variants.chrom))
    numbers = genome.contigs(names).tolist()
    declared = {name: i if i >= 0 else None for name, i in zip(names, numbers, strict=True)}
    contigs = zip(genome.names, genome.lengths.tolist(), strict=True)
    return Vcf.of_lines(vcf_lines(source.variants, contigs, declared))


def _compared(
    scores: pathlib.Path | None,
    background: Background,
    m: Pretrained,
    mode: Mode,
    options: VariantScoring,
    genome: Genome,
    source: VariantSource,
) -> tuple[Comparison | Phased, dict[str, Any]]:
    """Opens what scores are looked up in and compared with; and returns what tells it apart."""
    store = None if scores is None else open_scores(scores, m, mode, options, genome)
    regions = None
    if background.null_regions is not None:
        regions = Input(background.null_regions)
        background = dataclasses.replace(background, null_regions=regions)
    identity = {
        "background": dataclasses.replace(background, null_regions=None),
        "scores": None if store is None else store.identity,
        "null_regions": None if regions is None else regions.digest(),
    }
    if options.phased:
        alone = scores is None and background.null is None
        return Phased.of(source, options.sample, alone=alone), identity
    return Comparison(store, background), identity


def _named(scores: pathlib.Path | None, background: Background) -> dict[str, str]:
    """Returns what the header tells of a store and a background."""
    named = {} if scores is None else {"Scores": str(scores)}
    if background.null is not None:
        given = dataclasses.asdict(background)
        named |= {
            name.title().replace("_", ""): str(value)
            for name, value in given.items()
            if value is not None
        }
    return named


def _provenance(mode: Mode, model: str, genome: str, options: VariantScoring) -> dict[str, str]:
    used = dataclasses.asdict(options)
    if mode in ("llr", "output") and not options.phased:
        del used["window"]
    if not options.phased:
        del used["phased"]
    run = f"{mode}_phased" if options.phased else mode
    made: dict[str, Any] = {"ID": run, "Version": __version__, "Model": model, "Genome": genome}
    made |= {name.title().replace("_", ""): value for name, value in used.items()}
    return {name: str(value) for name, value in made.items() if value is not None}
