"""Types of regions: to which a base of a genome belongs, and the bases of each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.per_base import MergedIntervals, PerBase

INSIDE, OUTSIDE = "inside", "outside"


class RegionType(NamedTuple):
    """One type of regions: its name, and its bases, which may belong to an earlier type too."""

    name: str
    bases: MergedIntervals


class RegionTypes:
    """The types of a genome's bases, as the names of regions tell.

    Bases within no region are a type of their own, "outside". Where regions of several types
    overlap, a base belongs to the type that comes first. Without regions there is one type.

    Args:
        regions: named by their types; regions without a name are of the type "inside".
        genome: the genome that they lie on.

    Attributes:
        types: all types, the last one the whole genome.
    """

    def __init__(self, regions: Intervals | None, genome: Genome):
        self.types: list[RegionType] = []
        names: dict[str, list[int]] = {}
        if regions is not None:
            for row, name in enumerate(regions.name):
                plain = name == f"{regions.chrom[row]}:{regions.start[row]}-{regions.end[row]}"
                names.setdefault(INSIDE if plain else name, []).append(row)
            for name, rows in names.items():
                some = Intervals(
                    [regions.chrom[row] for row in rows],
                    regions.start[rows],
                    regions.end[rows],
                    [name] * len(rows),
                    regions.line[rows],
                )
                self.types.append(RegionType(name, PerBase(some, genome).merged))
        lengths = genome.lengths
        whole = MergedIntervals(np.arange(len(lengths)), np.zeros(len(lengths), np.int64), lengths)
        self.types.append(RegionType(OUTSIDE, whole))

    def of(
        self, contigs: Int[np.ndarray, " rows"], positions: Int[np.ndarray, " rows"]
    ) -> Int[np.ndarray, " rows"]:
        """Returns the number of the type of each base.

        Args:
            contigs: (rows,) numbers of contigs.
            positions: (rows,) 0-based.
        """
        found = np.full(len(contigs), len(self.types) - 1)
        asked = contigs << 32 | positions
        for number, (_, bases) in reversed(list(enumerate(self.types[:-1]))):
            interval = np.searchsorted(bases.contig << 32 | bases.start, asked, side="right") - 1
            at = np.maximum(interval, 0)
            if len(bases.contig):
                inside = (interval >= 0) & (bases.contig[at] == contigs)
                found[inside & (positions < bases.end[at])] = number
        return found
