"""A reference genome on disk: any part of any contig, without reading the rest."""

import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import COMPLEMENT
from caduceus_jax.genomics.files.fasta import StrangeByte, canonical, iterate_chunks
from caduceus_jax.genomics.files.inputs import STANDARD_INPUT, Input
from caduceus_jax.genomics.interval import Interval
from caduceus_jax.genomics.reference.fasta_index import open_index
from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_NEWLINES = b"\r\n"
_PREFIXES = ("", "chr", "Chr")
_MITOCHONDRION = ("M", "MT", "Mt", "mt")

# (contig number, start, end), 0-based half-open and inside the contig -> its bases as they stand.
Read = Callable[[int, int, int], bytes]


class Genome:
    """A genome that is read at random: a FASTA file, or a folder of `caduceus-jax prepare`.

    A FASTA file may be plain or compressed with bgzip. A missing index (`.fai`) is built beside
    it, or in the cache folder where that may not be written; one that is older than the file or
    does not fit it is built again. Building one checks the whole file.

    Args:
        path: the FASTA file or the folder.

    Attributes:
        path: the FASTA file or the folder.
        names: the contigs in the file's order, by the first word of their headers.
        lengths: (contigs,) their lengths in bases.
        identity: tells the genome from another: the folder's digest, or the file's size, time of
            its last change, and its contigs.

    Raises:
        UserError: no such file, a pipe, gzip that is not bgzip, or not a FASTA file.

    Examples:
        >>> Genome(fasta).fetch("chr1", 20, 25)
        'ACGTT'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self._said_alias = False
        opened = _open_prepared if self.path.is_dir() else _open_fasta
        self.names, lengths, self._read, self.identity = opened(self.path)
        self.lengths = np.array(lengths, np.int64)
        self._number = {name: i for i, name in enumerate(self.names)}
        self._known = dict(zip(self.names, self.lengths.tolist(), strict=True))

    def fetch(
        self,
        chrom: str | Interval,
        start: int | None = None,
        end: int | None = None,
        *,
        soft_mask: bool = False,
    ) -> str:
        """Reads bases, N wherever that lies outside the contig.

        Args:
            chrom: name of the contig, with or without the prefix chr; or an interval, which is
                read on its own strand.
            start: first base, 0-based; may be negative. By default the contig's first.
            end: the base after the last one, 0-based; may exceed the contig's length. By default
                the contig's length.
            soft_mask: keep the lower case of soft-masked bases; otherwise all are upper case.

        Returns:
            `end - start` letters.

        Raises:
            UserError: the genome has no such contig, or a byte there is not a nucleotide code.
        """
        strand = "+"
        if isinstance(chrom, Interval):
            chrom, start, end, strand = chrom.chrom, chrom.start, chrom.end, chrom.strand
        (contig,) = self.contigs([chrom]).tolist()
        if contig < 0:
            raise UserError(f"{self.path} has no contig {chrom}; it has {self.some_names()}")
        end = int(self.lengths[contig]) if end is None else end
        bases = self.bases(contig, start or 0, end, soft_mask=soft_mask).tobytes()
        if strand == "-":
            bases = bases.translate(COMPLEMENT)[::-1]
        return bases.decode()

    def contigs(
        self, names: Iterable[str], declared: Mapping[str, int] | None = None
    ) -> Int[np.ndarray, " names"]:
        """Finds contigs by name.

        Names that differ by the prefix chr, and the names of the mitochondrion, are taken for the
        same contig, with one warning.

        Args:
            names: names of contigs in a file.
            declared: lengths in bases that the file's header gives its contigs.

        Returns:
            The number of each contig in `self.names`; -1 for those the genome does not have.
        """
        names, declared = list(names), declared or {}
        number: dict[str, int] = {}
        for name in dict.fromkeys(names):
            found = find_contig(name, self._known, declared.get(name))
            number[name] = -1 if found is None else self._number[found]
            if found is None:
                continue
            if found != name and not self._said_alias:
                self._said_alias = True
                log.info(
                    "%s is taken for %s of %s, and so are all names that differ by chr, or by M "
                    "and MT, alone",
                    *(name, found, self.path),
                )
            if declared.get(name, self._known[found]) != self._known[found]:
                log.info(
                    "%s has %s bases in the input's header and %s in %s: is it the same assembly?",
                    *(name, f"{declared[name]:,}", f"{self._known[found]:,}", self.path),
                )
        return np.array([number[name] for name in names], np.int64)

    def some_names(self) -> str:
        """Returns a few of the contigs' names, for error messages."""
        return ", ".join(self.names[:5]) + (", ..." if len(self.names) > 5 else "")

    def bases(
        self, contig: int, start: int, end: int, *, soft_mask: bool = False
    ) -> UInt8[np.ndarray, " length"]:
        """Reads bases of a contig that is known by its number.

        Args:
            contig: its number in `self.names`.
            start: first base, 0-based; may be negative.
            end: the base after the last one; may exceed the contig's length.
            soft_mask: keep the lower case of soft-masked bases; otherwise all are upper case.

        Returns:
            (end - start,) ASCII, read-only; N wherever that lies outside the contig.

        Raises:
            UserError: a byte there is not a nucleotide code.
        """
        first, last = max(start, 0), min(end, int(self.lengths[contig]))
        raw = self._read(contig, first, last) if first < last else b""
        try:
            bases, _ = canonical(raw)
        except StrangeByte as error:
            # The reader that knows line numbers finds it again.
            for _ in iterate_chunks(self.path):
                pass
            raise UserError(
                f"{self.path} does not fit its index ({error}): delete {self.path}.fai"
            ) from None
        if len(bases) != max(last - first, 0):
            raise UserError(f"{self.path} changed while it was read: start again")
        if not soft_mask:
            bases = bases.upper()
        if len(bases) != end - start:
            before = min(max(-start, 0), end - start)
            bases = b"N" * before + bases + b"N" * (end - start - before - len(bases))
        return np.frombuffer(bases, np.uint8)

    def windows(
        self, contigs: np.ndarray, starts: np.ndarray, length: int
    ) -> UInt8[np.ndarray, "rows length"]:
        """Reads windows of one length, upper case, N wherever one reaches beyond its contig.

        Args:
            contigs: (rows,) numbers in `self.names`.
            starts: (rows,) first base of each, 0-based; may be negative.
            length: bases of each window.
        """
        bases = np.empty((len(contigs), length), np.uint8)
        for row, (contig, start) in enumerate(zip(contigs.tolist(), starts.tolist(), strict=True)):
            bases[row] = self.bases(contig, start, start + length)
        return bases


