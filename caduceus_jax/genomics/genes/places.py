"""The gene, the type of region and the nearest transcription start site of positions."""

from collections.abc import Sequence

import numpy as np
import polars
from jaxtyping import Int
from polars import col

from caduceus_jax.genomics.genes.annotation import Annotation
from caduceus_jax.genomics.reference.genome import Genome

# From the region that counts first to the one that counts last.
REGIONS = ("CDS", "UTR", "exon", "intron", "upstream", "intergenic")
UPSTREAM = 2_000  # bases before a transcription start site
COLUMNS = {
    "gene": polars.String,
    "region": polars.String,
    "tss_gene": polars.String,
    "tss_distance": polars.Int64,
}
_RANK = {region: rank for rank, region in enumerate(REGIONS)}


class Genes:
    """An annotation on a genome, ready to be asked.

    Args:
        annotation: genes, transcription start sites and parts of genes.
        genome: the genome, whose contigs the annotation may call by other names: chr1 and 1.
    """

    def __init__(self, annotation: Annotation, genome: Genome):
        self._genome = genome
        introns = annotation.genes.with_columns(region=polars.lit("intron"))
        forward = col("strand") != "-"
        before = annotation.sites.select(
            "chrom",
            polars.when(forward)
            .then(col("position") - UPSTREAM)
            .otherwise(col("position") + 1)
            .alias("start"),
            polars.when(forward)
            .then("position")
            .otherwise(col("position") + 1 + UPSTREAM)
            .alias("end"),
            polars.lit("upstream").alias("region"),
            "gene",
        )
        order = ["chrom", "start", "end", "region", "gene"]
        frames = (annotation.parts, introns, before)
        intervals = polars.concat([frame.select(order) for frame in frames])
        self._intervals = self._placed(intervals).with_columns(
            rank=col("region").replace_strict(_RANK, return_dtype=polars.Int64)
        )
        sites = self._placed(annotation.sites)
        # Of several genes that start at one base the first in the alphabet counts.
        self._sites = sites.sort("contig", "position", "gene").unique(
            ["contig", "position"], keep="first", maintain_order=True
        )

    def of(self, chrom: Sequence[str], position: Int[np.ndarray, " rows"]) -> polars.DataFrame:
        """Finds the genes of some positions.

        A position belongs to the region that comes first in CDS, UTR, exon (without a known part),
        intron, upstream (up to 2,000 bases before a transcription start site) and intergenic; of
        several genes with that region to the one whose name comes first in the alphabet. An
        intergenic position belongs to the gene of the nearest transcription start site; of two at
        the same distance the one at the smaller position counts.

        Args:
            chrom: (rows,) contigs.
            position: (rows,) 0-based.

        Returns:
            One row per position: gene; region; tss_gene, whose transcription start site is the
            nearest; and tss_distance, the bases from it, negative upstream of it. On a contig
            without genes region is intergenic and the others are null; on a contig that the genome
            does not have all are null.
        """
        asked = polars.DataFrame(
            {
                "row": polars.Series(np.arange(len(position)), dtype=polars.Int64),
                "contig": polars.Series(self._genome.contigs(list(chrom)), dtype=polars.Int64),
                "position": polars.Series(position, dtype=polars.Int64),
            }
        )
        nearest = self._nearest(asked)
        inside = self._inside(asked)
        found = asked.join(inside, on="row", how="left").join(nearest, on="row", how="left")
        known = col("contig") >= 0
        return (
            found.sort("row")
            .with_columns(
                gene=polars.coalesce("gene", "tss_gene"),
                region=polars.coalesce("region", polars.when(known).then(polars.lit("intergenic"))),
            )
            .select(*COLUMNS)
            .cast(COLUMNS)  # pyright: ignore[reportArgumentType]
        )

    def _placed(self, frame: polars.DataFrame) -> polars.DataFrame:
        """Returns the rows on contigs of the genome, with these contigs' numbers."""
        contig = polars.Series(self._genome.contigs(frame["chrom"]), dtype=polars.Int64)
        return frame.with_columns(contig=contig).filter(col("contig") >= 0)

    def _inside(self, asked: polars.DataFrame) -> polars.DataFrame:
        """Returns region and gene of the positions that lie within an interval."""
        # One line for all contigs, so that two comparisons find everything.
        points = asked.filter(col("contig") >= 0).select("row", at=_on_line("position"))
        intervals = self._intervals.select(
            "region", "gene", "rank", first=_on_line("start"), last=_on_line("end")
        )
        pairs = points.join_where(intervals, col("at") >= col("first"), col("at") < col("last"))
        best = pairs.sort("row", "rank", "gene").unique("row", keep="first", maintain_order=True)
        return best.select("row", "region", "gene")

    def _nearest(self, asked: polars.DataFrame) -> polars.DataFrame:
        """Returns gene and distance of the nearest transcription start site."""
        points = asked.sort("contig", "position").select("row", "contig", "position")
        sites = self._sites.select("contig", "position", "strand", site="position", tss_gene="gene")
        points, sites = (frame.sort("position") for frame in (points, sites))
        both = [
            points.join_asof(
                sites, on="position", by="contig", strategy=which, check_sortedness=False
            ).with_columns(order=polars.lit(order))
            for order, which in enumerate(("backward", "forward"))
        ]
        distance = col("position") - col("site")
        near = polars.concat(both).drop_nulls("site").with_columns(apart=distance.abs())
        near = near.sort("row", "apart", "order").unique("row", keep="first", maintain_order=True)
        signed = polars.when(col("strand") == "-").then(-distance).otherwise(distance)
        return near.select("row", "tss_gene", tss_distance=signed)


def _on_line(name: str) -> polars.Expr:
    return col("contig") * (1 << 40) + col(name) + UPSTREAM
