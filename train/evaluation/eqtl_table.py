"""Tables of variants with labels: which change expression, where and in what tissue."""

import pathlib
from typing import NamedTuple

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files import tables

# Of each column, the names it may have; POS counts from 1, pos0 from 0.
_COLUMNS = {
    "chrom": ("chrom", "chromosome", "chr"),
    "pos": ("pos", "position"),
    "pos0": ("pos0",),
    "ref": ("ref", "reference"),
    "alt": ("alt", "alternative"),
    "label": ("label",),
    "tissue": ("tissue",),
    "split": ("split",),
    "distance": ("distance_to_nearest_tss", "distance", "dist_tss"),
}


class Table(NamedTuple):
    """Holds one row per variant and tissue, in the order of the file."""

    chrom: list[str]
    position: np.ndarray  # (rows,) int64, 0-based
    ref: list[str] | None  # None where the table has none
    alt: list[str]
    label: np.ndarray  # (rows,) 0 or 1
    tissue: list[str]  # "" where the table has none
    test: np.ndarray  # (rows,) bool
    distance: np.ndarray  # (rows,) float64 bases to the nearest transcription start, NaN if unknown


def read_table(path: pathlib.Path, test_contigs: list[str]) -> Table:
    """Reads a table such as All_Tissues.csv of the Genomics Long-Range Benchmark.

    Args:
        path: .csv, .tsv (either with .gz) or .parquet, with the columns CHROM, POS (1-based) or
            pos0 (0-based), ALT and label; REF, tissue, split and distance_to_nearest_TSS are used
            where they are there.
        test_contigs: tested on, where the table has no column split.

    Raises:
        UserError: the file does not exist, a column is missing, or a row is not a variant.
    """
    stored = tables.read_table(path)
    frame = stored.frame
    names = {name.lower(): name for name in frame.columns}
    found = {
        key: [str(value or "") for value in frame[names[name]].to_list()]
        for key, known in _COLUMNS.items()
        for name in known
        if name in names
    }
    for key in ("chrom", "alt", "label"):
        if key not in found:
            raise UserError(f"{path} has no column {key}; it has {', '.join(frame.columns)}")
    column = "pos" if "pos" in found else "pos0"
    if column not in found:
        raise UserError(f"{path} has no column pos (1-based) or pos0 (0-based)")
    rows = len(frame)
    position = np.empty(rows, np.int64)
    label = np.empty(rows, np.int64)
    distance = np.full(rows, np.nan)
    for row in range(rows):
        where = stored.where(row)
        position[row] = _whole(where, column, found[column][row])
        label[row] = _whole(where, "label", found["label"][row])
        if label[row] not in (0, 1):
            raise UserError(f"{where}: label is {found['label'][row]}; it is 0 or 1")
        if "distance" in found and found["distance"][row]:
            try:
                distance[row] = abs(float(found["distance"][row]))
            except ValueError:
                text = found["distance"][row]
                raise UserError(
                    f"{where}: the distance is {text!r}, which is not a number"
                ) from None
    if "split" in found:
        test = np.array([split == "test" for split in found["split"]])
    else:
        test = np.isin(np.array(found["chrom"]), test_contigs)
    if not test.any() or test.all():
        raise UserError(
            f"{path}: {'all' if test.all() else 'no'} rows are for testing: it needs a column "
            "split with train and test, or --eqtl.test_contigs the contigs to test on"
        )
    return Table(
        found["chrom"],
        position - (column == "pos"),
        found.get("ref"),
        found["alt"],
        label,
        found.get("tissue", [""] * rows),
        test,
        distance,
    )


def _whole(where: str, name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: {name} is {text!r}, which is not a whole number") from None
