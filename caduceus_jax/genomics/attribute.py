"""Attributions of sequences and regions: which bases matter to a model."""

import logging
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
import polars

from caduceus_jax.genomics.options import Attribution, chosen
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnySequences, as_sequences
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.scoring.attributions import (
    BASES,
    Attributed,
    AttributionWork,
    attribution_of_bases,
    completeness_gap,
)
from caduceus_jax.genomics.signatures import AttributionFields, takes_fields
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import Part, run_work
from caduceus_jax.inference.loading import AnyPretrained, Pretrained, as_pretrained

log = logging.getLogger(__name__)

_LETTERS = np.array([*BASES, "N"])
_VALUES = ("attribution", *(f"attribution_{base}" for base in BASES), "output", "output_baseline")


@takes_fields(Attribution)
def attribute(
    m: AnyPretrained,
    sequences: AnySequences,
    *,
    genome: AnyGenome | None = None,
    sequence: str = "sequence",
    options: Attribution | None = None,
    progress: bool = False,
    **fields: Unpack[AttributionFields],
) -> polars.DataFrame:
    """Attributes a language model's log-likelihood, or a fine-tuned model's output, to the bases.

    The likelihood is the sum of the log-probabilities of all bases of a sequence, none of them
    masked; or, with `window`, of the bases in its middle, which are masked together: what in their
    surroundings makes the model expect them. The output of a classifier is the log-odds of a class,
    of other fine-tuned models the value, and of a model of tracks the mean of the track.

    The methods are

      gradient_x_input      the gradient at the sequence, less its mean over the four bases
                            (Majdandzic et al. 2023): the contribution of each base
      gradient              the same; the attribution is the gradient's Euclidean norm
      integrated_gradients  the mean gradient on the way from a baseline (Sundararajan et al. 2017):
                            the contributions of a sequence add up to its output less the baseline's
      mutagenesis           the outputs of all sequences with one base changed, less their mean over
                            the four bases: exact, and as slow as three passes per base

    An equivariant model's attributions of a reverse complement are those of the sequence turned
    around.

    Args:
        m: model from `load`: a language model, a classifier or a model of tracks.
        sequences: texts of DNA of any lengths; a FASTA file; a table in a file or a polars or
            pandas frame with a column of sequences. Or, with `genome`: a BED file, `Interval`
            objects, texts like "chr1:101-200" (from 1, the last base included), a frame with the
            columns chrom, start and end (0-based half-open); a VCF file, `Variant` objects, or a
            frame with the columns chrom, pos (from 1), ref and alt.
        genome: the genome of regions and variants: a `Genome`, a FASTA file (plain or bgzip), or a
            folder of `caduceus-jax prepare`.
        sequence: column of a table that has the sequences.
        options: all of the following in one value; those that are also passed replace its own.
        progress: show on standard error how far it is.
        **fields: options.

    Returns:
        One row per base that is read, sequence by sequence in the order given, on the + strand:
        name; chrom, where there is a genome; pos (from 1, on the contig or in the sequence); ref;
        status; attribution, that of ref; attribution_A, attribution_C, attribution_G and
        attribution_T, of each base if it were there (hypothetical contributions); output, what is
        attributed; and output_baseline, that of the baseline, null for other methods. float32, null
        unless the status is ok. A region that is not on the genome has one row.

    Raises:
        UserError: an input cannot be read, a sequence is too long, or an option does not fit the
            model.

    Examples:
        >>> import caduceus_jax as cj
        >>> frame = cj.attribute(cj.load(model), ["ACGTTGCA"], method="gradient_x_input")
        >>> frame.select("name", "pos", "ref", "status").rows()[:2]
        [('0', 1, 'A', 'ok'), ('0', 2, 'C', 'ok')]
    """
    options = chosen(Attribution, options, fields)
    read = attributed_sequences(sequences, genome, options, sequence=sequence)
    _, parts = attribution(as_pretrained(m), read, options, progress=progress)
    tables = (attribution_table(read, part.rows, part.frame, options) for part in parts)
    return polars.concat([attribution_table(read, range(0), [], options), *tables])


