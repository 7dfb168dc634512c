"""Reading FASTA files from end to end, every byte checked.

Sequences are upper-case `A C G T N`, and lower-case where the file is soft-masked. IUPAC ambiguity
codes are read as N (and counted), U as T; any other byte is an error that names file and line.
"""

import pathlib
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.compressed import open_binary
from caduceus_jax.progress import notice

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
    path = pathlib.Path(path)
    first_line: dict[str, int] = {}  # of each name
    name, parts, ambiguous = "", [], 0
    for line, piece in _pieces(path):
        if piece.startswith(b">"):
            if name:
                yield name, _record(path, first_line[name], name, parts)
            name, parts = _name(path, line, piece), []
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
            parts.append(bases)
            ambiguous += count
        elif text := piece.lstrip():
            line += piece.count(b"\n") - text.count(b"\n")
            raise UserError(f"{path}:{line}: a FASTA file starts with '>', not with {_shown(text)}")
    if not name:
        raise UserError(f"{path} is empty: a FASTA file has a '>' line and sequence")
    yield name, _record(path, first_line[name], name, parts)
    if ambiguous:
        notice(f"{path}: {ambiguous:,} IUPAC ambiguity codes (such as R or Y) are read as N")


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


def _pieces(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Header lines and runs of other lines, each with the number of its first line, from 1."""
    line = 1
    with open_binary(path) as file:
        while block := file.read(_BLOCK) + file.readline():  # up to the end of a line
            start = 0
            while start < len(block):
                mark = b"\n" if block.startswith(b">", start) else b"\n>"
                end = block.find(mark, start) + 1 or len(block)
                piece = block[start:end]
                yield line, piece
                line += piece.count(b"\n")
                start = end


def _name(path: pathlib.Path, line: int, header: bytes) -> str:
    words = header[1:].split(maxsplit=1)
    if not words or header[1:2].isspace():
        raise UserError(f"{path}:{line}: '>' must be followed by the record's name")
    if b"\0" in words[0]:
        raise UserError(f"{path}:{line}: a zero byte: this is no text, so no FASTA file")
    return words[0].decode(errors="replace")


def _shown(text: bytes) -> str:
    return repr(text[:1].decode("latin-1"))


def _record(path: pathlib.Path, line: int, name: str, parts: list[bytes]) -> Bases:
    sequence = np.frombuffer(b"".join(parts), np.uint8)
    if not len(sequence):
        raise UserError(f"{path}:{line}: the record {name} has no sequence: remove it")
    return sequence
