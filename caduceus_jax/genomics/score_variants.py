"""Scores of variants."""

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import polars

from caduceus_jax.genomics.files.inputs import AnyPath
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.genes.columns import GeneColumns
from caduceus_jax.genomics.genome_wide.background import Background
from caduceus_jax.genomics.genome_wide.comparison import Comparison, Prepared
from caduceus_jax.genomics.genome_wide.lookup import open_scores
from caduceus_jax.genomics.genome_wide.phased import Phased
from caduceus_jax.genomics.options import Mode, VariantScoring, chosen, fitted
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import (
    AnyGenome,
    AnyRegions,
    AnyVariants,
    VariantSource,
    as_genome,
    as_variants,
)
from caduceus_jax.genomics.reference.locate import locate, name_row
from caduceus_jax.genomics.scoring.variant_passes import Scorer
from caduceus_jax.genomics.scoring.variant_scores import ScoringWork
from caduceus_jax.genomics.signatures import VariantScoringFields, takes_fields
from caduceus_jax.inference.blocks import Part, run_work
from caduceus_jax.inference.loading import AnyPretrained, Pretrained, as_pretrained


@takes_fields(VariantScoring)
def score_variants(
    m: AnyPretrained,
    variants: AnyVariants,
    genome: AnyGenome,
    mode: Mode | None = None,
    *,
    options: VariantScoring | None = None,
    scores: AnyPath | None = None,
    gtf: AnyPath | None = None,
    null: Literal["matched"] | None = None,
    null_size: int = 200,
    null_regions: AnyRegions | None = None,
    null_seed: int = 0,
    progress: bool = False,
    **fields: Unpack[VariantScoringFields],
) -> polars.DataFrame:
    """Scores variants with a language model or a fine-tuned model.

    The modes are

      llr        log p(ALT) - log p(REF) of the changed bases, which are masked together; one
                 forward pass serves all ALTs of a position. For substitutions of one or several
                 bases.
      pll        pseudo-log-likelihood ratio: every base of a window around the variant is masked in
                 turn, in the sequence with REF and in the one with ALT; the sum of log p over ALT's
                 window minus that over REF's. For insertions and deletions too.
      embedding  distance between the mean embeddings of the window with ALT and with REF,
                 Euclidean (l2) and cosine (1 - cos). For insertions and deletions too.
      output     of a fine-tuned model: its output for the context with ALT minus that for the
                 context with REF. For insertions and deletions too.

    Of a VCF or BCF file <DEL>, <DUP>, <INV> and <INS> are scored by the last three modes, as the
    same alleles in bases: INFO has the length of the first three, END or SVLEN, and what <INS>
    inserts, SEQ or SVINSSEQ.

    With `phased` the variants of a haplotype of a VCF's `sample` that fit into a `window` are
    scored together, as one change, in columns NAME_haplotype_1 and NAME_haplotype_2; they are null
    where the haplotype does not have ALT.

    Negative llr and pllr mean that ALT is less expected there than REF (natural logarithms). Scores
    do not depend on the strand that the genome is written from, nor on where in a repeat an
    insertion or deletion is written.

    Args:
        m: the model with its tokenizer, from `load`.
        variants: a VCF or BCF file; a table in a file (.parquet, .tsv, .csv) or a polars or pandas
            frame with the columns chrom, pos (counted from 1), ref and alt; `Variant` objects;
            texts like "chr1:123:A>G"; tuples (chrom, pos, ref, alt).
        genome: the reference that the variants were called on: a `Genome`, a FASTA file (plain or
            bgzip), or a folder of `caduceus-jax prepare`.
        mode: "llr", "pll", "embedding" or "output"; by default "llr" of a language model and
            "output" of a fine-tuned one.
        options: all of the following in one value; those that are also passed replace its own.
        scores: a store of this model, genome and context_length, written by `caduceus-jax
            likelihood`: single-base substitutions are looked up there in mode llr, and what it does
            not have is computed.
        gtf: annotation of genes, GTF or GFF3, plain or gzip.
        null: "matched" compares each single-base substitution with random ones of the same
            trinucleotide context and change, on either strand, drawn from the genome.
        null_size: number drawn for each of the 96 kinds of change (and each type of region).
        null_regions: regions; variants are compared within the type of their region, its name.
        null_seed: seed of the draw.
        progress: show on standard error how far it is.
        **fields: options.

    Returns:
        One row per ALT in the order given: the table's columns (of other inputs chrom, pos, ref and
        alt; pos is counted from 1), status, and scores (float32), null unless the status is ok:
        llr; pllr; l2 and cosine; or, of a fine-tuned model, for each class difference_p_CLASS
        (p(ALT) - p(REF)) and log_odds_ratio_CLASS (natural logarithm), for each value
        difference_NAME (ALT minus REF, in the units of the values), and for each track
        difference_NAME, the mean over all bins, and largest_difference_NAME, that of the bin where
        it is largest in size. With `null` also NAME_quantile of
        each: the share of the background that scores lower.

        With `gtf` also gene, that POS lies in or whose transcription start site (TSS) is the
        nearest; region: CDS, UTR, exon, intron, upstream (up to 2,000 bases before a TSS) or
        intergenic, the first of these that holds; tss_gene, the gene of the nearest TSS; and
        tss_distance, the bases from it, negative upstream. `summarise` sums up scores by them.

    Raises:
        UserError: an input cannot be read, REF differs from the genome too often, or an option
            makes no sense or does not go with the model.

    Examples:
        >>> import caduceus_jax as cj
        >>> m = cj.load(model)
        >>> frame = cj.score_variants(m, ["chr1:30:A>G", "chr1:31:C>CT"], genome)
        >>> frame.columns
        ['chrom', 'pos', 'ref', 'alt', 'status', 'llr']
        >>> frame["status"].to_list()
        ['ok', 'indel']
    """
    options = chosen(VariantScoring, options, fields)
    source, reference = as_variants(variants), as_genome(genome)
    genes = None if gtf is None else GeneColumns(gtf, source, reference)
    pretrained = as_pretrained(m)
    mode, options = fitted(pretrained, mode, options)
    compared = None
    if options.phased:
        compared = Phased.of(source, options.sample, alone=scores is None and null is None)
    elif (scores, null, null_regions) != (None, None, None):
        compared = Comparison(
            None if scores is None else open_scores(scores, pretrained, mode, options, reference),
            Background(null, null_size, null_regions, null_seed),
        )
    work, empty, parts = scoring(
        pretrained, source, reference, mode, options, compared=compared, progress=progress
    )
    found = polars.concat([empty, *(part.frame for part in parts)])
    work.report_padding()
    if genes is not None:
        found = genes.beside(range(len(found)), found)
    return scored_table(source, range(len(found)), found)


