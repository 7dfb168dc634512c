"""Prepared genomes: a folder that opens instantly, however large, and is read through memory maps.

    bases.bin     one uint8 per base, A C G T N, lower case kept; one contig after another
    unknown.bin   (runs, 2) int64, little endian: first N of a run and the base after it
    index.json    what is in the other two, and which file it was made from

Offsets count bases from the beginning of `bases.bin`; positions, here and everywhere, are 0-based
and half-open.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from caduceus_jax.errors import UserError

FORMAT = "caduceus-jax genome"
VERSION = 1
BASES, UNKNOWN, INDEX = "bases.bin", "unknown.bin", "index.json"
RUNS = np.dtype("<i8")
_BLOCK = 1 << 24  # bytes


@dataclasses.dataclass(frozen=True)
class Contig:
    """Says where a contig lies in `bases.bin`."""

    name: str
    offset: int
    length: int
    ambiguous: int  # bases that were IUPAC ambiguity codes, and are N


@dataclasses.dataclass(frozen=True)
class Source:
    """The file that a store was made from, as it was."""

    name: str
    size: int  # bytes
    sha256: str
    mtime_ns: int  # when it was last changed: nanoseconds since 1970


class Store:
    """A genome on disk. Opening reads the index alone; a copy in another process opens it again.

    Args:
        path: the folder that `caduceus-jax prepare` made.

    Attributes:
        path: the path of that folder.
        source: the file that it was made from.
        name: the name of that file.
        sha256: digest of the contigs and the bases, whatever file they came from.
        contigs: contigs by name, in the file's order.
        bases: (bases,) uint8, all contigs.
        unknown: (runs, 2) offsets of the runs of N, ascending; none crosses a contig's end.

    Raises:
        UserError: no such folder, one that is not whole, or one of another version.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path).absolute()
        index = _read_index(self.path)
        try:
            self.source = Source(**index["source"])
            self.name = self.source.name
            self.sha256: str = index["sha256"]
            contigs = [Contig(**contig) for contig in index["contigs"]]
            runs = int(index["runs_of_unknown"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.path / INDEX} is damaged: prepare the genome again") from None
        self.contigs = {contig.name: contig for contig in contigs}
        total = sum(contig.length for contig in contigs)
        self.bases = _map(self.path / BASES, np.uint8, total)
        self.unknown = _map(self.path / UNKNOWN, RUNS, 2 * runs).reshape(runs, 2)

    def __getitem__(self, contig: str) -> np.ndarray:
        """Returns the (length,) uint8 letters of a contig, read when they are looked at."""
        at = self.contigs[contig]
        return self.bases[at.offset : at.offset + at.length]

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path,)

    def verify(self) -> None:
        """Reads everything once.

        Raises:
            UserError: the bases are not those that were written.
        """
        digest = hashlib.sha256()
        for first in range(0, len(self.bases), _BLOCK):
            digest.update(self.bases[first : first + _BLOCK].data)
        if content_digest(digest, list(self.contigs.values())) != self.sha256:
            raise UserError(
                f"{self.path / BASES} is not what was written there (its SHA-256 is another): "
                "prepare the genome again"
            )


def content_digest(bases: Any, contigs: list[Contig]) -> str:
    """Computes the SHA-256 of a genome from that of its bases and its contigs' names and sizes.

    Args:
        bases: a `hashlib.sha256` of `bases.bin`.
        contigs: contigs in order.
    """
    names = "".join(f"{contig.name}\t{contig.length}\n" for contig in contigs)
    return hashlib.sha256(bases.digest() + names.encode()).hexdigest()


def _read_index(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_dir():
        raise UserError(
            f"{path} is not a folder: caduceus-jax prepare genome.fa --out {path} makes one"
        )
    try:
        index = json.loads((path / INDEX).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path} holds no prepared genome ({INDEX} is missing): caduceus-jax prepare makes one"
        ) from None
    except (OSError, ValueError):
        raise UserError(f"{path / INDEX} is damaged: prepare the genome again") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise UserError(f"{path / INDEX} is not the index of a prepared genome")
    if index.get("version") != VERSION:
        raise UserError(
            f"{path} was prepared in version {index.get('version')} of the format, and this "
            f"program reads version {VERSION}: prepare the genome again"
        )
    return index


def _map(path: pathlib.Path, dtype: Any, count: int) -> np.ndarray:
    """Returns a file of so many numbers, mapped read-only."""
    try:
        size = path.stat().st_size
        if size == count * np.dtype(dtype).itemsize:
            return np.memmap(path, dtype, "r", shape=(count,)) if count else np.empty(0, dtype)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): prepare the genome again"
        ) from None
    raise UserError(
        f"{path} has {size:,} bytes, and {count * np.dtype(dtype).itemsize:,} were written: it is "
        "cut short or damaged, prepare the genome again"
    )
