"""Scores summed up by gene or by type of region."""

from typing import Literal, get_args

import polars
from polars import col

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.tables import is_frame, of_frame, read_table
from caduceus_jax.genomics.genes.places import REGIONS
from caduceus_jax.genomics.status import Status

By = Literal["gene", "region"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Columns that are not scores.
_OTHERS = {"pos", "start", "end", "tss_distance"}
_TEXTS = {"chrom", "ref", "alt", "status", "gene", "region", "tss_gene"}


def summarise(
    table: object, by: By = "gene", *, scores: list[str] | None = None
) -> polars.DataFrame:
    """Sums up the scores of variants by gene or by type of region.

    Args:
        table: a table that `score_variants` gave with `gtf`: a polars or pandas frame, or a file
            (.parquet, .tsv or .csv, plain or gzip).
        by: "gene", or "region": CDS, UTR, exon, intron, upstream or intergenic.
        scores: the columns that are summed up; by default those of the scores.

    Returns:
        One row per gene, in the order of the alphabet, or per region, from CDS to intergenic, and
        score: the gene or region; score, the column; n, how many rows have one; mean; and the
        quantiles q05, q25, median, q75 and q95 (linear interpolation), float64. Rows without a
        gene, a region or a score are left out.

    Raises:
        UserError: the table cannot be read, or has no such column.

    Examples:
        >>> import polars as pl
        >>> import caduceus_jax as cj
        >>> table = pl.DataFrame({"gene": ["A", "A", "B"], "llr": [-1.0, -3.0, 2.0]})
        >>> cj.summarise(table, "gene").select("gene", "score", "n", "mean").rows()
        [('A', 'llr', 2, -2.0), ('B', 'llr', 1, 2.0)]
    """
    if by not in get_args(By):
        raise UserError(f"by is {by!r}; it is one of: {', '.join(get_args(By))}")
    if is_frame(table):
        frame, name = of_frame(table), "the table"
    else:
        source = table if isinstance(table, Input) else Input(table)  # pyright: ignore
        frame, name = read_table(source).frame, source.name
    if by not in frame.columns:
        raise UserError(
            f"{name} has no column {by}: score-variants writes it where it is given an annotation, "
            "with --gtf"
        )
    wanted = scores or _scores_of(frame)
    if missing := [column for column in wanted if column not in frame.columns]:
        raise UserError(f"{name} has no column {missing[0]}; it has {', '.join(frame.columns)}")
    if not wanted:
        raise UserError(f"{name} has no column of scores: name one with `scores`")
    if "status" in frame.columns:
        frame = frame.filter(col("status") == Status.OK.value)
    numbers = frame.select(by, *(col(c).cast(polars.Float64, strict=False) for c in wanted))
    long = numbers.unpivot(index=by, variable_name="score", value_name="value")
    long = long.drop_nulls().filter(col("value").is_not_nan() & (col(by) != ""))
    names = ["median" if q == 0.5 else f"q{100 * q:02.0f}" for q in QUANTILES]
    value = col("value")
    quantiles = [
        value.quantile(q, interpolation="linear").alias(name)
        for q, name in zip(QUANTILES, names, strict=True)
    ]
    found = long.group_by(by, "score").agg(
        polars.len().cast(polars.Int64).alias("n"), value.mean().alias("mean"), *quantiles
    )
    return _ordered(found, by, wanted)


def _scores_of(frame: polars.DataFrame) -> list[str]:
    """Returns the columns of numbers; of text, those whose texts are all numbers."""
    found = []
    for name, dtype in frame.schema.items():
        if name in _OTHERS | _TEXTS:
            continue
        if dtype == polars.String:
            texts = frame[name].replace("", None).drop_nulls()
            numeric = len(texts) > 0 and texts.cast(polars.Float64, strict=False).null_count() == 0
        else:
            numeric = dtype.is_float()
        if numeric:
            found.append(name)
    return found


def _ordered(found: polars.DataFrame, by: By, scores: list[str]) -> polars.DataFrame:
    order = {name: i for i, name in enumerate(REGIONS)} if by == "region" else {}
    rank = col(by).replace_strict(order, default=len(order), return_dtype=polars.Int64)
    which = {name: i for i, name in enumerate(scores)}
    return (
        found.with_columns(
            rank=rank if order else polars.lit(0),
            which=col("score").replace_strict(which, return_dtype=polars.Int64),
        )
        .sort("rank", by, "which")
        .drop("rank", "which")
    )
