"""Tracks of one value a base as bigWig files."""

import contextlib
import pathlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from caduceus_jax.errors import UserError


def write_bigwig(
    path: pathlib.Path,
    contigs: Iterable[tuple[str, int]],
    values: Iterable[tuple[str, int, Float[np.ndarray, " bases"]]],
) -> None:
    """Writes a bigWig file with a value for each single base.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        contigs: name and length of every contig of the genome.
        values: (contig, first base, values) of bases that follow one another, in the order of
            `contigs` and of the positions, 0-based, each base once. NaN is left out.

    Raises:
        UserError: pyBigWig is missing.
    """
    try:
        import pyBigWig
    except ImportError:
        raise UserError(
            "writing bigWig needs pyBigWig: pip install 'caduceus-jax[genomics]'"
        ) from None
    with contextlib.closing(pyBigWig.open(str(path), "w")) as file:
        file.addHeader([(name, int(length)) for name, length in contigs])
        for name, start, track in values:
            known = np.flatnonzero(~np.isnan(track))
            for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
                if len(run):
                    numbers = track[run].astype(np.float64).tolist()
                    file.addEntries(name, int(start + run[0]), values=numbers, span=1, step=1)


class BigWig:
    """A bigWig file for reading.

    Args:
        path: the file.

    Attributes:
        path: the file.
        lengths: bases of each contig, by name.
        missing: bases without a value that were read as 0 so far.

    Raises:
        UserError: no such file, no bigWig, or pyBigWig is missing.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        try:
            import pyBigWig
        except ImportError:
            raise UserError(
                "reading bigWig needs pyBigWig: pip install 'caduceus-jax[genomics]'"
            ) from None
        if not self.path.is_file():
            raise UserError(f"{path} does not exist")
        try:
            self._file = pyBigWig.open(str(path))
            self.lengths: dict[str, int] = dict(self._file.chroms())
        except (RuntimeError, TypeError, AttributeError):
            raise UserError(f"{path} is no bigWig file, or cut short") from None
        self.missing = 0

    def bins(self, contig: str, start: int, end: int, bin_size: int) -> Float[np.ndarray, " bins"]:
        """Means over bins, 0 where there is no value.

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
        if contig not in self.lengths:
            some = ", ".join(list(self.lengths)[:5])
            raise UserError(f"{self.path} has no contig {contig}; it has {some}")
        if not 0 <= start < end <= self.lengths[contig]:
            raise UserError(
                f"{self.path} has {self.lengths[contig]:,} bases of {contig}, and {start:,} to "
                f"{end:,} (0-based) are asked for: is it the genome's assembly?"
            )
        values = np.asarray(self._file.values(contig, start, end, numpy=True))
        unknown = np.isnan(values)
        self.missing += int(unknown.sum())
        means = np.where(unknown, 0, values).reshape(-1, bin_size).mean(axis=1, dtype=np.float64)
        return means.astype(np.float32)
