"""Tables as files, written in parts: parquet, and text separated by tabs."""

import contextlib
import gzip
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import polars

from caduceus_jax.errors import UserError

TABLES: dict[str, str | None] = {".parquet": "pyarrow", ".tsv": "polars", ".tsv.gz": "polars"}

Write = Callable[[polars.DataFrame], None]

# Rows, and numbers in their vectors, of a row group of a parquet file: where groups end depends on
# the rows alone, and not on the parts that are written.
_GROUP_ROWS, _GROUP_NUMBERS = 1 << 16, 1 << 24


def check_columns(frame: polars.DataFrame, path: pathlib.Path) -> None:
    """Refuses columns that text cannot hold, where a file of text is to be written.

    Raises:
        UserError: a column is nested or binary.
    """
    if path.name.endswith(".parquet"):
        return
    for name, dtype in frame.schema.items():
        if dtype.is_nested() or dtype == polars.Binary:
            raise UserError(
                f"the column {name} is {dtype}, which text cannot hold: write .parquet, or leave "
                "the column out"
            )


@contextlib.contextmanager
def table_writer(
    path: pathlib.Path,
    ending: str,
    *,
    encoding: str = "utf-8",
    metadata: Mapping[str, str] | None = None,
) -> Iterator[Write]:
    """Opens a table for writing frames of the same columns one after the other.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        ending: ".parquet", ".tsv" or ".tsv.gz"; null is an empty field in text.
        encoding: encoding of text.
        metadata: metadata of a parquet file.

    Yields:
        A function that takes a frame; at least one frame is to be written, which may be empty.
    """
    if ending == ".parquet":
        writer = _Parquet(path, dict(metadata or {}))
        with contextlib.closing(writer):
            yield writer.write
            writer.finish()
        return
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if ending.endswith(".gz"):
            # No time of day, and no temporary name, within: the same table gives the same bytes.
            compressed = gzip.GzipFile("", "wb", fileobj=file, mtime=0)
            file = stack.enter_context(compressed)
        header = True

        def write(frame: polars.DataFrame) -> None:
            """Appends a frame's rows, the first time with a header."""
            nonlocal header
            text = _escaped(frame).write_csv(
                separator="\t", include_header=header, quote_style="never"
            )
            file.write(text.encode(encoding))
            header = False

        yield write


def _escaped(frame: polars.DataFrame) -> polars.DataFrame:
    """Puts fields in quotation marks that would not be read as one field otherwise."""
    columns = []
    for name, dtype in frame.schema.items():
        text = polars.col(name)
        if dtype in (polars.Categorical, polars.Enum):
            text = text.cast(polars.String)
        elif dtype != polars.String:
            continue
        quoted = polars.format('"{}"', text.str.replace_all('"', '""', literal=True))
        torn = text.str.contains('[\t\n\r]|^"')
        columns.append(polars.when(torn).then(quoted).otherwise(text).alias(name))
    return frame.with_columns(columns)


class _Parquet:
    def __init__(self, path: pathlib.Path, metadata: dict[str, str]):
        self._path, self._metadata = path, metadata
        self._writer: Any = None
        self._frames: list[polars.DataFrame] = []

    def write(self, frame: polars.DataFrame) -> None:
        """Writes all complete groups of rows."""
        self._frames.append(frame)
        waiting = polars.concat(self._frames) if len(self._frames) > 1 else frame
        first, ends = 0, _group_ends(waiting)
        for end in ends:
            self._write(waiting[first:end])
            first = end
        self._frames = [waiting[first:]]

    def finish(self) -> None:
        """Writes the rows that are left."""
        for frame in self._frames:
            if len(frame) or self._writer is None:
                self._write(frame)

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, frame: polars.DataFrame) -> None:
        import pyarrow.parquet

        table = frame.rechunk().to_arrow(compat_level=polars.CompatLevel.oldest())
        if self._metadata:
            table = table.replace_schema_metadata(self._metadata)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(
                self._path, table.schema, compression="zstd"
            )
        if len(table):
            self._writer.write_table(table, row_group_size=len(table))


def _group_ends(frame: polars.DataFrame) -> list[int]:
    """Returns the row after each whole group; what is left waits for more rows."""
    numbers = np.zeros(len(frame), np.int64)
    for name, dtype in frame.schema.items():
        if isinstance(dtype, polars.Array):
            numbers += int(np.prod(dtype.shape))
        elif isinstance(dtype, polars.List):
            inner = dtype.inner
            width = int(np.prod(inner.shape)) if isinstance(inner, polars.Array) else 1
            numbers += frame[name].list.len().fill_null(0).to_numpy().astype(np.int64) * width
    total = np.cumsum(numbers)
    ends, first, before = [], 0, 0
    while True:
        full = int(np.searchsorted(total, before + _GROUP_NUMBERS, side="left")) + 1
        end = min(first + _GROUP_ROWS, full)
        if end > len(frame):
            return ends
        ends.append(end)
        first, before = end, int(total[end - 1])
