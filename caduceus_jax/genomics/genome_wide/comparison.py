"""What scores of variants are looked up in and compared with, put around the forward passes."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import polars

from caduceus_jax.genomics.genome_wide.background import Background, Null, with_quantiles
from caduceus_jax.genomics.genome_wide.lookup import Lookup
from caduceus_jax.genomics.genome_wide.store import ScoreStore
from caduceus_jax.genomics.options import VariantScoring
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.variant_scores import ScoringWork
from caduceus_jax.inference.blocks import Part

Parts = Iterable[Part[polars.DataFrame]]
Finish = Callable[[Parts], Iterator[Part[polars.DataFrame]]]


class Prepared(NamedTuple):
    """What is to be computed.

    Attributes:
        sites: the changes of the background and, after them, of the variants.
        record: (rows,) number of each row's record.
        first: number of the first row that is a variant's.
        finish: makes the variants' results of the results of all.
        rows_each: rows of each variant.
    """

    sites: polars.DataFrame
    record: np.ndarray
    first: int = 0
    finish: Finish = iter
    rows_each: int = 1


class Comparison(NamedTuple):
    """Says where scores are looked up, and what they are compared with.

    Attributes:
        store: scores that need not be computed.
        background: settings of the background.
    """

    store: ScoreStore | None = None
    background: Background = Background()

    def prepare(
        self,
        genome: Genome,
        options: VariantScoring,
        sites: polars.DataFrame,
        record: np.ndarray,
    ) -> Prepared:
        """Draws the background, and looks up what the store has.

        Args:
            genome: the genome that the variants lie on.
            options: the verb's options.
            sites: the variants' changes, of `locate`.
            record: (rows,) number of each row's record.

        Raises:
            UserError: the store is of another genome, or regions cannot be read.
        """
        null, lookup, first = None, None, 0
        if self.background.null is not None:
            # What edge "error" stops at is the variants' own.
            margin = options.context // 2 + 1 if options.edge == "error" else 0
            null = Null(self.background, genome, sites, margin)
            first = len(null.sites)
            sites = polars.concat([null.sites, sites])
            sites = sites.with_columns(row=polars.Series(np.arange(len(sites)), dtype=polars.Int64))
            record = np.concatenate([null.record, record + first])
        if self.store is not None:
            lookup = Lookup(self.store, genome, sites)
            sites = lookup.rest

        def finish(parts: Parts) -> Iterator[Part[polars.DataFrame]]:
            """Yields the results of the variants alone, complete."""
            found = parts if lookup is None else lookup.complete(parts)
            return iter(found) if null is None else null.ranked(found)

        return Prepared(sites, record, first, finish)

    def empty(self, work: ScoringWork) -> polars.DataFrame:
        """Returns a table of results without rows."""
        empty = work.empty()
        return empty if self.background.null is None else with_quantiles(empty)
