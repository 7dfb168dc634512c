"""Backgrounds: random variants like those that are scored, which tell what a score is worth.

Two single-base substitutions are alike where the changed base, the bases beside it and what it
becomes are the same on either strand (the 96 classes of mutational signatures), and where their
regions are of one type.
"""

import dataclasses
import logging
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import polars
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASE_NUMBERS, BASES
from caduceus_jax.genomics.genome_wide.regions import RegionType, RegionTypes
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import as_intervals
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import Part

log = logging.getLogger(__name__)

_CONTEXTS = 64
_ROUND = 4096  # bases drawn at a time
_SHUFFLED = 1 << 20  # bases of a type that are all put in a random order
_MOST_DRAWN = 5_000  # for each variant that is asked for
QUANTILE = "_quantile"


@dataclasses.dataclass(frozen=True)
class Background:
    """Sets with what each score is compared.

    Args:
        null: matched compares each single-base substitution with random ones of the same
            trinucleotide context and change, on either strand, drawn from the genome: the share of
            them that score lower goes into columns NAME_quantile.
        null_size: number drawn for each of the 96 kinds of change (and each type of region).
        null_regions: BED file; variants are compared within the type of their region, the fourth
            column (without one, all regions are of one type). Bases in no region are a type of
            their own.
        null_seed: seed of the draw.
    """

    null: Literal["matched"] | None = None
    null_size: int = 200
    null_regions: Any = None
    null_seed: int = 0

    def __post_init__(self) -> None:
        if self.null not in (None, "matched"):
            raise UserError(f"null is {self.null!r}; it is matched, or left out")
        if self.null_size < 1:
            raise UserError(f"null_size is {self.null_size}; it must be at least 1")
        if self.null_seed < 0:
            raise UserError(f"null_seed is {self.null_seed}; it must be at least 0")
        if self.null is None and self.null_regions is not None:
            raise UserError("null_regions is for null matched: pass that, too")


class _Classes(NamedTuple):
    """The class of each of some changes; -1 where it has none."""

    context: Int[np.ndarray, " rows"]  # of the three bases, with C or T in the middle
    alt: Int[np.ndarray, " rows"]  # on that strand
    turned: np.ndarray  # the other strand is meant