def find_contig(name: str, known: Mapping[str, int], declared: int | None = None) -> str | None:
    """Finds out which contig of a genome a name stands for.

    A name that the genome has stands for itself. Otherwise it stands for the contig whose name
    differs by the prefix chr alone, and a name of the mitochondrion for the mitochondrion. Where
    lengths are known they decide about the mitochondrion: chrM of UCSC's hg19 has 16,571 bases and
    is another sequence than MT, which has 16,569.

    Args:
        name: name of the contig in a file.
        known: length of each contig of the genome, by name.
        declared: the length that the file's header gives the contig.

    Returns:
        The genome's name; None where it has no such contig, or several that could be meant.
    """
    bare = name[3:] if name[:3].lower() == "chr" else name
    if bare not in _MITOCHONDRION:
        same = [name, *(prefix + bare for prefix in _PREFIXES)]
        return next((other for other in same if other in known), None)
    same = [name, *(prefix + bare for prefix in _PREFIXES)]
    same = [other for other in dict.fromkeys(same) if other in known]
    all_names = [p + b for b in _MITOCHONDRION for p in _PREFIXES if p + b in known]
    if declared is not None:
        fitting = [other for other in (*same, *all_names) if known[other] == declared]
        if fitting or not same:
            return fitting[0] if fitting else None
    if same:
        return same[0]
    return all_names[0] if len(all_names) == 1 else None


_Opened = tuple[tuple[str, ...], list[int], Read, dict[str, Any]]


def _open_prepared(path: pathlib.Path) -> _Opened:
    store = Store(path)
    contigs = list(store.contigs.values())

    def read(contig: int, start: int, end: int) -> bytes:
        """Returns bases of a prepared folder."""
        offset = contigs[contig].offset
        return store.bases[offset + start : offset + end].tobytes()

    lengths = [contig.length for contig in contigs]
    return tuple(store.contigs), lengths, read, {"sha256": store.sha256}


def _open_fasta(path: pathlib.Path) -> _Opened:
    piped = str(path) in STANDARD_INPUT
    if piped or (path.exists() and not path.is_file()):
        raise UserError(
            f"{'standard input' if piped else path} is a pipe, and a genome is read at random: "
            "write it to a file first"
        )
    source = Input(path)
    if not source.size:
        raise UserError(f"{path} is empty: a FASTA file has a '>' line and sequence")
    if source.compression == "gzip":
        raise UserError(
            f"{path} is compressed with gzip, which must be read from its start every time: gunzip "
            "it, or compress it with bgzip instead"
        )
    records, read_bytes = open_index(source)
    table = list(records.values())

    def read(contig: int, start: int, end: int) -> bytes:
        """Returns bases of a FASTA file, without line ends."""
        record = table[contig]
        text = read_bytes(record.byte(start), record.byte(end - 1) + 1)
        return text.translate(None, _NEWLINES)

    stat = path.stat()
    lengths = [record.length for record in table]
    names = "".join(f"{name}\t{record.length}\n" for name, record in records.items())
    identity = {
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "contigs": hashlib.sha256(names.encode()).hexdigest(),
    }
    return tuple(records), lengths, read, identity


class TokenWindows:
    """Windows of a genome as token ids, read when they are needed.

    Args:
        genome: the genome that they lie on.
        tokenizer: the tokenizer of the model they are for.
        contigs: (rows,) numbers in `genome.names`.
        starts: (rows,) first base of each, 0-based; N stands for what is outside the contig.
        length: bases of each.

    Attributes:
        shape: (rows, length).
    """

    def __init__(
        self,
        genome: Genome,
        tokenizer: Tokenizer,
        contigs: np.ndarray,
        starts: np.ndarray,
        length: int,
    ):
        self.shape = (len(starts), length)
        self._genome, self._tokenizer = genome, tokenizer
        self._contigs, self._starts = contigs, starts

    def __getitem__(self, rows: np.ndarray) -> Int[np.ndarray, "rows length"]:
        """Returns token ids of the windows of these numbers."""
        length = self.shape[1]
        bases = self._genome.windows(self._contigs[rows], self._starts[rows], length)
        return self._tokenizer.encode(bases.tobytes()).reshape(-1, length)
