"""Stores of scores: the log-probabilities of all four bases at every base of a genome.

A store is a folder in the Zarr format: a group whose attributes tell what the scores are of, and an
array (bases, 4) of float16 for each contig. Positions are 0-based.
"""

import hashlib
import json
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import AnyPath
from caduceus_jax.genomics.genome_wide.zarr_array import ArrayReader
from caduceus_jax.genomics.reference.genome import Genome, find_contig

FORMAT, VERSION = "caduceus-jax scores", 1
ENDINGS = (".zarr", ".store")
_ATTRIBUTE = "caduceus_jax"
_GROUP = "zarr.json"
_BLOCK = 1 << 22  # bases


class StoredContig(NamedTuple):
    """Tells of one contig of a store.

    Attributes:
        name: the genome's name of the contig.
        length: number of bases.
        folder: folder of its array, within the store.
        bases: SHA-256 of its bases, upper case.
        scores: SHA-256 of the file of its scores.
    """

    name: str
    length: int
    folder: str
    bases: str
    scores: str


class ScoreStore:
    """Log-probabilities at the bases of a genome, as `caduceus-jax likelihood` stores them.

    Args:
        path: the store, a folder that ends in .zarr.

    Attributes:
        path: the path of the folder.
        run: record of the computation: model, genome, options, versions.
        contigs: the contigs that have scores, by name.

    Raises:
        UserError: not a store of scores, or one of another version.

    Examples:
        >>> store = ScoreStore(scores)
        >>> store.fetch("chr1", 20, 22).shape
        (2, 4)
    """

    def __init__(self, path: AnyPath):
        self.path = pathlib.Path(path)
        content = _read_group(self.path)
        try:
            self.run: dict[str, Any] = content["run"]
            contigs = [StoredContig(**contig) for contig in content["contigs"]]
            self.options: dict[str, Any] = self.run["options"]
        except (KeyError, TypeError):
            raise UserError(f"{self.path / _GROUP} is damaged: compute the scores again") from None
        self.contigs = {contig.name: contig for contig in contigs}
        self.identity = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._arrays: dict[str, ArrayReader] = {}

    def fetch(
        self, chrom: str, start: int = 0, end: int | None = None
    ) -> Float[np.ndarray, "bases 4"]:
        """Returns the log-probabilities of A, C, G and T at the bases of a stretch.

        Args:
            chrom: name of the contig, with or without the prefix chr.
            start: first base, 0-based.
            end: the base after the last one, 0-based; by default the contig's length.

        Returns:
            (end - start, 4) float32 natural logarithms; NaN at N and where nothing is stored.

        Raises:
            UserError: the store has no such contig, or the stretch is not within it.
        """
        name = find_contig(chrom, {name: c.length for name, c in self.contigs.items()})
        if name is None:
            raise UserError(f"{self.path} has no scores of {chrom}")
        length = self.contigs[name].length
        end = length if end is None else end
        if not 0 <= start <= end <= length:
            raise UserError(
                f"start is {start} and end {end}; {chrom} has bases 0 to {length} (0-based)"
            )
        return self._array(name)[np.arange(start, end)].astype(np.float32)

    def at(
        self, names: Iterable[str], contigs: Int[np.ndarray, " rows"], positions: np.ndarray
    ) -> Float16[np.ndarray, "rows 4"]:
        """Returns the log-probabilities of A, C, G and T at bases of many contigs.

        Args:
            names: names of the genome's contigs.
            contigs: (rows,) numbers in `names`.
            positions: (rows,) 0-based, on their contigs.

        Returns:
            (rows, 4) natural logarithms; NaN where nothing is stored.
        """
        names, values = list(names), np.full((len(positions), 4), np.nan, np.float16)
        for number in np.unique(contigs).tolist():
            if names[number] in self.contigs:
                rows = np.flatnonzero(contigs == number)
                values[rows] = self._array(names[number])[positions[rows]]
        return values

    def check_run(self, run: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Checks that the scores are those of a model and of some options.

        Args:
            run: record from `run_record`.
            options: name and value of each option that scores depend on.

        Raises:
            UserError: the scores are another run's.
        """
        if run["model"] != self.run["model"]:
            raise UserError(
                f"{self.path} has the scores of another model, or of another dtype: compute them "
                "with this one, or name theirs"
            )
        for name, value in options.items():
            if self.options[name] != value:
                raise UserError(
                    f"{name} is {value}, and {self.path} was computed with "
                    f"{self.options[name]}: pass that, or compute the scores again"
                )

    def check_genome(self, genome: Genome, contigs: Iterable[int]) -> None:
        """Checks that the scores are those of a genome.

        Args:
            genome: the genome.
            contigs: numbers of the contigs that are looked up.

        Raises:
            UserError: one of these contigs differs.
        """
        if genome.identity == self.run["genome"]:
            return
        for number in contigs:
            stored = self.contigs.get(genome.names[number])
            if stored is not None and bases_digest(genome, number) != stored.bases:
                raise UserError(
                    f"{self.path} has the scores of another genome than {genome.path}: its "
                    f"{stored.name} differs"
                )

    def verify(self) -> None:
        """Reads everything once.

        Raises:
            UserError: the scores are not those that were written.
        """
        for name, contig in self.contigs.items():
            array = self._array(name)
            if array.digest() != contig.scores:
                raise UserError(
                    f"{array.path} is not what was written there (its SHA-256 is another): compute "
                    "the scores again"
                )

    def _array(self, name: str) -> ArrayReader:
        if name not in self._arrays:
            contig = self.contigs[name]
            self._arrays[name] = ArrayReader(self.path / contig.folder, contig.length)
        return self._arrays[name]


def is_store(path: AnyPath) -> bool:
    """Tells whether a path is a store of scores."""
    try:
        _read_group(pathlib.Path(path))
    except UserError:
        return False
    return True


def write_group(
    folder: pathlib.Path, run: Mapping[str, Any], contigs: Iterable[StoredContig]
) -> None:
    """Writes what a store's scores are of.

    Args:
        folder: the store.
        run: record of the computation: model, genome, options, versions.
        contigs: contigs that have scores, in the genome's order.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "columns": [f"logp_{base}" for base in "ACGT"],
        "run": dict(run),
        "contigs": [contig._asdict() for contig in contigs],
    }
    group = {"zarr_format": 3, "node_type": "group", "attributes": {_ATTRIBUTE: content}}
    (folder / _GROUP).write_text(json.dumps(group, indent=1) + "\n")


