"""A reference genome on disk: any stretch of any contig, without reading the rest."""

import hashlib
import logging
import mmap
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable

import numpy as np
import pyfaidx
from jaxtyping import Int, UInt8

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.compressed import open_binary, which_compression
from caduceus_jax.genomics.files.fasta import StrangeByte, canonical, iterate_fasta
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

_NEWLINES = b"\r\n"
_ASSEMBLY_PREFIXES = ("", "chr", "Chr")
_MITOCHONDRION = ("M", "MT", "Mt", "mt")
_LONGEST_HEADER = 1 << 16  # bytes


# (contig number, start, end), 0-based half-open and inside the contig -> its bases as they stand.
Read = Callable[[int, int, int], bytes]


class Genome:
    """An indexed FASTA file, plain or compressed with bgzip (for which pysam is needed).

    A missing index (`.fai`) is built beside the file, or in the cache folder where that may not
    be written; one that is older than the file or does not fit it is built again. Building one
    checks the whole file.

    Args:
        path: the FASTA file.

    Attributes:
        path: the FASTA file.
        names: the contigs in the file's order, by the first word of their headers.
        lengths: (contigs,) their lengths in bases.

    Raises:
        UserError: no such file, gzip that is not bgzip, or a file that `fasta.read_genome` refuses.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        self._said_alias = False
        compression = which_compression(self.path)
        if compression == "gzip":
            raise UserError(
                f"{self.path} is compressed with gzip, which must be read from its start every "
                "time: gunzip it, or compress it with bgzip instead"
            )
        opened = _open_plain(self.path) if compression is None else _open_bgzip(self.path)
        self.names, lengths, self._read = opened
        self.lengths = np.array(lengths, np.int64)
        self._number = {name: i for i, name in enumerate(self.names)}

    def contigs(self, names: Iterable[str]) -> Int[np.ndarray, " names"]:
        """The number of each contig in `self.names`; -1 for those the genome does not have.

        Names that differ by the prefix chr, and the names of the mitochondrion, are taken for the
        same contig, with one notice.
        """
        names = list(names)
        number = {name: self._number.get(name, -1) for name in dict.fromkeys(names)}
        for name in [name for name, i in number.items() if i < 0]:
            alias = next((a for a in _aliases(name) if a in self._number), None)
            if alias is None:
                continue
            number[name] = self._number[alias]
            if not self._said_alias:
                self._said_alias = True
                log.info(
                    f"{name} is taken for {alias} of {self.path}, and so are all names that differ "
                    "by chr, or by M and MT, alone"
                )
        return np.array([number[name] for name in names], np.int64)

    def fetch(
        self, contig: int, start: int, end: int, *, soft_mask: bool = False
    ) -> UInt8[np.ndarray, " length"]:
        """The bases from `start` to `end`, N wherever that lies outside the contig.

        Args:
            contig: its number in `self.names`.
            start: first base, 0-based; may be negative.
            end: the base after the last one; may exceed the contig's length.
            soft_mask: keep the lower case of soft-masked bases; otherwise all are upper case.

        Returns:
            (end - start,) ASCII, read-only.

        Raises:
            UserError: a byte there is no nucleotide code.
        """
        first, last = max(start, 0), min(end, int(self.lengths[contig]))
        try:
            raw = self._read(contig, first, last) if first < last else b""
            bases, _ = canonical(raw)
        except StrangeByte as error:
            # The reader that knows line numbers finds it again.
            for _ in iterate_fasta(self.path):
                pass
            raise UserError(f"{self.path} does not fit its index ({error}): delete it") from None
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
        """Windows of one length, upper case, N wherever one reaches beyond its contig.

        Args:
            contigs: (rows,) numbers in `self.names`.
            starts: (rows,) first base of each, 0-based; may be negative.
            length: bases of each window.
        """
        bases = np.empty((len(contigs), length), np.uint8)
        for row, (contig, start) in enumerate(zip(contigs.tolist(), starts.tolist(), strict=True)):
            bases[row] = self.fetch(contig, start, start + length)
        return bases


def _aliases(name: str) -> list[str]:
    bare = name[3:] if name[:3].lower() == "chr" else name
    bares = _MITOCHONDRION if bare in _MITOCHONDRION else (bare,)
    return [prefix + bare for bare in bares for prefix in _ASSEMBLY_PREFIXES]


def _open_plain(path: pathlib.Path) -> tuple[tuple[str, ...], list[int], Read]:
    if not path.stat().st_size:
        raise UserError(f"{path} is empty: a FASTA file has a '>' line and sequence")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def fits(index: str) -> bool:
        try:
            return _fits(data, _records(path, index))
        except (ValueError, pyfaidx.IndexNotFoundError):
            return False

    index = _index(path, (".fai",), fits, lambda index: pyfaidx.Faidx(path, f"{index}.fai").close())
    records = _records(path, index)
    table = list(records.values())

    def read(contig: int, start: int, end: int) -> bytes:
        record = table[contig]
        return data[_byte(record, start) : _byte(record, end - 1) + 1].translate(None, _NEWLINES)

    return tuple(records), [record.rlen for record in table], read


def _open_bgzip(path: pathlib.Path) -> tuple[tuple[str, ...], list[int], Read]:
    try:
        import pysam
    except ImportError:
        raise UserError(
            f"{path} is compressed with bgzip, which pysam reads: "
            "pip install 'caduceus-jax[genomics]', or gunzip it"
        ) from None

    def build(index: str) -> None:
        arguments = (str(path), "--fai-idx", f"{index}.fai", "--gzi-idx", f"{index}.gzi")
        pysam.faidx(*arguments)  # pyright: ignore[reportAttributeAccessIssue]

    index = _index(path, (".fai", ".gzi"), lambda _: True, build)
    file = pysam.FastaFile(
        str(path), filepath_index=f"{index}.fai", filepath_index_compressed=f"{index}.gzi"
    )
    names = tuple(file.references)

    def read(contig: int, start: int, end: int) -> bytes:
        return file.fetch(names[contig], start, end).encode()

    return names, list(file.lengths), read


def _index(
    path: pathlib.Path,
    endings: tuple[str, ...],
    fits: Callable[[str], bool],
    build: Callable[[str], object],
) -> str:
    """The path of an index without its endings; builds one where none is fresh and fits."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    cached = cache / "caduceus-jax" / "fasta-index" / f"{path.name}-{digest}"
    changed = path.stat().st_mtime
    for base in (path, cached):
        files = [pathlib.Path(f"{base}{ending}") for ending in endings]
        if all(f.is_file() and f.stat().st_mtime >= changed for f in files) and fits(str(base)):
            return str(base)
    for _ in iterate_fasta(path):
        pass  # An index of a file that is checked.
    reason = ""
    for base in (path, cached):
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            # Made aside and renamed: another process sees a whole index or none.
            with tempfile.TemporaryDirectory(dir=base.parent, prefix=".index-") as folder:
                build(f"{folder}/{path.name}")
                if not fits(f"{folder}/{path.name}"):
                    raise UserError(_no_index(path))
                for ending in endings:
                    os.replace(f"{folder}/{path.name}{ending}", f"{base}{ending}")
            return str(base)
        except (pyfaidx.UnsupportedCompressionFormat, ImportError):
            raise UserError(f"{path} is not compressed: rename it without its ending") from None
        except UserError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
        except Exception:  # of several types in pyfaidx and pysam
            raise UserError(_no_index(path)) from None
    raise UserError(
        f"{path} has no index, and none can be written beside it nor in {cached.parent} "
        f"({reason}): run samtools faidx where you may write"
    )


