"""Kinds of input files, told by how they start, by their names, and by the columns they have."""

from collections.abc import Iterable
from typing import Literal

from caduceus_jax.genomics.files.inputs import Input
from caduceus_jax.genomics.files.tables import PARQUET, TEXT_ENDINGS

Kind = Literal["FASTA", "BED", "VCF", "table"]
_BOM = b"\xef\xbb\xbf"
_START = 1 << 12  # bytes


def kind_of(source: Input, column: str = "sequence") -> Kind:
    """Finds out what a file is: by how it starts, then by the ending of its name.

    Args:
        source: the file.
        column: a column that a table has; tells tables whose name has no ending, such as pipes.
    """
    if is_table(source, [column]):
        return "table"
    start = _start(source)
    plain = source.path.name.removesuffix(".gz").removesuffix(".bgz")
    if start.startswith((b"##fileformat=VCF", b"BCF")) or plain.endswith((".vcf", ".bcf")):
        return "VCF"
    if plain.endswith(".bed"):
        return "BED"
    for line in start.splitlines():
        words = line.split()
        if not words or line.startswith(b"#") or words[0] in (b"track", b"browser"):
            continue
        return "BED" if len(words) > 2 and words[1].isdigit() and words[2].isdigit() else "FASTA"
    return "FASTA" if not start.startswith((b"#", b"track", b"browser")) else "BED"


def is_table(source: Input, columns: Iterable[str]) -> bool:
    """Tells whether a file is read as a table.

    Parquet is told by its first bytes and text by the ending of its name. Pipes, standard input and
    files whose name has no ending are tables where their first line names the columns.

    Args:
        source: the file.
        columns: names of columns that the table must have.
    """
    if source.head(len(PARQUET)) == PARQUET:
        return True
    if source.path.name.endswith((*TEXT_ENDINGS, ".parquet")):
        return True
    if source.is_regular and source.path.suffix:
        return False
    first = _start(source).lstrip(b"\r\n").partition(b"\n")[0].decode(errors="replace")
    names = first.removeprefix("#").split("\t" if "\t" in first else ",")
    return set(columns) <= {name.strip('" \r') for name in names}


def _start(source: Input) -> bytes:
    """Reads the beginning of a file, decompressed."""
    with source.open() as file:
        return file.read(_START).removeprefix(_BOM)
