"""Tables of text and of parquet: read whole, written in parts."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import polars

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.fasta import StrangeByte, canonical
from caduceus_jax.genomics.files.inputs import AnyPath, Input, as_input, check_text

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = b"PAR1"  # how such a file begins
TEXT_ENDINGS = tuple(f"{ending}{gz}" for ending in _SEPARATORS for gz in ("", ".gz", ".bgz"))
# Column that keeps, while a table is read, the bytes of text that is not UTF-8.
LATIN_1 = "latin-1"


class Table:
    """A table with the place of each row, for errors.

    Args:
        frame: its columns; those of a text file are text, as they stand there.
        name: name of the file in errors.
        lines: number of each row's first line, from 1; None for parquet, whose rows are counted.
        encoding: encoding of a text file.

    Attributes:
        frame: the columns.
    """

    def __init__(
        self,
        frame: polars.DataFrame,
        name: str = "the table",
        lines: Sequence[int] | None = None,
        encoding: str = "utf-8",
    ):
        self.frame, self.name, self._lines, self.encoding = frame, name, lines, encoding

    def line(self, row: int) -> int:
        """Returns the line of a row (from 0) in a text file, otherwise its number; both from 1."""
        return row + 1 if self._lines is None else self._lines[row]

    def where(self, row: int) -> str:
        """Returns where a row (from 0) stands, for errors."""
        return f"{self.name}:{' row ' if self._lines is None else ''}{self.line(row)}"


def read_table(path: AnyPath | Input) -> Table:
    """Reads a table: parquet, or text whose first line names the columns.

    Text is separated by tabs, or in .csv files by commas; fields may be quoted as RFC 4180 has it.
    Blank lines and a byte order mark are skipped. Text that is not UTF-8 is read as Latin-1.

    Args:
        path: .csv or .tsv, either plain or compressed, or .parquet.

    Raises:
        UserError: no such file, another ending, a line that does not fit, or not such a table.
    """
    source = as_input(path)
    if source.head(len(PARQUET)) == PARQUET or source.path.name.endswith(".parquet"):
        return Table(_read_parquet(source), source.name)
    ending = source.path.name.removesuffix(".gz").removesuffix(".bgz")[-4:]
    separator = _SEPARATORS.get(ending)
    if separator is None and source.is_regular and source.path.suffix:
        raise UserError(
            f"{source.name} is read by its name's ending, and that is none of .csv, .tsv (with or "
            "without .gz), .parquet, .fa, .fasta, .fna"
        )
    with source.open() as file:
        data = file.read().removeprefix(codecs.BOM_UTF8)
    if separator is None:  # a pipe has no ending
        first = data.lstrip(b"\r\n").partition(b"\n")[0]
        separator = "\t" if b"\t" in first else ","
    return _read_text(source.name, data, separator)


def _read_parquet(source: Input) -> polars.DataFrame:
    try:
        with source.open() as file:
            return polars.read_parquet(io.BytesIO(file.read()))
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{source.name} cannot be read as parquet: {reason}") from None


def _read_text(name: str, data: bytes, separator: str) -> Table:
    check_text(name, data, "a table")
    encoding = "utf-8"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        encoding, text = LATIN_1, data.decode(LATIN_1)
    rows = _rows(name, text, separator)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{name} is empty: its first line names the columns")
    first, names = header
    names[0] = names[0].removeprefix("#")
    if repeated := {column for column in names if names.count(column) > 1}:
        raise UserError(
            f"{name}:{first}: two columns have the same name, {min(repeated)}: rename one of them"
        )
    columns: list[list[str]] = [[] for _ in names]
    lines = []
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(
                f"{name}:{line}: {len(row)} columns, where the first line names {len(names)}; they "
                f"are separated by {'tabs' if separator == chr(9) else 'commas'}"
            )
        lines.append(line)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    series = [polars.Series(n, c, dtype=polars.String) for n, c in zip(names, columns, strict=True)]
    return Table(polars.DataFrame(series), name, lines, encoding)


def _rows(name: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the fields of each line that is not blank, with its number from 1.

    In text separated by tabs a quotation mark means itself, unless a field begins with one and
    another ends a field: so both what spreadsheets quote and the 5" of a length are read.
    """
    if separator == "," or _is_quoted(text, separator):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        before = 0
        try:
            for row in reader:
                if row and row != [""]:
                    yield before + 1, row
                before = reader.line_num
        except csv.Error as error:
            raise UserError(f"{name}:{before + 1}: {error}: a quotation mark is missing") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip(" \t"):
            yield number, line.split(separator)


def _is_quoted(text: str, separator: str) -> bool:
    """Tells whether text separated by tabs has fields in quotation marks, and reads well so."""
    if f'{separator}"' not in text and not text.startswith('"') and '\n"' not in text:
        return False
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        widths = {len(row) for row in reader if row}
    except csv.Error:
        return False
    return len(widths) == 1


def checked_bases(where: str, sequence: object) -> bytes:
    """Returns a sequence of a table without the blanks around it, unknown bases as N.

    Args:
        where: names the row in errors.
        sequence: the value of the cell.

    Raises:
        UserError: not text, none at all, or with characters that are not nucleotides.
    """
    if not isinstance(sequence, str) or not sequence.strip():
        raise UserError(f"{where}: the sequence is missing")
    try:
        return canonical(sequence.strip().encode())[0]
    except StrangeByte as error:
        raise UserError(f"{where}: {error}") from None


def of_frame(frame: Any) -> polars.DataFrame:
    """Returns a polars frame of a polars or pandas one, or of a mapping of columns.

    Raises:
        UserError: not a table.
    """
    if isinstance(frame, polars.DataFrame):
        return frame
    if isinstance(frame, polars.LazyFrame):
        return frame.collect()
    if type(frame).__module__.partition(".")[0] == "pandas":
        return polars.from_pandas(frame)
    if isinstance(frame, dict):
        return polars.DataFrame(frame)
    raise UserError(f"a {type(frame).__name__} is not a table: pass a polars or pandas DataFrame")


def is_frame(value: object) -> bool:
    """Tells whether a value is a polars or pandas frame, or a mapping of columns."""
    pandas = type(value).__module__.partition(".")[0] == "pandas"
    return isinstance(value, polars.DataFrame | polars.LazyFrame | dict) or pandas
