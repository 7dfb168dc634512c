"""Probabilities that a model predicts at every base of regions."""

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.genomics.files.alleles import BASES
from caduceus_jax.genomics.options import Masking, chosen
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnyRegions, as_genome, as_intervals
from caduceus_jax.genomics.scoring.per_base import (
    BaseChunk,
    PerBase,
    entropy,
    information,
    per_base,
)
from caduceus_jax.genomics.signatures import MaskingFields, takes_fields
from caduceus_jax.inference.loading import AnyPretrained, as_pretrained

Track = Literal["logp", "entropy", "information"]

_LETTERS = np.array([*BASES, "N"])
_TEXTS = {"chrom": polars.String, "pos": polars.Int64, "ref": polars.String}
_NUMBERS = [*(f"logp_{base}" for base in BASES), "logp", "entropy"]
_SCHEMA = {**_TEXTS, "status": polars.String, **dict.fromkeys(_NUMBERS, polars.Float32)}


@takes_fields(Masking)
def likelihood(
    m: AnyPretrained,
    regions: AnyRegions,
    genome: AnyGenome,
    *,
    options: Masking | None = None,
    progress: bool = False,
    **fields: Unpack[MaskingFields],
) -> polars.DataFrame:
    """Masks each base of regions in turn and returns what the model predicts there.

    Args:
        m: the model with its tokenizer, from `load`.
        regions: a BED file; a polars or pandas frame with the columns chrom, start and end, or
            tuples of these (0-based half-open); `Interval` objects; texts like "chr1:101-200"
            (from 1, the last base included); a contig's name; "all" for every contig.
        genome: their genome: a `Genome`, a FASTA file (plain or bgzip), or a folder of
            `caduceus-jax prepare`.
        options: all of the following in one value; those that are also passed replace its own.
        progress: show on standard error how far it is.
        **fields: options.

    Returns:
        One row per base, region by region in the order given: chrom, pos (from 1), ref, status,
        logp_A, logp_C, logp_G, logp_T (natural logarithms of the probabilities), logp (that of
        ref) and entropy (in bits, of the four probabilities made to sum to 1); float32, null unless
        the status is ok. A region that is not on the genome has one row.

    Raises:
        UserError: an input cannot be read, or an option makes no sense.

    Examples:
        >>> import caduceus_jax as cj
        >>> frame = cj.likelihood(cj.load(model), "chr1:21-23", genome, context_length=31)
        >>> frame.select("chrom", "pos", "ref", "status").rows()
        [('chr1', 21, 'A', 'ok'), ('chr1', 22, 'C', 'ok'), ('chr1', 23, 'G', 'ok')]
    """
    options, reference = chosen(Masking, options, fields), as_genome(genome)
    places = as_intervals(regions, reference)
    results = per_base(as_pretrained(m), reference, places, options, progress=progress)
    return polars.concat(likelihood_tables(results))


def likelihood_tables(results: PerBase) -> Iterator[polars.DataFrame]:
    """Returns the table of `likelihood` in parts."""
    return results.tables(_SCHEMA, _table)


def track_values(chunk: BaseChunk, track: Track) -> Float[np.ndarray, " bases"]:
    """Finds out what a bigWig file has for each base of a chunk: NaN where there is none.

    Args:
        chunk: bases of one region.
        track: "logp", "entropy" or "information".
    """
    if track == "logp":
        return _of_reference(chunk)
    return (entropy if track == "entropy" else information)(chunk.log_probabilities)


def _of_reference(chunk: BaseChunk) -> Float[np.ndarray, " bases"]:
    return chunk.log_probabilities[np.arange(len(chunk.base)), chunk.base]


def _table(chunk: BaseChunk, on_contig: bool) -> dict[str, Any]:
    values = chunk.log_probabilities
    return {
        "chrom": [chunk.chrom] * len(chunk.base),
        "pos": chunk.start + 1 + np.arange(len(chunk.base)),
        "ref": _LETTERS[chunk.base].tolist() if on_contig else [None],
        "status": chunk.status.tolist(),
        **{f"logp_{base}": values[:, i] for i, base in enumerate(BASES)},
        "logp": _of_reference(chunk),
        "entropy": entropy(values),
    }
