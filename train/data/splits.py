"""Splits of genomes: by contig, by position on each contig, or by a BED of intervals."""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.train.data.config import DataConfig, as_list
from caduceus_jax.train.split_names import split_of
from caduceus_jax.train.storage.remote import local_copy

log = logging.getLogger(__name__)


class Block(NamedTuple):
    """A contiguous stretch of one contig of one of the genomes."""

    genome: int  # its number, from 0
    contig: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Splits:
    """Holds the genomes and the blocks of each split.

    Attributes:
        stores: the genomes.
        train: blocks to train on. Those of intervals may overlap each other.
        validation: blocks to validate on.
        test: blocks that are neither trained nor validated on.
        inward: the last window of a block is shifted inward until it fits, as those of intervals
            are; otherwise N completes it.
        avoid: blocks that no training window may touch.
    """

    stores: list[Store]
    train: list[Block]
    validation: list[Block]
    test: list[Block]
    inward: bool = False
    avoid: list[Block] = dataclasses.field(default_factory=list)


def read_splits(stores: list[Store], config: DataConfig, max_length: int) -> Splits:
    """Splits genomes by contigs, by a fraction of each contig, or by intervals.

    Args:
        stores: the genomes.
        config: contigs, a fraction, or intervals to hold out.
        max_length: tokens of a window.

    Raises:
        UserError: contigs that do not exist, or a BED that does not fit the genomes.
    """
    if config.intervals:
        return _by_intervals(stores, config, max_length)
    validated, tested = as_list(config.validation_contigs), as_list(config.test_contigs)
    known = [name for store in stores for name in store.contigs]
    if unknown := [name for name in (*validated, *tested) if name not in known]:
        raise UserError(
            f"contig {unknown[0]}, to be held out, is not in the genome; it has {_some(known)}"
        )
    splits = Splits(stores, [], [], [])
    for genome, store in enumerate(stores):
        lengths = {name: contig.length for name, contig in store.contigs.items()}
        least = _least_contig(store.name, lengths, config.min_contig, max_length)
        kept = {name: length for name, length in lengths.items() if length >= least}
        whole = set() if validated else _held_out_whole(kept, config, max_length)
        for name, length in kept.items():
            # One cut per contig: neighbouring windows share repeats and genes, so splits that
            # interleave would leak.
            cut = length
            if name in tested:
                splits.test.append(Block(genome, name, 0, length))
                continue
            if validated:
                cut = 0 if name in validated else length
            elif whole is not None and name in whole:
                cut = 0
            elif whole is None or length * config.validation_fraction >= max_length:
                cut -= round(length * config.validation_fraction)
            splits.train.extend([Block(genome, name, 0, cut)] if cut else [])
            splits.validation.extend([Block(genome, name, cut, length)] if cut < length else [])
    return splits


def _least_contig(genome: str, lengths: dict[str, int], given: int | None, max_length: int) -> int:
    """Returns the length of the shortest contig that is used, and says what is left out."""
    least = max_length // 2 if given is None else given
    total = sum(lengths.values())
    short = [length for length in lengths.values() if length < least]
    if not short or (given is None and 2 * sum(short) > total):
        return 0 if given is None else least
    log.info(
        f"{genome}: {len(short):,} contigs of less than {least:,} bases, {sum(short) / total:.1%} "
        "of its sequence, are left out (data.min_contig)"
    )
    return least


def _held_out_whole(
    lengths: dict[str, int], config: DataConfig, max_length: int
) -> set[str] | None:
    """Chooses the short contigs that are validated on whole; None where each one is cut.

    The held-out part of a short contig would be less than a window. Where there are many of these,
    every so many of them is held out instead, and the others are trained on whole.
    """
    fraction = config.validation_fraction
    short = [name for name, length in lengths.items() if length * fraction < max_length]
    if len(short) * fraction < 2:
        return None
    chosen, seen, held = set(), 0, 0
    for name in short:
        seen += lengths[name]
        if held + lengths[name] / 2 <= fraction * seen:
            chosen.add(name)
            held += lengths[name]
    return chosen


