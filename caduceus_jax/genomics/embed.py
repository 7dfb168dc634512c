"""Embeddings of sequences, regions and variants' surroundings."""

from collections.abc import Iterator
from typing import Any, Unpack

import polars

from caduceus_jax.genomics.options import Embedding, chosen
from caduceus_jax.genomics.reference.inputs import AnyGenome, AnySequences, as_sequences
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.scoring.embeddings import EmbeddingWork
from caduceus_jax.genomics.signatures import EmbeddingFields, takes_fields
from caduceus_jax.inference.blocks import Part, run_work
from caduceus_jax.inference.embeddings import Reading, reading
from caduceus_jax.inference.loading import AnyPretrained, Pretrained, as_pretrained


@takes_fields(Embedding)
def embed(
    m: AnyPretrained,
    sequences: AnySequences,
    *,
    genome: AnyGenome | None = None,
    sequence: str = "sequence",
    options: Embedding | None = None,
    progress: bool = False,
    **fields: Unpack[EmbeddingFields],
) -> polars.DataFrame:
    """Embeds DNA: one vector per sequence, or one per base.

    No vector depends on the other sequences.

    Args:
        m: model from `load`; any model with a Caduceus backbone.
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
        One row per sequence in the order given: name and length; or, for regions, name, chrom,
        start, end, window_start, window_end (of what was read) and padding (bases of it beyond the
        contig, read as N); for records the same with pos (from 1) for start and end. All positions
        but pos are 0-based half-open. Then status, and embedding: an array of float32, or with
        pooling "none" a list of them; null unless the status is ok. A region's strand is used
        where strands are not averaged, and is then a column.

    Raises:
        UserError: an input cannot be read, a sequence is too long, or an option or a tokenizer
            does not fit.

    Examples:
        >>> import caduceus_jax as cj
        >>> frame = cj.embed(cj.load(model), ["ACGTTGCA", "GGCATTA"])
        >>> frame.select("name", "length", "status").rows()
        [('0', 8, 'ok'), ('1', 7, 'ok')]
        >>> frame["embedding"].to_numpy().shape
        (2, 16)
    """
    options = chosen(Embedding, options, fields)
    pretrained = as_pretrained(m)
    how = read_states(pretrained, options)
    oriented = how.strands != "mean"
    read = embedded_sequences(sequences, genome, options, oriented=oriented, sequence=sequence)
    work, parts = embedding(pretrained, read, options, how, progress=progress)
    return polars.concat([work.empty(), *(part.frame for part in parts)])


def read_states(m: Pretrained, options: Embedding) -> Reading:
    """Checks how hidden states are read from the model.

    Raises:
        UserError: a mode that contradicts the model, a layer that it does not have, or a tokenizer
            that is not its own.
    """
    return reading(
        m.model,
        m.tokenizer,
        rc_mode=options.rc_mode,
        concatenate=options.concatenate,
        layer=options.layer,
    )


def embedded_sequences(
    sequences: AnySequences,
    genome: AnyGenome | None,
    options: Embedding,
    *,
    oriented: bool,
    sequence: str,
) -> Sequences:
    """Reads what is embedded.

    Args:
        sequences: sequences in any accepted form.
        genome: the genome that regions and records lie on.
        options: the verb's options.
        oriented: read regions on the - strand as its 5' to 3'.
        sequence: column of a table that has the sequences.

    Raises:
        UserError: an input cannot be read, or a sequence is too long.
    """
    read, _ = as_sequences(
        sequences,
        genome,
        context_length=options.context_length,
        edge=options.edge,
        max_length=None if options.tile is not None else options.max_length,
        oriented=oriented,
        column=sequence,
    )
    return read


def embedding(
    m: Pretrained, sequences: Sequences, options: Embedding, how: Reading, **run: Any
) -> tuple[EmbeddingWork, Iterator[Part]]:
    """Embeds sequences in parts, for outputs that are larger than memory.

    Args:
        m: the model.
        sequences: the sequences to embed.
        options: the verb's options.
        how: hidden states are read.
        **run: the keyword arguments of `run_work`.

    Returns:
        The work, and its parts in order as they are computed.
    """
    work = EmbeddingWork(sequences, options, how)
    return work, run_work(m.model, work, what="embedding", unit=sequences.what, **run)
