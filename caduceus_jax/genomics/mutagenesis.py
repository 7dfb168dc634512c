"""In-silico saturation mutagenesis."""

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.genomics.files.alleles import BASES
from caduceus_jax.genomics.finetuned.mutations import Track, mutations
from caduceus_jax.genomics.options import Masking, chosen
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnyRegions, as_genome, as_intervals
from caduceus_jax.genomics.scoring.per_base import BaseChunk, PerBase, per_base
from caduceus_jax.genomics.signatures import MaskingFields, takes_fields
from caduceus_jax.inference.loading import AnyPretrained, as_pretrained
from caduceus_jax.model.heads import CaduceusForMaskedLM

_LETTERS = np.array(list(BASES))
_TEXTS = dict.fromkeys(("ref", "alt", "status"), polars.String)
_SCHEMA = {"chrom": polars.String, "pos": polars.Int64, **_TEXTS, "llr": polars.Float32}


@takes_fields(Masking)
def mutagenesis(
    m: AnyPretrained,
    regions: AnyRegions,
    genome: AnyGenome,
    *,
    options: Masking | None = None,
    progress: bool = False,
    **fields: Unpack[MaskingFields],
) -> polars.DataFrame:
    """Scores every single-base change of regions: in-silico saturation mutagenesis.

    The score is that of `score_variants`. Of a language model it is that of mode "llr":
    log p(alt) - log p(ref) where the base is masked, given the sequence around it; negative scores
    mean that the change is less expected there than the genome's base. Of a fine-tuned model it is
    that of mode "output": what the change does to the model's outputs for the sequence around it,
    one pass for each change and one for the genome's sequence.

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
        Three rows per base in the order A, C, G, T, region by region in the order given: chrom,
        pos (from 1), ref, alt, status and llr (natural logarithm, float32) or, of a fine-tuned
        model, the columns of `score_variants`, null unless the status is ok. An N of the genome has
        one row without alt.

    Raises:
        UserError: an input cannot be read, or an option makes no sense or does not go with the
            model.

    Examples:
        >>> import caduceus_jax as cj
        >>> frame = cj.mutagenesis(cj.load(model), "chr1:21-22", genome, context_length=31)
        >>> frame.select("pos", "ref", "alt").rows()[:3]
        [(21, 'A', 'C'), (21, 'A', 'G'), (21, 'A', 'T')]
    """
    options, reference = chosen(Masking, options, fields), as_genome(genome)
    places, m = as_intervals(regions, reference), as_pretrained(m)
    if not isinstance(m.model, CaduceusForMaskedLM):
        return polars.concat(mutations(m, reference, places, options, progress=progress).tables())
    results = per_base(m, reference, places, options, progress=progress)
    return polars.concat(mutagenesis_tables(results))


def mutagenesis_tables(results: PerBase) -> Iterator[polars.DataFrame]:
    """Returns the table of `mutagenesis` in parts."""
    return results.tables(_SCHEMA, _table)


def track_values(chunk: BaseChunk, track: Track) -> Float[np.ndarray, " bases"]:
    """Finds out what a bigWig file has for each base of a chunk: NaN where there is none.

    Args:
        chunk: bases of one region.
        track: the "mean" of a base's three scores, or their "minimum".
    """
    # Sorting puts the NaN of the genome's base last.
    three = np.sort(_ratios(chunk), axis=1)[:, :3]
    return three.mean(axis=1) if track == "mean" else three[:, 0]


def _ratios(chunk: BaseChunk) -> Float[np.ndarray, "bases 4"]:
    """Returns the scores of A, C, G and T; NaN for the genome's base and where there is none."""
    rows = np.arange(len(chunk.base))
    ratios = chunk.log_probabilities - chunk.log_probabilities[rows, chunk.base][:, None]
    ratios[rows, chunk.base] = np.nan
    return ratios


def _table(chunk: BaseChunk, on_contig: bool) -> dict[str, Any]:
    known = chunk.base >= 0
    # One row for a base that is not known: its first.
    kept = np.arange(4) != chunk.base[:, None]
    kept[~known] = np.arange(4) == 0
    base, alt = np.nonzero(kept)
    ref = np.where(known, _LETTERS[chunk.base], "N" if on_contig else "")[base]
    letters = zip(base, _LETTERS[alt].tolist(), strict=True)
    return {
        "chrom": [chunk.chrom] * len(base),
        "pos": chunk.start + 1 + base,
        "ref": [letter or None for letter in ref.tolist()],
        "alt": [letter if known[row] else None for row, letter in letters],
        "status": chunk.status[base].tolist(),
        "llr": _ratios(chunk)[kept],
    }