class Null:
    """The background of some variants: changes to be scored before them, and then their ranks.

    Args:
        background: its settings.
        genome: the genome.
        sites: the variants' changes, of `locate`.
        margin: bases at both ends of a contig where none is drawn.

    Attributes:
        sites: changes of the background, in the genome's order.
        record: (rows,) number of the position of each.
    """

    def __init__(
        self, background: Background, genome: Genome, sites: polars.DataFrame, margin: int = 0
    ):
        regions = background.null_regions
        types = RegionTypes(None if regions is None else as_intervals(regions, genome), genome)
        self._group = _groups(genome, types, sites)
        wanted = np.unique(self._group[self._group >= 0])
        frames = []
        for number, kind in enumerate(types.types):
            mine = wanted[wanted // (_CONTEXTS * 4) == number] % (_CONTEXTS * 4)
            if len(mine):
                draw = _Draw(background.null_size, background.null_seed, margin)
                drawn = _drawn(draw, genome, types, number, kind, np.unique(mine // 4))
                frames.append(_changes(drawn, mine, number))
        empty = _changes((np.empty(0, np.int64),) * 4, np.empty(0, np.int64), 0)
        found = polars.concat([empty, *frames]).sort("contig", "start", "alt", maintain_order=True)
        self._drawn_group = found["group"].to_numpy()
        place = found.select(polars.struct("contig", "start").rle_id()).to_series()
        self.record = place.cast(polars.Int64).to_numpy()
        self.sites = found.drop("group")
        counts = np.bincount(np.searchsorted(wanted, self._drawn_group), minlength=len(wanted))
        few = int((counts < background.null_size).sum())
        log.info(
            f"background: {len(found):,} variants of {len(wanted):,} kinds"
            + (f", {few:,} of which occur less than {background.null_size:,} times" if few else "")
        )

    def ranked(self, parts: Iterable[Part[polars.DataFrame]]) -> Iterator[Part[polars.DataFrame]]:
        """Yields the parts of the variants alone, with the quantile of each score.

        Args:
            parts: results of the background's rows and, after them, of the variants'.
        """
        count, before = len(self.sites), []
        ranks: dict[str, _Ranks] | None = None
        for part in parts:
            split = min(max(count - part.rows.start, 0), len(part.rows))
            if split:
                before.append(part.frame[:split])
            frame = part.frame[split:]
            if not len(frame):
                continue
            if ranks is None:
                ranks = self._ranks(before, frame)
            first = part.rows.start + split - count
            group = self._group[first : first + len(frame)]
            frame = frame.with_columns(row=polars.Series(np.arange(first, first + len(frame))))
            quantiles = {
                f"{name}{QUANTILE}": rank.of(group, frame[name].to_numpy())
                for name, rank in ranks.items()
            }
            yield Part(range(first, first + len(frame)), _with_nulls(frame, quantiles))

    def _ranks(self, before: list[polars.DataFrame], like: polars.DataFrame) -> "dict[str, _Ranks]":
        scored = polars.concat([like[:0], *before])
        ok = (scored["status"] == Status.OK.value).to_numpy()
        group = self._drawn_group[ok]
        return {name: _Ranks(group, scored[name].to_numpy()[ok]) for name in score_names(like)}


class _Ranks:
    """The scores of each group, in order."""

    def __init__(self, group: np.ndarray, scores: np.ndarray):
        order = np.lexsort((scores, group))
        group, scores = group[order], scores[order]
        groups, first = np.unique(group, return_index=True)
        self._of = dict(zip(groups.tolist(), np.split(scores, first[1:]), strict=False))

    def of(
        self, group: Int[np.ndarray, " rows"], scores: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Returns the share of a group's scores that is lower, and half of the share that is equal.

        Args:
            group: (rows,) -1 for none.
            scores: (rows,) NaN for none.
        """
        quantiles = np.full(len(group), np.nan, np.float32)
        for number in np.unique(group).tolist():
            known = self._of.get(number)
            if known is None:
                continue
            rows = np.flatnonzero((group == number) & ~np.isnan(scores))
            sides = (np.searchsorted(known, scores[rows], side) for side in ("left", "right"))
            quantiles[rows] = sum(sides) / (2 * len(known))
        return quantiles


def score_names(frame: polars.DataFrame) -> list[str]:
    """Returns the columns of a table of results that are scores."""
    return [name for name in frame.columns if name not in ("row", "status")]


def with_quantiles(empty: polars.DataFrame) -> polars.DataFrame:
    """Adds the columns of quantiles to a table without rows."""
    none = {f"{name}{QUANTILE}": np.empty(0, np.float32) for name in score_names(empty)}
    return _with_nulls(empty, none)


def _with_nulls(frame: polars.DataFrame, columns: dict[str, np.ndarray]) -> polars.DataFrame:
    series = [polars.Series(name, v, dtype=polars.Float32) for name, v in columns.items()]
    return frame.with_columns(one.fill_nan(None) for one in series)


def _groups(genome: Genome, types: RegionTypes, sites: polars.DataFrame) -> np.ndarray:
    """Returns the group of each change, by its region's type and class; -1 for none."""
    col = polars.col
    single = (col("ref").str.len_bytes() == 1) & (col("alt").str.len_bytes() == 1)
    ok = single & (col("status") == Status.OK.value) & (col("ref") != col("alt"))
    rows = np.flatnonzero(sites.select(ok).to_series().to_numpy())
    asked = sites[rows]
    contig, start = (asked[name].to_numpy() for name in ("contig", "start"))
    alt = BASE_NUMBERS[np.frombuffer("".join(asked["alt"]).encode(), np.uint8)]
    classes = _classes(genome, contig, start, alt)
    group = (types.of(contig, start) * _CONTEXTS + classes.context) * 4 + classes.alt
    groups = np.full(len(sites), -1, np.int64)
    groups[rows] = np.where(classes.context >= 0, group, -1)
    return groups


def _classes(genome: Genome, contig: np.ndarray, start: np.ndarray, alt: np.ndarray) -> _Classes:
    """Returns the class of changes: of the strand on which the middle base is C or T."""
    bases = BASE_NUMBERS[genome.windows(contig, start - 1, 3)]
    turned = (bases[:, 1] == 0) | (bases[:, 1] == 2)
    read = np.where(turned[:, None], 3 - bases[:, ::-1], bases)
    context = read @ np.array([16, 4, 1])
    context[(bases < 0).any(axis=1)] = -1
    return _Classes(context, np.where(turned, 3 - alt, alt), turned)


class _Draw(NamedTuple):
    """How many bases of each context are drawn, from which seed, and how far from the ends."""

    size: int
    seed: int
    margin: int


def _drawn(
    draw: _Draw,
    genome: Genome,
    types: RegionTypes,
    number: int,
    kind: RegionType,
    contexts: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Draws bases of one type, the same number in each of some contexts where there are as many.

    The bases of a context depend on the seed, the genome and the type alone, not on which other
    contexts are asked for.

    Returns:
        Contig, position, context, and whether the other strand is meant, of each.
    """
    offset, total = kind.bases.offset, kind.bases.bases
    rng = np.random.default_rng([draw.seed, zlib.crc32(kind.name.encode())])
    shuffled = rng.permutation(total) if total <= _SHUFFLED else None
    left = np.zeros(_CONTEXTS, np.int64)
    left[contexts] = draw.size
    seen: set[int] = set()
    kept: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int64),) * 4]
    for first in range(0, _MOST_DRAWN * draw.size + _SHUFFLED, _ROUND):
        if not left.any() or (shuffled is not None and first >= total):
            break
        if shuffled is not None:
            places = shuffled[first : first + _ROUND]
        else:
            several = rng.integers(0, total, _ROUND).tolist()
            fresh = [place for place in dict.fromkeys(several) if place not in seen]
            seen.update(fresh)
            places = np.array(fresh, np.int64)
        interval = np.searchsorted(offset, places, side="right") - 1
        contig = kind.bases.contig[interval]
        start = kind.bases.start[interval] + places - offset[interval]
        mine = (types.of(contig, start) == number) & (start >= draw.margin)
        mine &= start + draw.margin < genome.lengths[contig]
        contig, start = contig[mine], start[mine]
        classes = _classes(genome, contig, start, np.zeros(len(start), np.int64))
        rows = _first_of_each(classes.context, left)
        left -= np.bincount(classes.context[rows], minlength=_CONTEXTS)
        kept.append((contig[rows], start[rows], classes.context[rows], classes.turned[rows]))
    return tuple(np.concatenate(column) for column in zip(*kept, strict=True))


def _first_of_each(context: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Returns the rows of each context that come first, as many as are wanted of it."""
    order = np.argsort(context, kind="stable")
    ordered = context[order]
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
    kept = (ordered >= 0) & (nth < most[np.maximum(ordered, 0)])
    return np.sort(order[kept])


def _changes(drawn: tuple[np.ndarray, ...], wanted: np.ndarray, number: int) -> polars.DataFrame:
    """Makes the changes of bases that were drawn: each into every base that is wanted there."""
    contig, start, context, turned = drawn
    rows = [np.flatnonzero(context == which // 4) for which in wanted.tolist()]
    row = np.concatenate([np.empty(0, np.int64), *rows])
    which = np.repeat(wanted, [len(some) for some in rows])
    letters, other = np.array(list(BASES)), turned[row].astype(bool)
    middle, alt = context[row] // 4 % 4, which % 4
    ref, alt = (letters[np.where(other, 3 - base, base)] for base in (middle, alt))
    return polars.DataFrame(
        {
            "row": polars.Series(row, dtype=polars.Int64),
            "status": polars.Series([Status.OK.value] * len(row), dtype=polars.String),
            "contig": polars.Series(contig[row], dtype=polars.Int64),
            "start": polars.Series(start[row], dtype=polars.Int64),
            "ref": polars.Series(ref.tolist(), dtype=polars.String),
            "alt": polars.Series(alt.tolist(), dtype=polars.String),
            "group": polars.Series(number * _CONTEXTS * 4 + which, dtype=polars.Int64),
        }
    )
