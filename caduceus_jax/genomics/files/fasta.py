"""Reading FASTA files from end to end, every byte checked.

Sequences are upper-case `A C G T N`, and lower-case where the file is soft-masked. IUPAC ambiguity
codes are read as N (and counted), U as T; any other byte is an error that names file and line.
"""

import itertools
import logging
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.compressed import open_binary

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


def read_genome(path: str | pathlib.Path) -> list[tuple[str, Bases]]:
    """Reads a whole genome into memory in one pass.

    Args:
        path: a FASTA file, plain or gzip-compressed (bgzip included).

    Returns:
        (name, sequence) of each record in the file's order: the name is the header's first word,
        the sequence its bases as ASCII, one uint8 a base, lower-case where soft-masked, read-only.

    Raises:
        UserError: no such file, no FASTA, no record, a record without a name or without sequence,
            a name twice, or a byte that is no nucleotide code; with the line wherever there is one.
    """
    return list(iterate_fasta(path))


def iterate_fasta(path: str | pathlib.Path) -> Iterator[tuple[str, Bases]]:
    """The records of a FASTA file one by one; see `read_genome`, which reads them all.

    Yields:
        (name, sequence) of each record, in the file's order.
    """
    for name, pieces in itertools.groupby(iterate_pieces(path), key=lambda piece: piece.name):
        yield name, np.frombuffer(b"".join(piece.bases for piece in pieces), np.uint8)


class Piece(NamedTuple):
    """Consecutive bases of a record."""

    name: str  # of the record
    bases: bytes  # one a base, lower-case where soft-masked
    ambiguous: int  # how many of them were IUPAC ambiguity codes


def iterate_pieces(
    path: str | pathlib.Path, watch: Callable[[bytes], object] | None = None
) -> Iterator[Piece]:
    """The sequence of a FASTA file in pieces of a few million bases, however long its records are.

    Args:
        path: as for `read_genome`, which says what is refused.
        watch: told all bytes of the file as they are read, still compressed.

    Yields:
        Every record's pieces, none of them empty, in the file's order.
    """
    path = pathlib.Path(path)
    first_line: dict[str, int] = {}  # of each name
    name, length, ambiguous = "", 0, 0
    for line, piece in _pieces(path, watch):
        if piece.startswith(b">"):
            _check_record(path, first_line, name, length)
            name, length = _name(path, line, piece), 0
            if name in first_line:
                raise UserError(
                    f"{path}:{line}: the name {name} was already used in line {first_line[name]}: "
                    "rename one of the two records"
                )
            first_line[name] = line
        elif name:
            try:
                bases, count = canonical(piece)
            except StrangeByte as error:
                line += piece.count(b"\n", 0, error.position)
                raise UserError(f"{path}:{line}: {error}") from None
            length += len(bases)
            ambiguous += count
            if bases:
                yield Piece(name, bases, count)
        elif text := piece.lstrip():
            line += piece.count(b"\n") - text.count(b"\n")
            raise UserError(f"{path}:{line}: a FASTA file starts with '>', not with {_shown(text)}")
    if not name:
        raise UserError(f"{path} is empty: a FASTA file has a '>' line and sequence")
    _check_record(path, first_line, name, length)
    if ambiguous:
        log.info(f"{path}: {ambiguous:,} IUPAC ambiguity codes (such as R or Y) are read as N")


class StrangeByte(Exception):
    """A byte that is no nucleotide code.

    Attributes:
        position: its index in the text, 0-based.
    """

    def __init__(self, position: int, byte: bytes):
        self.position = position
        says = f"{_shown(byte)} is no nucleotide code"
        if byte in _PROTEIN_ALONE:
            says += ": this looks like a protein FASTA, and DNA is needed"
        elif byte in b"-.":
            says += ": remove the gaps of an alignment first"
        else:
            says += ": sequence lines hold A, C, G, T, N or IUPAC codes and nothing else"
        super().__init__(says)


def canonical(lines: bytes) -> tuple[bytes, int]:
    """Lines of sequence without their line ends, other codes than A, C, G, T, N replaced.

    Returns:
        The bases, upper and lower case kept, and how many of them were ambiguity codes.

    Raises:
        StrangeByte: a byte is no nucleotide code.
    """
    # `translate` deletes at memory speed: what is left is rare, and empty for most files.
    odd = lines.translate(None, _PLAIN + _NEWLINES)
    if not odd:
        return lines.translate(None, _NEWLINES), 0
    if strange := _STRANGE.search(lines):
        raise StrangeByte(strange.start(), strange.group())
    return lines.translate(_READ_AS, _NEWLINES), len(odd.translate(None, b"Uu"))


def _pieces(
    path: pathlib.Path, watch: Callable[[bytes], object] | None
) -> Iterator[tuple[int, bytes]]:
    """Header lines and stretches of other lines, each with the number of its first line, from 1.

    Only a piece that begins a line can begin with `>`, unless that byte is out of place.
    """
    line, begins_line = 1, True
    with open_binary(path, watch) as file:
        while block := file.read(_BLOCK):
            last_line = block.rfind(b"\n") + 1
            if block.startswith(b">", last_line) and (last_line or begins_line):
                block += file.readline()  # a header is read whole
            elif not begins_line and block.startswith(b">"):
                raise UserError(f"{path}:{line}: {StrangeByte(0, b'>')}")
            start = 0
            while start < len(block):
                mark = b"\n" if block.startswith(b">", start) else b"\n>"
                end = block.find(mark, start) + 1 or len(block)
                piece = block[start:end]
                yield line, piece
                line += piece.count(b"\n")
                start = end
            begins_line = block.endswith(b"\n")


def _name(path: pathlib.Path, line: int, header: bytes) -> str:
    words = header[1:].split(maxsplit=1)
    if not words or header[1:2].isspace():
        raise UserError(f"{path}:{line}: '>' must be followed by the record's name")
    if b"\0" in words[0]:
        raise UserError(f"{path}:{line}: a zero byte: this is no text, so no FASTA file")
    return words[0].decode(errors="replace")


def _shown(text: bytes) -> str:
    return repr(text[:1].decode("latin-1"))


def _check_record(path: pathlib.Path, first_line: dict[str, int], name: str, length: int) -> None:
    if name and not length:
        raise UserError(f"{path}:{first_line[name]}: the record {name} has no sequence: remove it")
