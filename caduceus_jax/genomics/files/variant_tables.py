"""Variants in tables: one row an ALT, with the columns chrom, pos (from 1), ref and alt."""

import gzip
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import is_sequence, is_symbolic
from caduceus_jax.genomics.files.inputs import open_binary
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.variant import Variants

if TYPE_CHECKING:
    import polars

_NAMES = ("chrom", "pos", "ref", "alt")
_ENDINGS = (".parquet", ".tsv", ".tsv.gz")
_LARGEST = 2**31 - 1  # as in VCF


def is_table(path: pathlib.Path) -> bool:
    """Whether a file is read as a table, by the ending of its name."""
    return path.name.endswith(_ENDINGS)


def read_table(path: pathlib.Path) -> tuple[Variants, "polars.DataFrame"]:
    """Reads variants from a parquet file or from text separated by tabs (plain or gzip).

    Returns:
        The variants, and the table with all of its columns. Those of a text file are text, as they
        stand there.

    Raises:
        UserError: no such file, none of the four columns, or a row that is no variant.
    """
    import polars

    if path.name.endswith(".parquet"):
        with open_binary(path):
            pass  # that there is such a file, and that it may be read
        try:
            frame = polars.read_parquet(path)
        except (polars.exceptions.PolarsError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{path} cannot be read as parquet: {reason}") from None
        first_row = 1
    else:
        frame, first_row = _read_text(path), 2
    missing = [name for name in _NAMES if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}: a table of variants has chrom, pos, ref "
            "and alt"
        )
    what = "" if first_row == 2 else " row "
    lines = np.arange(first_row, first_row + len(frame))
    chrom, pos, ref, alt = (frame[name].to_list() for name in _NAMES)
    chrom = [None if name is None else str(name) for name in chrom]
    position = np.zeros(len(frame), np.int64)
    for i, row in enumerate(zip(chrom, pos, ref, alt, strict=True)):
        try:
            position[i] = _checked(*row) - 1
        except ValueError as error:
            raise UserError(f"{path}:{what}{lines[i]}: {error}") from None
    known = [None if a in (None, "", ".") else a for a in alt]
    contig = [str(name) for name in chrom]
    return Variants(np.arange(len(frame)), lines, contig, position, ref, known), frame


def _checked(chrom: object, pos: object, ref: object, alt: object) -> int:
    """The position of a row, from 1; a ValueError says what is wrong."""
    if not isinstance(chrom, str) or not chrom.strip():
        raise ValueError("chrom is empty")
    number = pos if isinstance(pos, int) else None
    if isinstance(pos, str) and pos.isascii() and pos.isdecimal():
        number = int(pos)
    if number is None or number < 0:
        raise ValueError(f"pos is {pos!r}, not a whole number from 1 up")
    if number > _LARGEST:
        raise ValueError(f"pos is {pos}, beyond 2^31: no contig is that long")
    if not isinstance(ref, str) or not is_sequence(ref):
        raise ValueError(f"ref is {ref!r}: it must be the reference's bases")
    if alt is not None and alt != "":
        if not isinstance(alt, str) or not (is_sequence(alt) or is_symbolic(alt)):
            hint = ": one row an ALT" if isinstance(alt, str) and "," in alt else ""
            raise ValueError(f"alt is {alt!r}: it must be bases, '*', '.' or a symbol{hint}")
    return number


def _read_text(path: pathlib.Path) -> "polars.DataFrame":
    import polars

    with open_binary(path) as file:
        text = (line.decode(errors="replace").rstrip("\r\n").split("\t") for line in file)
        names = next(text, None)
        if names is None:
            raise UserError(f"{path} is empty: its first line names the columns")
        names[0] = names[0].removeprefix("#")
        if len(set(names)) < len(names):
            raise UserError(f"{path}:1: two columns have one name")
        columns: list[list[str]] = [[] for _ in names]
        for number, row in enumerate(text, start=2):
            if len(row) != len(names):
                raise UserError(
                    f"{path}:{number}: {len(row)} columns, where the first line names "
                    f"{len(names)}; they are separated by tabs"
                )
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    series = [polars.Series(n, c, dtype=polars.String) for n, c in zip(names, columns, strict=True)]
    return polars.DataFrame(series)


def table_of(
    variants: Variants,
    status: np.ndarray,
    scores: Mapping[str, np.ndarray],
    frame: "polars.DataFrame | None",
) -> "polars.DataFrame":
    """Variants with their statuses and scores, one row an ALT.

    Args:
        variants: what was scored.
        status: (rows,) of `windows.Status`.
        scores: name -> (rows,) values, NaN where there is none.
        frame: the table the variants come from, whose columns stay; those of the same names are
            replaced. None for variants of a VCF: chrom, pos (from 1), ref and alt.
    """
    import polars

    if frame is None:
        texts = {"chrom": variants.chrom, "ref": variants.ref, "alt": variants.alt}
        series = {
            name: polars.Series(values, dtype=polars.String) for name, values in texts.items()
        }
        series["pos"] = polars.Series(variants.position + 1)
        frame = polars.DataFrame({name: series[name] for name in _NAMES})
    return frame.drop("status", *scores, strict=False).with_columns(
        polars.Series("pos", variants.position + 1),
        polars.Series("status", status.tolist(), dtype=polars.String),
        *(polars.Series(name, values).fill_nan(None) for name, values in scores.items()),
    )


def write_table(path: pathlib.Path, ending: str, frame: "polars.DataFrame") -> None:
    """Writes a table as .parquet, .tsv or .tsv.gz; nulls are empty in text."""
    if ending == ".parquet":
        frame.write_parquet(path)
        return
    with path.open("wb") as file:
        if ending == ".tsv":
            frame.write_csv(file, separator="\t", quote_style="never")
            return
        # No time of day, and no temporary name, within: the same table gives the same bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
            compressed.write(frame.write_csv(separator="\t", quote_style="never").encode())


def vcf_of(variants: Variants, genome: Genome) -> Sequence[str]:
    """The lines of a VCF file with one record for each row."""
    columns = "#CHROM POS ID REF ALT QUAL FILTER INFO".split()
    lengths = zip(genome.names, genome.lengths.tolist(), strict=True)
    header = [
        "##fileformat=VCFv4.2",
        *(f"##contig=<ID={name},length={length}>" for name, length in lengths),
        "\t".join(columns),
    ]
    rows = zip(variants.chrom, variants.position.tolist(), variants.ref, variants.alt, strict=True)
    return header + [
        f"{chrom}\t{position + 1}\t.\t{ref}\t{alt or '.'}\t.\t.\t."
        for chrom, position, ref, alt in rows
    ]