def _no_index(path: pathlib.Path) -> str:
    """Why a file that reads well from its start cannot be indexed."""
    longest, before = 0, 0  # length of the record's first line and of the line before
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            length = len(line.rstrip())
            if line.startswith(b">"):
                longest = before = 0
                continue
            if longest and (length > longest or before < longest):
                number -= before < longest
                return (
                    f"{path}:{number}: the lines of a record differ in length, so that no index "
                    "can point into it: wrap them alike, for example with seqkit seq"
                )
            longest, before = longest or length, length
    return f"{path} cannot be indexed: its headers must be plain text"


def _records(path: pathlib.Path, index: str) -> dict[str, pyfaidx.IndexRecord]:
    with pyfaidx.Faidx(path, f"{index}.fai", rebuild=False, build_index=False) as faidx:
        return dict(faidx.index)


def _byte(record: pyfaidx.IndexRecord, base: int) -> int:
    """Where in the file a base is; base and byte are 0-based."""
    return record.offset + base // record.lenc * record.lenb + base % record.lenc


def _fits(data: mmap.mmap, records: dict[str, pyfaidx.IndexRecord]) -> bool:
    """Whether each record lies between its own header and the next one, the last up to the end."""
    end = 0
    for name, record in records.items():
        if not record.rlen or not 0 < record.offset - end < _LONGEST_HEADER:
            return False
        header = data[end : record.offset].strip()
        if b"\n" in header or header.split(maxsplit=1)[:1] != [b">" + name.encode()]:
            return False
        end = _byte(record, record.rlen - 1) + 1
        if data[end - 1 : end].isspace():
            return False
    return end <= len(data) < end + _LONGEST_HEADER and not data[end:].strip()


class TokenWindows:
    """Windows of a genome as token ids, read when they are needed.

    Args:
        genome: where they lie.
        tokenizer: of the model they are for.
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
        """Token ids of the windows of these numbers."""
        length = self.shape[1]
        bases = self._genome.windows(self._contigs[rows], self._starts[rows], length)
        return self._tokenizer.encode(bases.tobytes()).reshape(-1, length)
