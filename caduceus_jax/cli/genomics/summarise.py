"""`caduceus-jax summarise`: scores of variants summed up by gene or by type of region."""

import logging
import pathlib

from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_outputs, replacing
from caduceus_jax.genomics.files.table_files import TABLES, table_writer
from caduceus_jax.genomics.genes import summary
from caduceus_jax.genomics.genes.summary import By

log = logging.getLogger(__name__)


def summarise(
    table: str, *, out: pathlib.Path, by: By = "gene", scores: list[str] | None = None
) -> None:
    """Sums up the scores of variants by gene or by type of region.

    The table is one that score-variants wrote with --gtf. The result has one row per gene (in the
    order of the alphabet) or region (CDS, UTR, exon, intron, upstream, intergenic) and score: n,
    how many variants have that score; mean; and the quantiles q05, q25, median, q75 and q95.
    Variants without a score, or without a gene, are left out.

    examples:
      caduceus-jax summarise scored_genes.tsv --by region --out regions.tsv
      caduceus-jax summarise scored_genes.tsv --scores llr --out genes.parquet

    Args:
        table: .parquet, or text: .tsv or .csv, plain or gzip.
        out: file to write: .tsv, .tsv.gz or .parquet. It appears when it is complete.
        by: gene or region.
        scores: columns to sum up, one or more; by default those of the scores.

    Raises:
        UserError: the table cannot be read, or has no such column.
    """
    ending = check_outputs(out, TABLES, [table])[out]
    found = summary.summarise(Input(table), by, scores=scores)
    with replacing(out) as partial, table_writer(partial, ending) as write:
        write(found)
    log.info(f"{found[by].n_unique():,} {by}s; written to {out}")
