"""Indexes of FASTA files (.fai): where the lines of each record lie.

An index is believed only where it fits its file. One is built beside the file, or in the cache
folder where that may not be written, from one pass that checks every byte.
"""

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import iterate_chunks
from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.reference import bgzip

_LONGEST_HEADER = 1 << 16  # bytes
_HEADERS_CHECKED = 2_000
_ENDINGS = {None: (".fai",), "bgzip": (".fai", ".gzi")}

# (first byte, byte after the last one), 0-based, of the decompressed file -> its bytes.
ReadBytes = Callable[[int, int], bytes]


class Record(NamedTuple):
    """Says where a record's sequence lies in the decompressed file; bytes and bases are 0-based."""

    length: int  # bases
    offset: int  # byte of the first base
    bases: int  # of a line
    width: int  # bytes of a line, its end included

    def byte(self, base: int) -> int:
        """Finds out where in the file a base is."""
        return self.offset + base // self.bases * self.width + base % self.bases


Records = dict[str, Record]


class Index(NamedTuple):
    """A FASTA file's records, and how its bytes are read."""

    records: Records
    read: ReadBytes


def open_index(source: Input) -> Index:
    """Opens the index of a FASTA file; builds one where none is there that fits.

    Args:
        source: the file, plain or bgzip.

    Raises:
        UserError: a file that cannot be indexed, or an index that can be written nowhere.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    resolved = os.fsencode(source.path.resolve())
    digest = hashlib.sha256(resolved).hexdigest()[:16]
    folder = cache / "caduceus-jax" / "fasta-index"
    bases = (source.path, folder / f"{source.path.name}-{digest}")
    changed = source.path.stat().st_mtime
    endings = _ENDINGS[source.compression]
    for base in bases:
        files = [pathlib.Path(f"{base}{ending}") for ending in endings]
        if all(file.is_file() and file.stat().st_mtime >= changed for file in files):
            if (index := _stored(source, files)) is not None:
                return index
    records = build(source)
    blocks = bgzip.scan_blocks(source) if source.compression == "bgzip" else None
    reason = ""
    for base in bases:
        try:
            _write(base, records, blocks)
            break
        except OSError as error:
            reason = error.strerror or str(error)
    else:
        raise UserError(
            f"{source.name} has no index, and none can be written beside it nor in {folder} "
            f"({reason}): run samtools faidx where you may write"
        )
    return Index(records, _reader(source, blocks))


def build(source: Input) -> Records:
    """Reads a FASTA file from end to end, checks every byte, and indexes it.

    Raises:
        UserError: a byte or a line that does not belong in a FASTA file, or a record whose lines
            differ in length, so that no index can point into it.
    """
    table: Records = {}
    lines: _Lines | None = None
    name = ""

    def see(number: int, offset: int, text: bytes) -> None:
        nonlocal lines, name
        if text.startswith(b">"):
            if lines is not None:
                table[name] = lines.record()
            words = text[1:].split(maxsplit=1)
            name = words[0].decode(errors="replace") if words else ""
            lines = _Lines(source.name, number + 1, offset + len(text))
        elif lines is not None:
            lines.add(number, offset, text)

    for _ in iterate_chunks(source, lines=see):
        pass
    if lines is not None:
        table[name] = lines.record()
    return table


class _Lines:
    """The lines of one record, seen in stretches: all alike but the last, and then blank ones."""

    def __init__(self, file: str, line: int, offset: int):
        self._file, self._line, self._offset = file, line, offset
        self._start = self._end = offset  # first byte of the line that goes on; byte after the last
        self._shape: tuple[int, int] | None = None  # bases and bytes of the first line
        self._length, self._over, self._short = 0, False, line
        self._last = b""  # byte before the stretch

    def add(self, number: int, offset: int, text: bytes) -> None:
        """Takes the next bytes of the record: number of their first line, from 1; first byte."""
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + offset
        starts = np.concatenate([[self._start], ends + 1])
        widths = ends + 1 - starts[:-1]
        before = np.frombuffer(self._last + text, np.uint8)[ends - offset - 1 + len(self._last)]
        returns = (before == ord("\r")) & (widths > 1)
        self._take(number, widths - 1 - returns, widths)
        self._start, self._last = int(starts[-1]), text[-1:]
        self._end, self._line = offset + len(text), number + len(ends)

    def _take(self, number: int, bases: np.ndarray, widths: np.ndarray) -> None:
        if not len(bases):
            return
        if self._shape is None:
            self._shape = int(bases[0]), int(widths[0])
        if not self._shape[0] and bases.any():
            raise self._uneven(self._short)
        alike = (bases == self._shape[0]) & (widths == self._shape[1])
        if self._over:
            alike[:] = False
        odd = np.flatnonzero(~alike)
        if len(odd):
            first = int(odd[0])
            # One shorter line, and blank ones after it, end a record.
            if not self._over and bases[first] > self._shape[0]:
                raise self._uneven(number + first)
            self._short = self._short if self._over else number + first
            after = first if self._over else first + 1
            if bases[after:].any():
                raise self._uneven(self._short)
            self._over = True
        self._length += int(bases.sum())

    def record(self) -> Record:
        """Returns the record, whose end has come."""
        left = self._end - self._start
        if left:  # a last line without a line end
            shape = self._shape or (left, left + 1)
            if left > shape[0] or self._over:
                raise self._uneven(self._short if self._over else self._line)
            self._shape = shape
            self._length += left
        bases, width = self._shape or (0, 0)
        return Record(self._length, self._offset, bases, width)

    def _uneven(self, line: int) -> UserError:
        return UserError(
            f"{self._file}:{line}: the lines of a record differ in length, so that no index can "
            "point into it: wrap them alike, for example with seqkit seq"
        )


def read_fai(path: pathlib.Path) -> Records:
    """Reads an index.

    Raises:
        ValueError: the file is not an index.
    """
    records: Records = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.split("\t")
        length, offset, bases, width = map(int, numbers)
        if name in records or min(length, offset, bases) < 1 or width < bases:
            raise ValueError(f"{path} is not an index of a FASTA file")
        records[name] = Record(length, offset, bases, width)
    return records


def fits(read: ReadBytes, size: int, records: Mapping[str, Record]) -> bool:
    """Tells whether each record lies between its own header and the next one, or the end.

    That they follow one another is checked for all; the headers are read of up to some thousand.

    Args:
        read: bytes of the decompressed file.
        size: size of the decompressed file, in bytes.
        records: records of an index.
    """
    end, gaps = 0, []
    for name, record in records.items():
        if not 0 < record.offset - end < _LONGEST_HEADER:
            return False
        gaps.append((name, end, record.offset))
        end = record.byte(record.length - 1) + 1
    if not end <= size < end + _LONGEST_HEADER or read(end, size).strip():
        return False
    chosen = np.linspace(0, len(gaps) - 1, min(len(gaps), _HEADERS_CHECKED)).astype(int)
    for name, start, stop in (gaps[i] for i in chosen.tolist()):
        header = read(start, stop)
        if start and read(start - 1, start).isspace():
            return False
        lines = header.removeprefix(b"\xef\xbb\xbf" if not start else b"").strip()
        if b"\n" in lines or lines.split(maxsplit=1)[:1] != [b">" + name.encode()]:
            return False
    return not read(end - 1, end).isspace()


def _stored(source: Input, files: list[pathlib.Path]) -> Index | None:
    """Returns the index in these files, if it is the file's own."""
    try:
        records = read_fai(files[0])
        blocks = bgzip.read_gzi(files[1]) if source.compression == "bgzip" else None
        if not records or (blocks is not None and not bgzip.fits(source, blocks)):
            return None
        read = _reader(source, blocks)
        return Index(records, read) if fits(read, _size(source, blocks), records) else None
    except (ValueError, IndexError, OSError, UserError):
        return None


def _reader(source: Input, blocks: bgzip.Offsets | None) -> ReadBytes:
    if blocks is None:
        return lambda start, end: source.raw(start, end - start) if start < end else b""
    return bgzip.Bgzip(source, blocks).read


def _size(source: Input, blocks: bgzip.Offsets | None) -> int:
    return source.size if blocks is None else bgzip.Bgzip(source, blocks).size


def _write(base: pathlib.Path, records: Records, blocks: bgzip.Offsets | None) -> None:
    base.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: another process sees a whole index or none.
    with tempfile.TemporaryDirectory(dir=base.parent, prefix=".index-") as folder:
        made = pathlib.Path(folder)
        rows = ("\t".join(map(str, (name, *record))) + "\n" for name, record in records.items())
        (made / "fai").write_text("".join(rows))
        if blocks is not None:
            bgzip.write_gzi(made / "gzi", blocks)
        for ending in ("gzi", "fai"):
            if (made / ending).exists():
                os.replace(made / ending, f"{base}.{ending}")
