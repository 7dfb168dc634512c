"""Regions of a genome from a BED file."""

import pathlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.compressed import open_binary

_LARGEST = 2**31  # BED coordinates are 32-bit in every tool that reads them
_MOST_DIGITS = len(str(_LARGEST))
_WHOLE_NUMBER = re.compile("-?[0-9]+")
_HEADERS = (b"track", b"browser")


class Regions(NamedTuple):
    """Regions in the file's order, 0-based half-open, which is what BED holds."""

    chrom: list[str]
    start: Int[np.ndarray, " rows"]  # first base
    end: Int[np.ndarray, " rows"]  # the base after the last one
    name: list[str]  # the fourth column; chrom:start-end where there is none
    line: Int[np.ndarray, " rows"]  # of the file, from 1


def read_bed(path: str | pathlib.Path) -> Regions:
    """Reads the first four columns of a BED file.

    Blank lines and lines that start with `#`, `track` or `browser` are skipped. Strands, scores
    and further columns are not used.

    Args:
        path: the file, plain or gzip-compressed.

    Raises:
        UserError: a line that is no region, with its number.
    """
    path = pathlib.Path(path)
    chroms, starts, ends, names, numbers = [], [], [], [], []
    with open_binary(path) as file:
        for number, raw in enumerate(file, start=1):
            line = raw.rstrip(b"\r\n")
            if not line.strip() or line.startswith(b"#") or line.split()[0] in _HEADERS:
                continue
            if b"\0" in line:
                raise UserError(f"{path}:{number}: a zero byte: this is no text, so no BED file")
            if line.startswith(b">"):
                raise UserError(f"{path} is a FASTA file, where a BED file of regions is needed")
            chrom, start, end, name = _region(f"{path}:{number}", line)
            chroms.append(chrom)
            starts.append(start)
            ends.append(end)
            names.append(name)
            numbers.append(number)
    columns = (np.array(column, np.int64) for column in (starts, ends, numbers))
    start, end, line = columns
    return Regions(chroms, start, end, names, line)


def _region(where: str, line: bytes) -> tuple[str, int, int, str]:
    # As bytes: text would also be split at spaces that only Unicode knows.
    fields = line.split(b"\t") if b"\t" in line else line.split()
    columns = [field.strip().decode(errors="replace") for field in fields[:4]]
    if len(columns) < 3:
        raise UserError(
            f"{where}: only {len(columns)} of the columns chrom, start and end; they are separated "
            "by tabs"
        )
    chrom, *numbers = columns[:3]
    if not chrom:
        raise UserError(f"{where}: the first column, chrom, is empty")
    for which, number in zip(("start", "end"), numbers, strict=True):
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
            raise UserError(
                f"{where}: {which} is {number[:20]}, beyond 2^31: no contig is that long"
            )
    start, end = (int(number.lstrip("-0") or 0) for number in numbers)
    if start >= end:
        raise UserError(
            f"{where}: start {start} is not below end {end}: BED counts from 0 and the end is the "
            "base after the last one"
        )
    name = columns[3] if len(columns) > 3 else ""
    return chrom, start, end, name if name not in ("", ".") else f"{chrom}:{start}-{end}"
