"""Predictions of a fine-tuned model for sequences, regions and variants' surroundings."""

from collections.abc import Iterator
from typing import Any, Unpack

import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.finetuned.tracks import TrackPlaces, TrackWork, track_places
from caduceus_jax.genomics.options import Prediction, chosen
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnySequences, as_sequences
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.scoring.predictions import PredictionWork
from caduceus_jax.genomics.signatures import PredictionFields, takes_fields
from caduceus_jax.inference.blocks import Part, run_work
from caduceus_jax.inference.loading import AnyPretrained, Pretrained, as_pretrained
from caduceus_jax.model.tracks import CaduceusForTracks


@takes_fields(Prediction)
def predict(
    m: AnyPretrained,
    sequences: AnySequences,
    *,
    genome: AnyGenome | None = None,
    sequence: str = "sequence",
    options: Prediction | None = None,
    progress: bool = False,
    **fields: Unpack[PredictionFields],
) -> polars.DataFrame:
    """Predicts classes with their probabilities, values, or tracks, with a fine-tuned model.

    A model of tracks gives a value for each bin. It reads a region as it is, from its first base
    on and completed to whole bins at its end, or the `context_length` bases around its middle. One
    that is longer than that, or than the model was trained on, is read in windows that overlap by
    half, and each bin is taken from the window in whose middle it lies nearest.

    Args:
        m: model from `load`: a folder that `caduceus-jax finetune` wrote, or another classifier.
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
        One row per sequence in the order given, with a table's own columns, or those that `embed`
        gives; status; and, of a classifier, `predicted`, the most probable class, and its
        probability of each class as `p_CLASS`, float32; otherwise the values as `predicted_NAME`,
        float32. Null where the status is not ok. Of a model of tracks one row per bin: name; chrom,
        where there is a genome; start and end (0-based half-open, on the + strand of the contig, or
        in the sequence; the last bin ends with the region); status; and predicted_TRACK, float32.
        A region that is not on the genome has one row.

    Raises:
        UserError: an input cannot be read, a sequence is too long, or the model was not fine-tuned.

    Examples:
        >>> import caduceus_jax as cj
        >>> frame = cj.predict(cj.load(classifier), ["ACGTTGCA", "GGCATTA"])
        >>> frame.columns
        ['name', 'length', 'status', 'predicted', 'p_LABEL_0', 'p_LABEL_1']
    """
    options, m = chosen(Prediction, options, fields), as_pretrained(m)
    if isinstance(m.model, CaduceusForTracks):
        outputs = Outputs.of(m)
        places = track_places(sequences, genome, outputs, options, column=sequence)
        work, parts = track_prediction(m, places, outputs, options, progress=progress)
        return polars.concat([work.empty(), *(part.frame for part in parts)])
    read, table = predicted_sequences(sequences, genome, options, sequence=sequence)
    work, parts = prediction(m, read, options, progress=progress)
    frame = polars.concat([work.empty(), *(part.frame for part in parts)])
    return frame if table is None else with_predictions(table, frame, work)


def predicted_sequences(
    sequences: AnySequences, genome: AnyGenome | None, options: Prediction, *, sequence: str
) -> tuple[Sequences, polars.DataFrame | None]:
    """Reads what is predicted, the - strand as its 5' to 3', and the table it came in.

    Args:
        sequences: sequences in any accepted form.
        genome: the genome that regions and records lie on.
        options: the verb's options.
        sequence: column of a table that has the sequences.

    Raises:
        UserError: an input cannot be read, or a sequence is too long.
    """
    return as_sequences(
        sequences,
        genome,
        context_length=options.context_length,
        edge=options.edge,
        max_length=options.max_length,
        oriented=True,
        column=sequence,
    )


def prediction(
    m: Pretrained, sequences: Sequences, options: Prediction, **run: Any
) -> tuple[PredictionWork, Iterator[Part[polars.DataFrame]]]:
    """Predicts in parts, for outputs that are larger than memory.

    Args:
        m: the model.
        sequences: the sequences to predict.
        options: the verb's options.
        **run: the keyword arguments of `run_work`.

    Returns:
        The work, and its parts in order as they are computed.

    Raises:
        UserError: the model was not fine-tuned, or cannot be used so.
    """
    work = PredictionWork(m, sequences, options)
    return work, run_work(m.model, work, what="predicting", unit=sequences.what, **run)


def track_prediction(
    m: Pretrained, places: TrackPlaces, outputs: Outputs, options: Prediction, **run: Any
) -> tuple[TrackWork, Iterator[Part[polars.DataFrame]]]:
    """Predicts tracks in parts, for outputs that are larger than memory.

    Args:
        m: a model of tracks with its tokenizer.
        places: the regions or sequences.
        outputs: the model's outputs.
        options: the verb's options.
        **run: the keyword arguments of `run_work`.

    Returns:
        The work, and its parts in order as they are computed: tables with one row per bin.
    """
    work = TrackWork(m, places, outputs, options.batch_size)
    return work, run_work(m.model, work, what="predicting", unit=places.what, **run)


def with_predictions(
    table: polars.DataFrame, frame: polars.DataFrame, work: PredictionWork
) -> polars.DataFrame:
    """Returns a table of sequences with the status of each and its predictions.

    Args:
        table: the table that the sequences came in.
        frame: predictions for the same rows.
        work: the work that made the predictions.

    Raises:
        UserError: the table has columns of these names already.
    """
    new = ["status", *work.columns]
    if taken := [name for name in new if name in table.columns]:
        raise UserError(f"the table has a column {taken[0]} already: rename it")
    return table.hstack(frame.select(new))
