"""Files of results at every base: tables and bigWig tracks, written a chunk at a time."""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.devices import use_cores
from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.output import check_output
from caduceus_jax.genomics.files.table_files import TABLES, table_writer
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.options import Masking, fitted, resolved
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import as_intervals, is_path
from caduceus_jax.genomics.scoring.journal import open_journal, run_record
from caduceus_jax.genomics.scoring.per_base import BaseChunk, PerBase, per_base
from caduceus_jax.genomics.scoring.shards import Shard, open_shard
from caduceus_jax.genomics.status import Status, counted, summarise, tell_how_to_read_scores
from caduceus_jax.inference.loading import load

log = logging.getLogger(__name__)

TRACK = ".bw"
FORMATS: dict[str, str | None] = {**TABLES, TRACK: "pyBigWig"}
T = TypeVar("T", bound=str)


def check_track_files(
    outputs: Mapping[pathlib.Path, str], tracks: Sequence[T]
) -> list[tuple[pathlib.Path, str, T]]:
    """Returns the files to write: one per track where several tracks are wanted.

    Args:
        outputs: files and their endings.
        tracks: the kinds of values that a bigWig file can have.

    Returns:
        Each file with its ending and its track.

    Raises:
        UserError: one of them cannot be written.
    """
    files = []
    for path, ending in outputs.items():
        for name in tracks if ending == TRACK else tracks[:1]:
            file = path
            if ending == TRACK and len(tracks) > 1:
                file = path.with_name(f"{path.name.removesuffix(TRACK)}.{name}{TRACK}")
                check_output(file, FORMATS)
            files.append((file, ending, name))
    return files


def region_inputs(regions: str, genome: Genome) -> tuple[Intervals, str]:
    """Returns the regions of a command line, and what tells them from others.

    Raises:
        UserError: no such file or contig, or what is not a region.
    """
    if regions in genome.names or not is_path(regions):
        return as_intervals(regions, genome), regions
    source = Input(regions)
    places = as_intervals(source, genome)
    return places, source.digest()


@contextlib.contextmanager
def computed_bases(
    verb: str,
    model: str,
    places: tuple[Intervals, str],
    genome: Genome,
    options: Masking,
    *,
    dtype: str,
    out: pathlib.Path,
    restart: bool,
    shard: Shard | None = None,
    compute: Callable[..., Any] = per_base,
) -> Iterator[Any]:
    """Runs a command on every base of regions; the journal is removed when the block is done.

    Args:
        verb: the command.
        model: folder, run or hub id.
        places: regions and their identity, from `region_inputs`.
        genome: the genome that the regions lie on.
        options: the verb's options.
        dtype: type of matrix products and activations.
        out: the first output, beside which the journal is kept.
        restart: start over instead of continuing an interrupted run.
        shard: compute this part alone, and keep it.
        compute: computes the results, with the arguments of `per_base`.

    Yields:
        The results.
    """
    use_cores()
    regions, identity = places
    m = load(model, dtype)
    options = fitted(m, None, options)[1] if verb == "mutagenesis" else resolved(options)
    record = run_record(m, verb, options=options, regions=identity, genome=genome.identity)
    run: dict[str, Any] = {"folder": out.resolve().parent, "progress": True}
    if shard is not None:
        with open_shard(shard, out, record, restart=restart) as journal:
            run["of_shards"] = shard.numbers
            yield compute(m, genome, regions, options, journal=journal, **run)
        return
    with open_journal(out.with_name(f"{out.name}.journal"), record, restart=restart) as journal:
        yield compute(m, genome, regions, options, journal=journal, **run)


def write_bases(
    path: pathlib.Path,
    ending: str,
    results: PerBase,
    tables: Callable[[PerBase], Iterator[polars.DataFrame]],
    value: Callable[[BaseChunk], Float[np.ndarray, " bases"]],
) -> None:
    """Writes a table, or a bigWig file with one value for each base, however many regions it is in.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        ending: ending of the file's name.
        results: results from `per_base`.
        tables: makes the table in parts.
        value: computes the value of each base of a chunk; NaN is left out.
    """
    if ending != TRACK:
        with table_writer(path, ending) as write:
            for frame in tables(results):
                write(frame)
        return
    genome = results.genome
    contigs = zip(genome.names, genome.lengths.tolist(), strict=True)
    chunks = results.merged_chunks()
    values: Any = ((genome.names[c.contig], c.start, value(c)) for c in chunks)
    write_bigwig(path, contigs, values)


def summarise_bases(results: PerBase, out: Sequence[pathlib.Path], *, skip_bad: bool) -> None:
    """Logs what became of regions and bases, and where they are.

    Raises:
        UserError: regions are not on the genome; everything is written all the same.
    """
    of_bases = [chunk.status for chunk in results.merged_chunks()]
    status = np.concatenate([np.empty(0, np.str_), *of_bases])
    others = status[status != Status.OK]
    bases = f"; {results.merged.bases:,} bases" + (f", {counted(others)}" if len(others) else "")
    names = results.regions.name
    genome = results.genome.path
    if len(others) < len(status):
        tell_how_to_read_scores()
    summarise("regions", names, results.status, out, genome, skip_bad=skip_bad, more=bases)
