"""Files of predicted tracks: tables with one row per bin, and bigWig files."""

import contextlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars

from caduceus_jax.genomics.files.bigwig import write_bigwig_bins
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_output, replacing
from caduceus_jax.genomics.files.table_files import table_writer
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.finetuned.tracks import TrackPlaces, TrackWork, track_bins, track_places
from caduceus_jax.genomics.options import Prediction
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.journal import open_journal
from caduceus_jax.genomics.scoring.shards import Shard, finish, open_shard
from caduceus_jax.inference.blocks import run_work
from caduceus_jax.inference.loading import Pretrained

TRACK = ".bw"


def track_files(
    out: pathlib.Path, ending: str, names: Sequence[str]
) -> dict[pathlib.Path, str | None]:
    """Returns the files to write, and the track of each: None for all of them.

    Args:
        out: file that was named.
        ending: ending of its name.
        names: names of the model's tracks.

    Raises:
        UserError: one of them cannot be written.
    """
    if ending != TRACK:
        return {out: None}
    if len(names) == 1:
        return {out: names[0]}
    files: dict[pathlib.Path, str | None] = {}
    for name in names:
        word = re.sub(r"[^\w.+-]", "_", name)
        while (path := out.with_name(f"{out.name.removesuffix(TRACK)}.{word}{TRACK}")) in files:
            word += "_"
        check_output(path, {TRACK: "pyBigWig"})
        files[path] = name
    return files


def write_tracks(
    m: Pretrained,
    sequences: Input,
    genome: Genome | None,
    options: Prediction,
    record: Mapping[str, Any],
    out: pathlib.Path,
    ending: str,
    *,
    column: str,
    part: Shard | None,
    restart: bool,
) -> TrackPlaces | None:
    """Predicts tracks and writes them; an interrupted run is continued.

    Args:
        m: a model of tracks with its tokenizer.
        sequences: the input.
        genome: the genome that regions and records lie on.
        options: the verb's options.
        record: record of the run, from `run_record`.
        out: file that was named.
        ending: ending of its name.
        column: column of a table that has the sequences.
        part: the shard to compute in place of the output.
        restart: start over instead of continuing an interrupted run.

    Returns:
        The regions or sequences; None where a shard was computed.

    Raises:
        UserError: an input cannot be read, or an output cannot be written.
    """
    outputs = Outputs.of(m)
    files = track_files(out, ending, outputs.names)
    places = track_places(sequences, genome, outputs, options, column=column)
    work = TrackWork(m, places, outputs, options.batch_size)
    run: dict[str, Any] = {"what": "predicting", "unit": places.what, "progress": True}
    if part is not None:
        with open_shard(part, out, record, restart=restart) as journal:
            finish(run_work(m.model, work, journal=journal, of_shards=part.numbers, **run))
        return None
    with open_journal(out.with_name(f"{out.name}.journal"), record, restart=restart) as journal:
        parts = (found.frame for found in run_work(m.model, work, journal=journal, **run))
        if ending != TRACK:
            with replacing(out) as partial, table_writer(partial, ending) as write:
                write(work.empty())
                for frame in parts:
                    write(frame)
            return places
        assert genome is not None
        frame = polars.concat([work.empty(), *parts])
        with contextlib.ExitStack() as whole:
            for path, name in files.items():
                partial = whole.enter_context(replacing(path))
                contigs = zip(genome.names, genome.lengths.tolist(), strict=True)
                write_bigwig_bins(partial, contigs, track_bins(frame, genome, f"predicted_{name}"))
    return places
