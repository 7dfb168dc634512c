"""Files of results at every base: tables and bigWig tracks, written a piece at a time."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.genomics.files.output import check_output
from caduceus_jax.genomics.scoring.per_base import EveryBase, Piece

TABLES = {".parquet": "pyarrow", ".tsv": "polars"}
TRACKS = {".bw": "pyBigWig"}


def check_outputs(
    out: Sequence[str | pathlib.Path] | str | pathlib.Path,
    formats: Mapping[str, str | None],
    inputs: Sequence[str | pathlib.Path],
) -> dict[pathlib.Path, str]:
    """Finds out before the work that all files can be written.

    Args:
        out: the files to be written, or one.
        formats: see `output.check_output`.
        inputs: files that are read.

    Returns:
        Each file and its ending.

    Raises:
        UserError: one cannot be written, is an input, or is named twice.
    """
    endings = {}
    for path in map(pathlib.Path, [out] if isinstance(out, str | pathlib.Path) else out):
        if path in endings:
            raise UserError(f"{path} is named twice: give each output a name of its own")
        endings[path] = check_output(path, formats)
        if path.resolve() in [pathlib.Path(file).resolve() for file in inputs]:
            raise UserError(f"{path} is an input: choose another name for the output")
    return endings


def write_table(path: pathlib.Path, ending: str, frames: Iterable[Any]) -> None:
    """Writes polars frames of the same columns one after the other.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        ending: ".parquet" or ".tsv", in which null is an empty field.
        frames: at least one; it may be empty.
    """
    if ending == ".tsv":
        with path.open("wb") as file:
            for i, frame in enumerate(frames):
                frame.write_csv(file, separator="\t", include_header=i == 0)
        return
    import polars
    import pyarrow.parquet

    writer = None
    for frame in frames:
        table = frame.to_arrow(compat_level=polars.CompatLevel.oldest())
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        if len(table):
            writer.write_table(table)
    if writer is not None:
        writer.close()


def write_track(
    path: pathlib.Path,
    results: EveryBase,
    value: Callable[[Piece], Float[Any, " bases"]],
) -> None:
    """Writes a bigWig file with one value for each base, however many regions it is in.

    Args:
        path: the file to write; it is not renamed at the end, so give a temporary one.
        results: of `every_base.run`.
        value: of each base of a piece; NaN is left out.
    """
    genome = results.genome
    write_bigwig(
        path,
        zip(genome.names, genome.lengths.tolist(), strict=True),
        (
            (genome.names[piece.contig], piece.start, value(piece))
            for piece in results.stretch_pieces()
        ),
    )
