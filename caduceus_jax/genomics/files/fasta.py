"""Reading FASTA files from end to end, every byte checked.

Sequences are upper-case `A C G T N`, and lower-case where the file is soft-masked. IUPAC ambiguity
codes are read as N (and counted), U as T; any other byte is an error that names file and line. A
byte order mark is skipped.
"""

import codecs
import itertools
import logging
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import AnyPath, Input, as_input

log = logging.getLogger(__name__)

Bases = UInt8[np.ndarray, "length"]

# Nomenclature Committee of the IUB (1985): what stands for several bases.
AMBIGUITY_CODES = b"RYSWKMBDHVryswkmbdhv"
_PLAIN = b"ACGTNacgtn"
_NEWLINES = b"\r\n"
_READ_AS = bytes.maketrans(AMBIGUITY_CODES + b"Uu", b"N" * 10 + b"n" * 10 + b"Tt")
_STRANGE = re.compile(b"[^" + _PLAIN + AMBIGUITY_CODES + b"Uu" + _NEWLINES + b"]")
_PROTEIN_ALONE = b"EFIJLOPQXZefijlopqxz*"
_BLOCK = 1 << 22  # bytes


def iterate_fasta(path: AnyPath | Input) -> Iterator[tuple[str, Bases]]:
    """Reads the records of a FASTA file one by one.

    Args:
        path: a FASTA file, plain or gzip-compressed (bgzip included).

    Yields:
        (name, sequence) of each record in the file's order: the name is the header's first word,
        the sequence its bases as ASCII, one uint8 per base, lower-case where soft-masked,
        read-only.

    Raises:
        UserError: no such file, not a FASTA file, no record, a record without a name or without
            sequence, a name twice, or a byte that is not a nucleotide code; with the line wherever
            there is one.
    """
    for name, chunks in itertools.groupby(iterate_chunks(path), key=lambda chunk: chunk.name):
        yield name, np.frombuffer(b"".join(chunk.bases for chunk in chunks), np.uint8)


class FastaChunk(NamedTuple):
    """Consecutive bases of a record."""

    name: str  # of the record
    bases: bytes  # one per base, lower-case where soft-masked
    ambiguous: int  # how many of them were IUPAC ambiguity codes


def iterate_chunks(
    path: AnyPath | Input,
    watch: Callable[[bytes], object] | None = None,
    lines: Callable[[int, int, bytes], object] | None = None,
) -> Iterator[FastaChunk]:
    """Reads the sequence of a FASTA file in chunks of a few million bases.

    Args:
        path: a FASTA file, plain or gzip-compressed (bgzip included).
        watch: called with all bytes of the file as they are read, still compressed.
        lines: called with every stretch of text between headers, and every header: the number of
            its first line (from 1), its first byte in the decompressed file (0-based), the bytes.

    Yields:
        Every record's chunks, none of them empty, in the file's order.

    Raises:
        UserError: a file that is not FASTA, or a sequence with characters that are not nucleotides.
    """
    source = as_input(path)
    first_line: dict[str, int] = {}  # of each name
    name, length, ambiguous = "", 0, 0
    for line, offset, text in _stretches(source, watch):
        if lines is not None:
            lines(line, offset, text)
        if text.startswith(b">"):
            _check_record(source, first_line, name, length)
            name, length = _name(source, line, text), 0
            if name in first_line:
                raise UserError(
                    f"{source.name}:{line}: the name {name} was already used in line "
                    f"{first_line[name]}: rename one of the two records"
                )
            first_line[name] = line
        elif name:
            try:
                bases, count = canonical(text)
            except StrangeByte as error:
                line += text.count(b"\n", 0, error.position)
                raise UserError(f"{source.name}:{line}: {error}") from None
            length += len(bases)
            ambiguous += count
            if bases:
                yield FastaChunk(name, bases, count)
        elif first := text.lstrip():
            line += text.count(b"\n") - first.count(b"\n")
            raise UserError(
                f"{source.name}:{line}: a FASTA file starts with '>', not with {_shown(first)}"
            )
    if not name:
        raise UserError(f"{source.name} is empty: a FASTA file has a '>' line and sequence")
    _check_record(source, first_line, name, length)
    if ambiguous:
        log.info(
            "%s: %s IUPAC ambiguity codes (such as R or Y) are read as N",
            source.name,
            f"{ambiguous:,}",
        )


class StrangeByte(Exception):
    """A byte that is not a nucleotide code.

    Attributes:
        position: its index in the text, 0-based.
    """

    def __init__(self, position: int, byte: bytes):
        self.position = position
        says = f"{_shown(byte)} is not a nucleotide code"
        if byte in _PROTEIN_ALONE:
            says += ": this looks like a protein FASTA, and DNA is needed"
        elif byte in b"-.":
            says += ": remove the gaps of an alignment first"
        else:
            says += ": sequence lines hold A, C, G, T, N or IUPAC codes and nothing else"
        super().__init__(says)


def canonical(lines: bytes) -> tuple[bytes, int]:
    """Returns lines of sequence without their line ends, other codes than A, C, G, T, N replaced.

    Returns:
        The bases, upper and lower case kept, and how many of them were ambiguity codes.

    Raises:
        StrangeByte: a byte is not a nucleotide code.
    """
    # `translate` deletes at memory speed: what is left is rare, and empty for most files.
    odd = lines.translate(None, _PLAIN + _NEWLINES)
    if not odd:
        return lines.translate(None, _NEWLINES), 0
    if strange := _STRANGE.search(lines):
        raise StrangeByte(strange.start(), strange.group())
    return lines.translate(_READ_AS, _NEWLINES), len(odd.translate(None, b"Uu"))


def _stretches(
    source: Input, watch: Callable[[bytes], object] | None
) -> Iterator[tuple[int, int, bytes]]:
    """Yields headers and stretches of other lines: first line (from 1), first byte (from 0), bytes.

    Only a stretch that begins a line can begin with `>`, unless that byte is out of place.
    """
    line, offset, begins_line = 1, 0, True
    with source.open(watch) as file:
        while block := file.read(_BLOCK):
            if not offset and block.startswith(codecs.BOM_UTF8):
                offset = len(codecs.BOM_UTF8)
                block = block[offset:]
            last_line = block.rfind(b"\n") + 1
            if block.startswith(b">", last_line) and (last_line or begins_line):
                block += file.readline()  # a header is read whole
            elif not begins_line and block.startswith(b">"):
                raise UserError(f"{source.name}:{line}: {StrangeByte(0, b'>')}")
            start = 0
            while start < len(block):
                mark = b"\n" if block.startswith(b">", start) else b"\n>"
                end = block.find(mark, start) + 1 or len(block)
                stretch = block[start:end]
                yield line, offset, stretch
                line += stretch.count(b"\n")
                offset += len(stretch)
                start = end
            begins_line = block.endswith(b"\n")


def _name(source: Input, line: int, header: bytes) -> str:
    words = header[1:].split(maxsplit=1)
    if not words or header[1:2].isspace():
        raise UserError(f"{source.name}:{line}: '>' must be followed by the record's name")
    if b"\0" in words[0]:
        raise UserError(f"{source.name}:{line}: a zero byte: this is not text, so not a FASTA file")
    return words[0].decode(errors="replace")


def _shown(text: bytes) -> str:
    return repr(text[:1].decode("latin-1"))


def _check_record(source: Input, first_line: dict[str, int], name: str, length: int) -> None:
    if name and not length:
        raise UserError(
            f"{source.name}:{first_line[name]}: the record {name} has no sequence: remove it"
        )
