"""Tracks of one value per base as bigWig files."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.aside import written_aside

_NEEDS = "needs pyBigWig: pip install 'caduceus-jax[genomics]'"
# Values that are written at once end at multiples of this position, however they arrive.
_CHUNK = 1 << 15

# Contig, then start, end and value of stretches in order, 0-based half-open.
Bins = tuple[str, np.ndarray, np.ndarray, np.ndarray]
Runs = Iterator[tuple[str, int, Float[np.ndarray, " bases"]]]


def write_bigwig(
    path: pathlib.Path,
    contigs: Iterable[tuple[str, int]],
    values: Iterable[tuple[str, int, Float[np.ndarray, " bases"]]],
) -> None:
    """Writes a bigWig file with a value for each single base.

    pyBigWig prints where it cannot write, and goes on. So the file is written to the folder of
    temporary files, read again, and copied.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        contigs: name and length of every contig of the genome.
        values: (contig, first base, values) of bases that follow one another, in the order of
            `contigs` and of the positions, 0-based, each base once. NaN is left out.

    Raises:
        UserError: pyBigWig is missing, the disk is full, or no value is to be written.
    """

    def add(file: Any) -> int:
        count = 0
        for name, start, track in _runs(values):
            numbers = track.astype(np.float64)
            file.addEntries(name, start, values=numbers.tolist(), span=1, step=1)
            count += len(track)
        return count

    _write(path, contigs, add)


def write_bigwig_bins(
    path: pathlib.Path, contigs: Iterable[tuple[str, int]], bins: Iterable[Bins]
) -> None:
    """Writes a bigWig file with a value for each of some stretches of bases.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        contigs: name and length of every contig of the genome.
        bins: stretches that do not overlap, in the order of `contigs` and of the positions.

    Raises:
        UserError: pyBigWig is missing, or the disk is full.
    """

    def add(file: Any) -> int:
        count = 0
        for name, start, end, value in bins:
            for first in range(0, len(start), _CHUNK):
                part = slice(first, first + _CHUNK)
                file.addEntries(
                    [name] * len(start[part]),
                    start[part].tolist(),
                    ends=end[part].tolist(),
                    values=value[part].astype(np.float64).tolist(),
                )
            count += int((end - start).sum())
        return count

    _write(path, contigs, add)


def _write(
    path: pathlib.Path, contigs: Iterable[tuple[str, int]], add: Callable[[Any], int]
) -> None:
    """Writes a file to which `add` adds values, and checks it; `add` returns the bases covered."""
    try:
        import pyBigWig
    except ImportError:
        raise UserError(f"writing bigWig {_NEEDS}") from None
    with written_aside(path) as aside:
        with contextlib.closing(pyBigWig.open(str(aside), "w")) as file:
            file.addHeader([(name, int(length)) for name, length in contigs])
            count = add(file)
        _check(aside, count)


def _check(path: pathlib.Path, count: int) -> None:
    """Reads the header and the last values of a file that was just written."""
    import pyBigWig

    try:
        with contextlib.closing(pyBigWig.open(str(path))) as file:
            if file.header()["nBasesCovered"] == count and _ends_as_it_begins(path):
                return
    except (RuntimeError, TypeError, AttributeError):
        pass
    with path.open("ab") as file:  # which fails for the same reason
        file.write(bytes(1 << 16))
    raise OSError(28, "No space left on device")


def _ends_as_it_begins(path: pathlib.Path) -> bool:
    """Tells whether the last bytes of a bigWig file are there: its magic number again."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(-4, os.SEEK_END)
        return file.read(4) == magic


def _runs(values: Iterable[tuple[str, int, Float[np.ndarray, " bases"]]]) -> Runs:
    """Yields bases that follow one another and have a value, cut at fixed positions."""
    waiting: tuple[str, int, list[np.ndarray]] | None = None
    for name, start, track in values:
        known = np.flatnonzero(~np.isnan(track))
        breaks = (np.diff(known) > 1) | ((start + known[1:]) % _CHUNK == 0)
        for run in np.split(known, np.flatnonzero(breaks) + 1):
            if not len(run):
                continue
            first = start + int(run[0])
            if waiting is not None:
                end = waiting[1] + sum(map(len, waiting[2]))
                if waiting[0] == name and end == first and first % _CHUNK:
                    waiting[2].append(track[run])
                    continue
                yield waiting[0], waiting[1], np.concatenate(waiting[2])
            waiting = name, first, [track[run]]
    if waiting is not None:
        yield waiting[0], waiting[1], np.concatenate(waiting[2])


class BigWig:
    """A bigWig file for reading.

    Args:
        path: the file.

    Attributes:
        path: the file.
        lengths: bases of each contig, by name.
        missing: bases without a value that were read as 0 so far.

    Raises:
        UserError: no such file, not a bigWig file, or pyBigWig is missing.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        try:
            import pyBigWig
        except ImportError:
            raise UserError(f"reading bigWig {_NEEDS}") from None
        if not self.path.is_file():
            raise UserError(f"{path} does not exist")
        try:
            self._file = pyBigWig.open(str(path))
            self.lengths: dict[str, int] = dict(self._file.chroms())
        except (RuntimeError, TypeError, AttributeError):
            raise UserError(f"{path} is not a bigWig file, or cut short") from None
        self.missing = 0

    def bins(self, contig: str, start: int, end: int, bin_size: int) -> Float[np.ndarray, " bins"]:
        """Returns the means over bins, 0 where a bin has no value.

        Args:
            contig: its name in the file.
            start: first base, 0-based.
            end: the base after the last one; `bin_size` divides the bases.
            bin_size: bases of a bin.

        Returns:
            (bins,) float32.

        Raises:
            UserError: the file has no such contig, or the contig no such bases.
        """
        values = self.values(contig, start, end)
        unknown = np.isnan(values)
        self.missing += int(unknown.sum())
        means = np.where(unknown, 0, values).reshape(-1, bin_size).mean(axis=1, dtype=np.float64)
        return means.astype(np.float32)

    def values(self, contig: str, start: int, end: int) -> Float[np.ndarray, " bases"]:
        """Returns the value of each base, NaN where there is none.

        Args:
            contig: its name in the file.
            start: first base, 0-based.
            end: the base after the last one.

        Raises:
            UserError: the file has no such contig, or the contig no such bases.
        """
        if contig not in self.lengths:
            some = ", ".join(list(self.lengths)[:5])
            raise UserError(f"{self.path} has no contig {contig}; it has {some}")
        if not 0 <= start < end <= self.lengths[contig]:
            raise UserError(
                f"{self.path} has {self.lengths[contig]:,} bases of {contig}, and {start:,} to "
                f"{end:,} (0-based) are asked for: is it the genome's assembly?"
            )
        return np.asarray(self._file.values(contig, start, end, numpy=True))