def _by_intervals(stores: list[Store], config: DataConfig, max_length: int) -> Splits:
    path = resolve_data(str(local_copy("data.intervals", config.intervals)))
    regions = read_bed(path)
    where = {
        name: [i for i, store in enumerate(stores) if name in store.contigs]
        for name in set(regions.chrom)
    }
    found: dict[str, list[Block]] = {"train": [], "validation": [], "test": []}
    for chrom, start, end, name, line in zip(*regions[:5], strict=True):
        part = split_of(name)
        if part is None:
            raise UserError(
                f"{path}:{line}: the fourth column is {name!r}, and a split is train, valid or test"
            )
        if len(where[chrom]) != 1:
            held = [stores[i].name for i in where[chrom]]
            raise UserError(
                f"{path}:{line}: {chrom} is in each of {', '.join(held)}: name its contigs apart"
                if held
                else f"{path}:{line}: contig {chrom} is not in the genome; it has "
                f"{_some([name for store in stores for name in store.contigs])}"
            )
        (genome,) = where[chrom]
        length = stores[genome].contigs[chrom].length
        if end > length:
            raise UserError(
                f"{path}:{line}: the interval ends at {end:,}, and {chrom} has {length:,} bases: "
                "it was made for another genome"
            )
        extent = max(config.interval_length or end - start, max_length)
        end = min(start + extent, length)
        # Shifted inward where the contig ends before the first window does.
        start = max(0, min(start, end - max_length))
        found[part].append(Block(genome, chrom, int(start), int(end)))
    held_out = found["validation"] + found["test"]
    splits = Splits(
        stores, **found, inward=True, avoid=[] if config.interval_overlap == "keep" else held_out
    )
    _say_what_is_shared(path, splits)
    return splits


def _say_what_is_shared(path: pathlib.Path, splits: Splits) -> None:
    """Logs one line if intervals of different splits overlap."""
    found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    shares = []
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        together = bases(found[one]) + bases(found[other]) - bases(found[one] + found[other])
        if together:
            shares.append(f"{one} and {other} share {together:,} bases")
    if shares:
        way_out = (
            "training windows that touch a held-out interval are left out"
            if splits.avoid
            else "data.interval_overlap keep trains on them all the same"
        )
        log.info(f"{path}: {'; '.join(shares)}; {way_out}")


def merged(blocks: Iterable[Block]) -> list[Block]:
    """Merges blocks into blocks of the same bases that neither overlap nor touch, in order."""
    result: list[Block] = []
    for block in sorted(blocks):
        last = result[-1] if result else None
        if last and last[:2] == block[:2] and block.start <= last.end:
            result[-1] = last._replace(end=max(last.end, block.end))
        else:
            result.append(block)
    return result


def without(blocks: Iterable[Block], removed: Iterable[Block]) -> list[Block]:
    """Returns what is in `blocks` and not in `removed`, as blocks that do not touch, in order.

    Both are sorted and then walked through once, side by side: an assembly may have a million
    contigs.
    """
    result: list[Block] = []
    away = merged(removed)
    first = 0  # what ends before this block, or lies on an earlier contig, is passed
    for block in merged(blocks):
        where, start = block[:2], block.start
        while first < len(away) and (
            away[first][:2] < where or (away[first][:2] == where and away[first].end <= start)
        ):
            first += 1
        at = first
        while at < len(away) and away[at][:2] == where and away[at].start < block.end:
            if away[at].start > start:
                result.append(block._replace(start=start, end=away[at].start))
            start = max(start, away[at].end)
            at += 1
        if start < block.end:
            result.append(block._replace(start=start))
    return result


def bases(blocks: Iterable[Block]) -> int:
    """Counts the bases in the blocks, each once."""
    return sum(block.end - block.start for block in merged(blocks))


def _some(known: list[str]) -> str:
    return ", ".join(known[:9]) + (" ..." if len(known) > 9 else "")