def bases_digest(genome: Genome, contig: int) -> str:
    """Computes the SHA-256 of a contig's bases, upper case.

    Args:
        genome: the genome.
        contig: number of the contig.
    """
    digest, length = hashlib.sha256(), int(genome.lengths[contig])
    for first in range(0, length, _BLOCK):
        digest.update(genome.bases(contig, first, min(first + _BLOCK, length)).tobytes())
    return digest.hexdigest()


def folder_of(name: str, number: int) -> str:
    """Returns the folder of a contig's array: its name, where a folder can have that."""
    quoted = urllib.parse.quote(name, safe="")
    # Names that start with dots or __ are reserved; a quoted name never holds "contig%number".
    if len(quoted) > 200 or quoted.startswith((".", "__")) or quoted == _GROUP:
        return f"contig%{number}"
    return quoted


def _read_group(path: pathlib.Path) -> dict[str, Any]:
    try:
        group = json.loads((path / _GROUP).read_text())
        content = group["attributes"][_ATTRIBUTE]
    except OSError as error:
        raise UserError(
            f"{path} is not a store of scores, which caduceus-jax likelihood writes with --out "
            f"NAME.zarr ({_GROUP}: {error.strerror})"
        ) from None
    except (ValueError, KeyError, TypeError):
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a store of scores, which caduceus-jax likelihood writes with --out "
            "NAME.zarr"
        )
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} is of version {content.get('version')} of the format, and this program reads "
            f"version {VERSION}: compute the scores again"
        )
    return content
