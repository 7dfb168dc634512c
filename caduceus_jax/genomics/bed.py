"""Regions of a genome from a BED file."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.compressed import open_binary

_LARGEST = 2**31  # BED coordinates are 32-bit in every tool that reads them
_HEADERS = ("#", "track", "browser")


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
            line = raw.decode(errors="replace").rstrip("\r\n")
            if not line.strip() or line.startswith(_HEADERS[0]) or line.split()[0] in _HEADERS:
                continue
            if line.startswith(">"):
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


def _region(where: str, line: str) -> tuple[str, int, int, str]:
    columns = line.split("\t") if "\t" in line else line.split()
    if len(columns) < 3:
        raise UserError(
            f"{where}: only {len(columns)} of the columns chrom, start and end; they are separated "
            "by tabs"
        )
    chrom, *numbers = (column.strip() for column in columns[:3])
    if not chrom:
        raise UserError(f"{where}: the first column, chrom, is empty")
    for which, number in zip(("start", "end"), numbers, strict=True):
        if not number.removeprefix("-").isdecimal():
            raise UserError(
                f"{where}: {which} is {number!r}, not a whole number; a header line must start "
                "with '#'"
            )
        if int(number) < 0:
            raise UserError(f"{where}: {which} is {number}; BED counts bases from 0")
        if int(number) > _LARGEST:
            raise UserError(f"{where}: {which} is {number}, beyond 2^31: no contig is that long")
    start, end = map(int, numbers)
    if start >= end:
        raise UserError(
            f"{where}: start {start} is not below end {end}: BED counts from 0 and the end is the "
            "base after the last one"
        )
    name = columns[3].strip() if len(columns) > 3 else ""
    return chrom, start, end, name if name not in ("", ".") else f"{chrom}:{start}-{end}"
