"""Sequences in tables: one row a sequence."""

import pathlib
from typing import TYPE_CHECKING

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import StrangeByte, canonical
from caduceus_jax.genomics.files.inputs import open_binary

if TYPE_CHECKING:
    import polars

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def is_sequence_table(path: pathlib.Path) -> bool:
    """Whether a file is read as a table, by the ending of its name."""
    return path.name.removesuffix(".gz").endswith((*_SEPARATORS, ".parquet"))


def read_frame(path: pathlib.Path) -> tuple["polars.DataFrame", int]:
    """A table, its text columns as text, and the number of its first row.

    Args:
        path: .csv or .tsv, either plain or with .gz, or .parquet.

    Returns:
        The table; and 2, the line of a text file's first row, or 1, that of a parquet file.

    Raises:
        UserError: no such file, another ending, or no such table.
    """
    import polars

    with open_binary(path) as file:
        try:
            if path.name.endswith(".parquet"):
                return polars.read_parquet(path), 1
            ending = path.name.removesuffix(".gz")[-4:]
            if ending not in _SEPARATORS:
                raise UserError(
                    f"{path} is read by its name's ending, and that is none of .csv, .tsv (with or "
                    "without .gz), .parquet, .fa, .fasta, .fna"
                )
            text = file.read()
            return polars.read_csv(text, separator=_SEPARATORS[ending], infer_schema=False), 2
        except polars.exceptions.PolarsError as error:
            raise UserError(
                f"{path} is no such table: {str(error).partition(chr(10))[0]}"
            ) from None


def row_name(path: pathlib.Path, first: int, row: int) -> str:
    """Where a row stands, for errors; `first` is what `read_frame` returns."""
    return f"{path}:{row}" if first == 2 else f"{path}: row {row}"


def checked_bases(where: str, sequence: object) -> bytes:
    """A sequence in capitals, unknown bases as N.

    Args:
        where: names the row in errors.
        sequence: what its cell holds.

    Raises:
        UserError: no text, none at all, or with characters that are no nucleotide.
    """
    if not isinstance(sequence, str) or not sequence.strip():
        raise UserError(f"{where}: there is no sequence")
    try:
        return canonical(sequence.strip().encode())[0]
    except StrangeByte as error:
        raise UserError(f"{where}: {error}") from None
