"""Phased variants: those of one haplotype that fit into a window are scored as one change."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars
from jaxtyping import Bool

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import Genotype, change
from caduceus_jax.genomics.genome_wide.background import score_names
from caduceus_jax.genomics.genome_wide.comparison import Parts, Prepared
from caduceus_jax.genomics.options import VariantScoring
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.haplotypes import widen
from caduceus_jax.genomics.reference.inputs import VariantSource
from caduceus_jax.genomics.scoring.variant_scores import ScoringWork
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import Part

HAPLOTYPES = ("_haplotype_1", "_haplotype_2")  # added to the names of scores
_CHANGES = (Status.OK, Status.INDEL)  # statuses of rows whose change is known


class Phased(NamedTuple):
    """Holds which haplotypes of a sample have which variants.

    Attributes:
        carried: (rows, 2), whether each of both haplotypes has the row's ALT.
        known: (rows,), whether the genotype tells haplotypes.
        phase_set: (rows,) of sets within which haplotypes are the same; None belongs to any.
    """

    carried: Bool[np.ndarray, "rows 2"]
    known: Bool[np.ndarray, " rows"]
    phase_set: Sequence[str | None]

    @classmethod
    def of(cls, source: VariantSource, sample: str | None, *, alone: bool) -> "Phased":
        """Reads the genotypes of a VCF.

        Args:
            source: the variants.
            sample: the sample's name; None for the first.
            alone: neither a store nor a background is asked for.

        Raises:
            UserError: these are asked for, the variants are not in a VCF, or it has no such sample.
        """
        if not alone:
            raise UserError("phased goes with neither scores nor null: leave these out")
        if source.vcf is None:
            raise UserError(f"phased needs the genotypes of a VCF, which {source.name} is not")
        found: list[Genotype] = source.vcf.genotypes(sample)
        record = source.variants.record
        starts = np.searchsorted(record, record)  # first row of each row's record
        number = np.arange(len(record)) - starts + 1  # as GT counts ALTs
        mine = [found[i] for i in record.tolist()]
        carried = np.zeros((len(record), len(HAPLOTYPES)), bool)
        for row, (genotype, alt) in enumerate(zip(mine, number.tolist(), strict=True)):
            for haplotype, allele in enumerate(genotype.alleles):
                carried[row, haplotype] = allele == alt
        known = np.array([bool(genotype.alleles) for genotype in mine], bool)
        return cls(carried, known, [genotype.phase_set for genotype in mine])

    def prepare(
        self,
        genome: Genome,
        options: VariantScoring,
        sites: polars.DataFrame,
        record: np.ndarray,
    ) -> Prepared:
        """Joins the changes of each haplotype: two rows for each variant, one per haplotype.

        Args:
            genome: the genome that the variants lie on.
            options: the verb's options.
            sites: the variants' changes, of `locate`.
            record: (rows,) number of each row's record.
        """
        window = min(options.window, options.context)
        extents = _extents(genome, sites, window)
        sides = []
        for haplotype in range(len(HAPLOTYPES)):
            rows = [list(row) for row in sites.drop("row").iter_rows()]
            changes = np.isin(sites["status"].to_numpy().astype(np.str_), _CHANGES)
            for row in np.flatnonzero(changes & ~self.carried[:, haplotype]).tolist():
                rows[row][0] = str(Status.NOT_CARRIED if self.known[row] else Status.UNPHASED)
            carried = np.flatnonzero(changes & self.carried[:, haplotype])
            for group in _groups(carried, sites, extents, self.phase_set, window):
                joint = _joint(genome, [rows[row] for row in group])
                for row in group if len(group) > 1 else ():
                    rows[row] = joint
            sides.append(rows)
        both = [tuple(row) for pair in zip(*sides, strict=True) for row in pair]
        columns = {k: v for k, v in sites.schema.items() if k != "row"}
        joined = polars.DataFrame(both, schema=columns, orient="row").with_row_index("row")
        joined = joined.with_columns(polars.col("row").cast(polars.Int64))

        def finish(parts: Parts) -> Iterator[Part[polars.DataFrame]]:
            """Yields one row for each variant, with the scores of both haplotypes."""
            for part in parts:
                rows = range(part.rows.start // 2, part.rows.stop // 2)
                yield Part(rows, _beside(part.frame, rows))

        return Prepared(joined, np.repeat(record, 2), 0, finish, rows_each=2)

    def empty(self, work: ScoringWork) -> polars.DataFrame:
        """Returns a table of results without rows."""
        return _beside(work.empty(), range(0))


def _extents(genome: Genome, sites: polars.DataFrame, most: int) -> np.ndarray:
    """Returns (rows, 2): where each change begins and ends, indels with all of their repeat."""
    found = np.zeros((len(sites), 2), np.int64)
    columns = sites.select("status", "contig", "start", "ref", "alt").iter_rows()
    for row, (status, contig, start, ref, alt) in enumerate(columns):
        if status in _CHANGES and (ref or alt):
            first, old, _ = widen(genome, contig, start, ref, alt, most)
            found[row] = first, first + len(old)
    return found


def _groups(
    rows: np.ndarray,
    sites: polars.DataFrame,
    extents: np.ndarray,
    phase_set: Sequence[str | None],
    window: int,
) -> Iterator[list[int]]:
    """Yields the rows of one haplotype that are scored together.

    What does not fit into one window, or is of two phase sets, is parted at its widest gaps, all
    that are equally wide: so that both strands part it alike.
    """
    contig, start = (sites[name].to_numpy() for name in ("contig", "start"))
    gain = (
        sites["alt"].str.len_bytes().cast(polars.Int64) - sites["ref"].str.len_bytes()
    ).to_numpy()
    first, last = extents[:, 0], extents[:, 1]
    ordered = rows[np.lexsort((last[rows], start[rows], contig[rows]))]
    apart = first[ordered[1:]] - last[ordered[:-1]] > window
    apart |= contig[ordered[1:]] != contig[ordered[:-1]]
    waiting = [group for group in np.split(ordered, np.flatnonzero(apart) + 1) if len(group)]
    while waiting:
        group = waiting.pop()
        span = last[group].max() - first[group].min()
        sets = {phase_set[row] for row in group.tolist()} - {None}
        if len(group) == 1 or (max(span, span + gain[group].sum()) <= window and len(sets) <= 1):
            yield group.tolist()
            continue
        gaps = first[group[1:]] - last[group[:-1]]
        waiting += np.split(group, np.flatnonzero(gaps == gaps.max()) + 1)


def _joint(genome: Genome, changes: list[list]) -> list:
    """Returns the one change (status, contig, start, ref, alt) that some of a haplotype make."""
    changes = sorted(changes, key=lambda c: (c[2], len(c[3])))
    _, contig, first, _, _ = changes[0]
    at, alt = first, ""
    previous_is_insertion = False
    for _, _, start, old, new in changes:
        if start < at or (start == at and not old and previous_is_insertion):
            return [str(Status.CONFLICT), contig, first, "", ""]
        alt += genome.bases(contig, at, start).tobytes().decode() + new
        at, previous_is_insertion = start + len(old), not old
    ref = genome.bases(contig, first, at).tobytes().decode()
    if any(change[0] == Status.INDEL for change in changes):
        return [str(Status.INDEL), contig, first, ref, alt]
    if not ref or not alt:
        return [str(Status.OK), contig, first, ref, alt]
    found = change(ref, alt)
    return [str(found.status), contig, first + found.offset, found.ref, found.alt]


def _beside(frame: polars.DataFrame, rows: range) -> polars.DataFrame:
    """Returns a table with the scores of both haplotypes of a variant in one row."""
    sides = [frame.gather_every(2, offset) for offset in range(len(HAPLOTYPES))]
    either = [_status(*pair) for pair in zip(*(side["status"] for side in sides), strict=True)]
    return polars.DataFrame(
        {
            "row": polars.Series(list(rows), dtype=polars.Int64),
            "status": polars.Series(either, dtype=polars.String),
            **{
                f"{name}{haplotype}": side[name]
                for name in score_names(frame)
                for haplotype, side in zip(HAPLOTYPES, sides, strict=True)
            },
        }
    )


def _status(first: str, second: str) -> str:
    """Returns ok where a haplotype has a score, otherwise why one that has ALT has none."""
    if Status.OK in (first, second):
        return str(Status.OK)
    return second if first == Status.NOT_CARRIED else first