def attributed_sequences(
    sequences: AnySequences, genome: AnyGenome | None, options: Attribution, *, sequence: str
) -> Sequences:
    """Reads what is attributed, the - strand as its 5' to 3'.

    Args:
        sequences: sequences in any accepted form.
        genome: the genome that regions and records lie on.
        options: the verb's options.
        sequence: column of a table that has the sequences.

    Raises:
        UserError: an input cannot be read, or a sequence is too long.
    """
    read, _ = as_sequences(
        sequences,
        genome,
        context_length=options.context_length,
        edge=options.edge,
        max_length=options.max_length,
        oriented=True,
        column=sequence,
    )
    return read


def attribution(
    m: Pretrained, sequences: Sequences, options: Attribution, **run: Any
) -> tuple[AttributionWork, Iterator[Part[list[Attributed]]]]:
    """Attributes in parts, for outputs that are larger than memory.

    Args:
        m: the model.
        sequences: the sequences to attribute.
        options: the verb's options.
        **run: the keyword arguments of `run_work`.

    Returns:
        The work, and its parts in order as they are computed.

    Raises:
        UserError: options that do not go with the model, or a sequence that it cannot read.
    """
    work = AttributionWork(m, sequences, options)
    parts = run_work(m.model, work, what="attributing", unit=sequences.what, **run)
    return work, _watched(parts)


def _watched(parts: Iterator[Part[list[Attributed]]]) -> Iterator[Part[list[Attributed]]]:
    """Yields the parts as they pass; warns where integrated gradients do not add up."""
    gaps: list[float] = []
    for part in parts:
        gaps += [completeness_gap(one) for one in part.frame if not np.isnan(one.start)]
        yield part
    if count := sum(gap > 0.01 for gap in gaps):
        log.warning(
            f"the contributions of {count:,} of {len(gaps):,} sequences differ by more than 1 % "
            f"(at most {100 * max(gaps):.2g} %) from what they add up to: pass more `steps`"
        )


def attribution_table(
    sequences: Sequences, rows: range, attributed: list[Attributed], options: Attribution
) -> polars.DataFrame:
    """Makes the table of some sequences, a row per base.

    Args:
        sequences: all of them.
        rows: which of them.
        attributed: attributions of those rows that have any.
        options: the verb's options.
    """
    found = {one.row: one for one in attributed}
    frame, on_genome = sequences.frame, "window_start" in sequences.frame.columns
    places = {"name": polars.String} | ({"chrom": polars.String} if on_genome else {})
    schema = {**places, "pos": polars.Int64, "ref": polars.String, "status": polars.String}
    schema |= dict.fromkeys(_VALUES, polars.Float32)
    tables = [polars.DataFrame(schema=schema)]
    for row in rows:
        first = int(frame["window_start"][row]) if on_genome else 0
        if row in found:
            columns = _columns(found[row], first, options)
        else:
            start = frame["pos"][row] - 1 if "pos" in frame.columns else frame["start"][row]
            empty = np.full(1, np.nan, np.float32)
            columns = {"pos": [start + 1], "ref": [None], "status": [str(sequences.status[row])]}
            columns |= dict.fromkeys(_VALUES, empty)
        count = len(columns["pos"])
        named = {name: [frame[name][row]] * count for name in places}
        table = polars.DataFrame(named | columns, schema=schema)
        if on_genome and row in found:
            # What lies beyond the contig is padding, of which there is nothing to be known.
            length = int(frame["window_end"][row]) - first
            padding = int(frame["padding"][row])
            left = min(max(-first, 0), padding)
            table = table[left : length - (padding - left)]
        tables.append(table.with_columns(polars.col(_VALUES).fill_nan(None)))
    return polars.concat(tables)


def _columns(one: Attributed, first: int, options: Attribution) -> dict[str, Any]:
    four, base = one.contributions, one.base
    known = base >= 0
    values = attribution_of_bases(four, base, options.method)
    nothing = np.float32(np.nan)
    return {
        "pos": first + 1 + np.arange(len(base)),
        "ref": _LETTERS[base].tolist(),
        "status": np.where(known, Status.OK.value, Status.AMBIGUOUS.value).tolist(),
        "attribution": values,
        **{f"attribution_{letter}": four[:, i] for i, letter in enumerate(BASES)},
        "output": np.where(known, np.float32(one.output), nothing),
        "output_baseline": np.where(known, np.float32(one.start), nothing),
    }
