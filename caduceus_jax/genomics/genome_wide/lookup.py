"""Scores of single-base substitutions, looked up in a store in place of being computed."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASE_NUMBERS
from caduceus_jax.genomics.files.inputs import AnyPath
from caduceus_jax.genomics.genome_wide.store import ScoreStore
from caduceus_jax.genomics.options import VariantScoring
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.journal import run_record
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import Part
from caduceus_jax.inference.loading import Pretrained, resolve_rc_mode

log = logging.getLogger(__name__)

_LOOKED_UP = "looked_up"  # for the forward passes: nothing to compute


def open_scores(
    path: AnyPath, m: Pretrained, mode: str, options: VariantScoring, genome: Genome
) -> ScoreStore:
    """Opens a store whose scores are those that a run would compute.

    Args:
        path: the store.
        m: the model of the run.
        mode: its mode.
        options: the verb's options.
        genome: the genome that the variants lie on.

    Raises:
        UserError: another mode than llr, or a store of another model, context or edge.
    """
    if mode != "llr":
        raise UserError(f"scores is for mode llr, and mode is {mode}: leave scores out")
    store = ScoreStore(path)
    depends = {"context_length": options.context, "edge": options.edge}
    store.check_run(run_record(m, "score-variants"), depends)
    config, given = m.model.config, store.options["rc_mode"]
    if resolve_rc_mode(config, options.rc_mode, scores=True) != resolve_rc_mode(
        config, given, scores=True
    ):
        raise UserError(
            f"rc_mode is {options.rc_mode}, and {store.path} was computed with {given}: pass that, "
            "or compute the scores again"
        )
    return store


class Lookup:
    """Finds the scores that a store has, and leaves the others to be computed.

    Args:
        store: the store.
        genome: the genome that the variants lie on.
        sites: changes, of `locate`.

    Attributes:
        rest: `sites`, where those that need not be computed have another status than ok.

    Raises:
        UserError: the store is of another genome.
    """

    def __init__(self, store: ScoreStore, genome: Genome, sites: polars.DataFrame):
        single = (polars.col("ref").str.len_bytes() == 1) & (polars.col("alt").str.len_bytes() == 1)
        ok = polars.col("status") == Status.OK.value
        rows = np.flatnonzero(sites.select(single & ok).to_series().to_numpy())
        asked = sites[rows]
        contig, start = (asked[name].to_numpy() for name in ("contig", "start"))
        store.check_genome(genome, np.unique(contig).tolist())
        values = store.at(genome.names, contig, start).astype(np.float32)
        ref, alt = (
            BASE_NUMBERS[np.frombuffer("".join(asked[name]).encode(), np.uint8)]
            for name in ("ref", "alt")
        )
        here = np.arange(len(rows))
        self._llr = np.full(len(sites), np.nan, np.float32)
        self._llr[rows] = values[here, alt] - values[here, ref]
        found = polars.Series(~np.isnan(self._llr))
        status = polars.when(found).then(polars.lit(_LOOKED_UP)).otherwise("status")
        self.rest = sites.with_columns(status=status)
        computed = (self.rest["status"] == Status.OK.value).sum()
        log.info(f"{int(found.sum()):,} scores are in {store.path}; {computed:,} are computed")

    def complete(self, parts: Iterable[Part[polars.DataFrame]]) -> Iterator[Part[polars.DataFrame]]:
        """Yields parts of the results of `rest`, with the scores that were looked up."""
        for part in parts:
            llr = self._llr[part.rows.start : part.rows.stop]
            known = polars.Series(~np.isnan(llr))
            frame = part.frame.with_columns(
                status=polars.when(known).then(polars.lit(Status.OK.value)).otherwise("status"),
                llr=polars.when(known).then(polars.Series(llr)).otherwise("llr"),
            )
            yield Part(part.rows, frame)
