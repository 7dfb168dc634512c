"""Computes a store of scores, in constant memory, and writes it: all of it or nothing."""

import json
import logging
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.output import OutputError
from caduceus_jax.genomics.genome_wide.estimate import say_estimate
from caduceus_jax.genomics.genome_wide.store import (
    ENDINGS,
    ScoreStore,
    StoredContig,
    bases_digest,
    folder_of,
    is_store,
    write_group,
)
from caduceus_jax.genomics.genome_wide.zarr_array import ArrayWriter
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.options import Masking, resolved
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.journal import Journal, open_journal, run_record
from caduceus_jax.genomics.scoring.per_base import MergedIntervals, PerBase, PerBaseWork
from caduceus_jax.genomics.scoring.shards import Shard, finish, open_shard
from caduceus_jax.genomics.status import summarise
from caduceus_jax.inference import blocks
from caduceus_jax.inference.blocks import Part, run_work
from caduceus_jax.inference.loading import Pretrained, load

log = logging.getLogger(__name__)

_NUMBERS = "<f2"  # in the store, and in its journal


def wants_store(out: list[pathlib.Path]) -> bool:
    """Tells whether a command is to write a store.

    Args:
        out: the outputs that it was called with.

    Raises:
        UserError: a store is one of several outputs.
    """
    stores = [path for path in out if path.suffix in ENDINGS]
    if stores and len(out) > 1:
        raise UserError(f"{stores[0]} is a store of scores, which is written alone: name it alone")
    return bool(stores)


def check_store_output(out: pathlib.Path) -> None:
    """Finds out before the work that a store can be written.

    Args:
        out: its path.

    Raises:
        UserError: there is something else, or the folder that it lies in does not exist.
    """
    if not out.parent.is_dir():
        raise UserError(f"cannot write {out}: {out.parent} is not a directory")
    if out.exists() and not is_store(out):
        raise UserError(f"cannot write {out}: it is there already and not a store of scores")


def compute_store(
    model: str,
    places: tuple[Intervals, str],
    genome: Genome,
    options: Masking,
    *,
    dtype: str,
    out: pathlib.Path,
    restart: bool,
    shard: Shard | None,
    skip_bad: bool,
) -> None:
    """Masks every base of regions and writes what the model predicts there into a store.

    What is computed is kept in a journal, so that the same command continues a run that was
    interrupted; a store appears when it is complete.

    Args:
        model: folder, run or hub id.
        places: regions, and what tells them from others.
        genome: the genome that they lie on.
        options: the verb's options.
        dtype: type of matrix products and activations.
        out: the store to write.
        restart: start over, and replace an existing store.
        shard: compute this part alone, and keep it.
        skip_bad: regions that are not on the genome are not an error.

    Raises:
        UserError: the store or the journal is another run's, or regions are not on the genome
            (then the store is written first).
    """
    check_store_output(out)
    use_cores()
    regions, identity = places
    m, options = load(model, dtype), resolved(options)
    record = run_record(
        m,
        "likelihood",
        options=options,
        regions=identity,
        genome=genome.identity,
        numbers=_NUMBERS,
    )
    results = PerBase(regions, genome)
    work = PerBaseWork(results, m, options)
    how: dict[str, Any] = {"restart": restart, "dtype": _NUMBERS}
    if shard is not None:
        with open_shard(shard, out, record, **how) as journal:
            finish(_computed(m, work, journal, shard.numbers))
        return
    with open_journal(out.with_name(f"{out.name}.journal"), record, **how) as journal:
        if out.exists() and not restart and _is_complete(out, record):
            return
        parts = _computed(m, work, journal, None)
        run = {**record, "model_path": model}
        _write(out, parts, results.merged, genome, run)
    if work.padded:
        log.info(
            f"the contexts of {work.padded:,} bases extend past the end of a contig and are padded "
            "with N"
        )
    more = f"; {results.merged.bases:,} bases"
    names = regions.name
    summarise("regions", names, results.status, [out], genome.path, skip_bad=skip_bad, more=more)


def _computed(
    m: Pretrained,
    work: PerBaseWork,
    journal: Journal,
    of_shards: tuple[int, int] | None,
) -> Iterator[Part[np.ndarray]]:
    """Yields the values of each block, float16."""
    numbers = range(len(work.parts))
    if of_shards is not None:
        numbers = blocks.shard(work.weights, *of_shards)
    say_estimate(m.model, work, numbers, journal.kept)
    run: dict[str, Any] = {"journal": journal, "progress": True, "of_shards": of_shards}
    for part in run_work(m.model, work, what="scoring", unit="bases", **run):
        yield Part(part.rows, part.frame.astype(np.float16))


def _is_complete(out: pathlib.Path, record: Mapping[str, Any]) -> bool:
    """Tells whether a store is there already; refuses another run's."""
    there = ScoreStore(out).run
    plain = json.loads(json.dumps(dict(record)))  # as it was read: tuples are lists
    differing = [key for key in plain if there.get(key) != plain[key]]
    if differing:
        raise UserError(
            f"{out} has the scores of another run, which differs in {', '.join(differing)}: name "
            "another output, or pass `restart`, which replaces it"
        )
    log.info(f"{out} is complete: nothing is left to compute")
    return True


def _write(
    out: pathlib.Path,
    parts: Iterable[Part[np.ndarray]],
    merged: MergedIntervals,
    genome: Genome,
    run: Mapping[str, Any],
) -> None:
    """Writes a store beside its place, and moves it there when it is complete."""
    out = out.resolve() if out.is_symlink() else out
    # One name, so that what a killed process left is found; the journal's lock keeps others out.
    partial, old = (out.with_name(f".{out.name}.{kind}") for kind in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        contigs = list(_contigs(partial, parts, merged, genome))
        write_group(partial, run, contigs)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.replace(old)
        partial.replace(out)
        shutil.rmtree(old, ignore_errors=True)
    except UserError:
        raise
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _contigs(
    folder: pathlib.Path,
    parts: Iterable[Part[np.ndarray]],
    merged: MergedIntervals,
    genome: Genome,
) -> Iterator[StoredContig]:
    """Writes the arrays of all contigs; yields each when it is complete."""
    current, writer, name = -1, None, ""

    def finished() -> StoredContig:
        """Completes the array that is being written."""
        assert writer is not None
        length, bases = int(genome.lengths[current]), bases_digest(genome, current)
        return StoredContig(genome.names[current], length, name, bases, writer.close())

    try:
        for contig, start, values in _placed(parts, merged):
            if contig != current:
                if writer is not None:
                    yield finished()
                current, name = contig, folder_of(genome.names[contig], contig)
                writer = ArrayWriter(folder / name, int(genome.lengths[contig]))
            assert writer is not None
            writer.write(start, values)
        if writer is not None:
            yield finished()
    finally:
        if writer is not None:
            writer.abandon()


def _placed(
    parts: Iterable[Part[np.ndarray]], merged: MergedIntervals
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields stretches of one contig: its number, the first base and the values there."""
    offset = merged.offset
    for part in parts:
        first = part.rows.start
        while first < part.rows.stop:
            interval = int(np.searchsorted(offset, first, side="right")) - 1
            start = int(merged.start[interval]) + first - int(offset[interval])
            count = min(int(merged.end[interval]) - start, part.rows.stop - first)
            at = first - part.rows.start
            yield int(merged.contig[interval]), start, part.frame[at : at + count]
            first += count
