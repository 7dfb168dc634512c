"""Intervals of a genome from a BED file."""

import codecs
import re
from typing import NamedTuple

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import AnyPath, Input, as_input
from caduceus_jax.genomics.interval import Intervals

_LARGEST = 2**31  # BED coordinates are 32-bit in every tool that reads them
_MOST_DIGITS = len(str(_LARGEST))
_WHOLE_NUMBER = re.compile("-?[0-9]+")
_HEADERS = (b"track", b"browser")
_STRANDS = ("+", "-", ".")
_COLUMNS = 6


class _Row(NamedTuple):
    chrom: str
    start: int
    end: int
    name: str
    strand: str


def read_bed(path: AnyPath | Input) -> Intervals:
    """Reads the first four columns of a BED file, and the sixth, which is the strand.

    Blank lines, a byte order mark and lines that start with `#`, `track` or `browser` are skipped.
    A strand that is neither + nor - is ".".

    Args:
        path: the file, plain or gzip-compressed.

    Raises:
        UserError: a line that is not a region, with its number.
    """
    source = as_input(path)
    rows: list[_Row] = []
    numbers: list[int] = []
    with source.open() as file:
        for number, raw in enumerate(file, start=1):
            line = raw.rstrip(b"\r\n")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip() or line.startswith(b"#") or line.split()[0] in _HEADERS:
                continue
            where = f"{source.name}:{number}"
            if b"\0" in line:
                raise UserError(f"{where}: a zero byte: this is not text, so not a BED file")
            if line.startswith(b">"):
                raise UserError(
                    f"{source.name} is a FASTA file, where a BED file of regions is needed"
                )
            rows.append(_row(where, line))
            numbers.append(number)
    return Intervals(
        [row.chrom for row in rows],
        np.array([row.start for row in rows], np.int64),
        np.array([row.end for row in rows], np.int64),
        [row.name for row in rows],
        np.array(numbers, np.int64),
        [row.strand for row in rows],
    )


def _row(where: str, line: bytes) -> _Row:
    # As bytes: text would also be split at spaces that only Unicode knows.
    fields = line.split(b"\t") if b"\t" in line else line.split()
    columns = [_text(field.strip()) for field in fields[:_COLUMNS]]
    if len(columns) < 3:
        raise UserError(
            f"{where}: only {len(columns)} of the columns chrom, start and end; they are separated "
            "by tabs"
        )
    chrom, *numbers = columns[:3]
    if not chrom:
        raise UserError(f"{where}: the first column, chrom, is empty")
    for which, number in zip(("start", "end"), numbers, strict=True):
        _check_number(where, which, number)
    start, end = (int(number.lstrip("-0") or 0) for number in numbers)
    if start >= end:
        raise UserError(
            f"{where}: start {start} is not below end {end}: BED counts from 0 and the end is the "
            "base after the last one"
        )
    name = columns[3] if len(columns) > 3 else ""
    strand = columns[5] if len(columns) == _COLUMNS and columns[5] in _STRANDS else "."
    return _Row(
        chrom, start, end, name if name not in ("", ".") else f"{chrom}:{start}-{end}", strand
    )


def _check_number(where: str, which: str, number: str) -> None:
    if not _WHOLE_NUMBER.fullmatch(number):
        raise UserError(
            f"{where}: {which} is {number[:20]!r}, not a whole number; a header line must "
            "start with '#'"
        )
    # Python converts no number of thousands of digits.
    size = number.lstrip("-0")
    if number.startswith("-") and size:
        raise UserError(f"{where}: {which} is {number[:20]}; BED counts bases from 0")
    if len(size) > _MOST_DIGITS or int(size or 0) > _LARGEST:
        raise UserError(f"{where}: {which} is {number[:20]}, beyond 2^31: no contig is that long")


def _text(field: bytes) -> str:
    """Decodes UTF-8 or, where it is not that, Latin-1, in which all bytes are letters."""
    try:
        return field.decode()
    except UnicodeDecodeError:
        return field.decode("latin-1")
