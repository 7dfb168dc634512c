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