def scoring(
    m: Pretrained,
    source: VariantSource,
    genome: Genome,
    mode: Mode,
    options: VariantScoring,
    *,
    compared: Comparison | Phased | None = None,
    **run: Any,
) -> tuple[ScoringWork, polars.DataFrame, Iterator[Part]]:
    """Scores variants in parts, for outputs that are larger than memory.

    Args:
        m: a language model or a fine-tuned model with its tokenizer.
        source: the variants.
        genome: the genome that they lie on.
        mode: "llr", "pll", "embedding" or "output", from `fitted`.
        options: the verb's options, from `fitted`.
        compared: store and background of the scores; or the haplotypes that are scored; None where
            the variants are scored as they are.
        **run: the keyword arguments of `run_work`.

    Returns:
        The work; a table of row, status and scores without rows; and its parts in order as they
        are computed, such tables.

    Raises:
        UserError: options that do not fit the model or the mode, or too many reference mismatches.
    """
    options.check_window(mode)
    variants = source.variants
    sites = locate(
        variants,
        genome,
        indels=mode != "llr",
        longest=options.context,
        max_ref_mismatch=options.max_ref_mismatch,
        source=source.name,
        declared=source.declared,
    )
    prepared = Prepared(sites, variants.record)
    if compared is not None:
        prepared = compared.prepare(genome, options, sites, variants.record)

    def describe(row: int) -> str:
        """Names a row for an error message."""
        return name_row(variants, source.name)((row - prepared.first) // prepared.rows_each)

    outputs = Outputs.of(m) if mode == "output" else None
    scorer = Scorer(m.tokenizer, m.model.config.d_model, genome, options, describe, outputs)
    work = ScoringWork(scorer, m.model, prepared.sites, prepared.record, mode)
    unit = "variants" if prepared.rows_each == 1 else "alleles"
    parts = run_work(m.model, work, what="scoring", unit=unit, **run)
    # A shard has some of the rows alone, and keeps what it computes.
    parts = parts if run.get("of_shards") else prepared.finish(parts)
    return work, work.empty() if compared is None else compared.empty(work), parts


def scored_table(source: VariantSource, rows: range, scores: polars.DataFrame) -> polars.DataFrame:
    """Returns some variants with the columns they came with, their statuses and scores.

    Columns that they came with and that have the name of one of the scores are replaced.

    Args:
        source: the variants.
        rows: which of them, by their numbers from 0.
        scores: table of these rows: row, status and the scores.
    """
    position = source.variants.position[rows.start : rows.stop] + 1
    table, added = source.columns[rows.start : rows.stop], scores.drop("row")
    return table.drop(added.columns, strict=False).with_columns(
        *added, pos=polars.Series(position, dtype=polars.Int64)
    )
