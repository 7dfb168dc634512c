"""Expression of genes from the sequence around their starts, and from signals along it.

As in Seq2Exp (Su et al. 2025) and Schiff et al.'s follow-ups: one value a gene and cell line, for
example log10(CAGE + 1), from 200,000 bases around the transcription start site.
"""

import pathlib
from collections.abc import Sequence
from typing import overload

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bigwig import BigWig
from caduceus_jax.genomics.files.tables import Table, read_table
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.train.data.config import as_list
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.split_names import split_of


class GenomeWindows(Sequence[bytes]):
    """Windows of a genome, read when they are asked for; N outside the contig.

    Args:
        genome: the FASTA file.
        contig: (windows,) numbers of the contigs.
        start: (windows,) first base, 0-based; may be negative.
        length: bases of each.
    """

    def __init__(self, genome: Genome, contig: np.ndarray, start: np.ndarray, length: int):
        self.genome, self.contig, self.start, self.length = genome, contig, start, length

    def __len__(self) -> int:
        return len(self.start)

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        start = int(self.start[row])
        return self.genome.bases(int(self.contig[row]), start, start + self.length).tobytes()

    def take(self, rows: np.ndarray) -> "GenomeWindows":
        """Takes some of the windows."""
        return GenomeWindows(self.genome, self.contig[rows], self.start[rows], self.length)


class SignalWindows:
    """Signals in windows, read when they are asked for: log(1 + value) of every base.

    Args:
        files: one file per signal.
        contig: (windows,) names of the contigs.
        start: (windows,) first base, 0-based; may be negative. Outside the contig, and where a
            file has no value, the value is 0.
        length: bases of each.
    """

    def __init__(self, files: list[BigWig], contig: np.ndarray, start: np.ndarray, length: int):
        self.files, self.contig, self.start, self.length = files, contig, start, length

    def take(self, rows: np.ndarray) -> "SignalWindows":
        """Takes some of the windows."""
        return SignalWindows(self.files, self.contig[rows], self.start[rows], self.length)

    def read(self) -> np.ndarray:
        """Reads all windows, (windows, length, signals) float32."""
        found = np.zeros((len(self.start), self.length, len(self.files)), np.float32)
        for row, (contig, start) in enumerate(zip(self.contig, self.start.tolist(), strict=True)):
            for i, file in enumerate(self.files):
                end = min(start + self.length, file.lengths.get(str(contig), 0))
                first = max(start, 0)
                if first < end:
                    values = file.bins(str(contig), first, end, 1)
                    found[row, first - start : end - start, i] = np.log1p(np.maximum(values, 0))
        return found


def read_task(config: LabelledConfig) -> Task:
    """Reads the genes of `config.genes`.

    Raises:
        UserError: files that are missing or do not fit, or no gene of a split.
    """
    given = config.genes
    if not given.table or not given.genome:
        raise UserError("the task genes needs --data.genes.table and --data.genes.genome")
    path = pathlib.Path(given.table)
    table = read_table(path)
    frame = table.frame
    labels = config.label if isinstance(config.label, list) else [config.label]
    needed = [given.chrom, given.position, *labels]
    if missing := [name for name in needed if name not in frame.columns]:
        raise UserError(f"{path} has no column {missing[0]}; it has {', '.join(frame.columns)}")
    genome = Genome(given.genome)
    chrom = [str(name) for name in frame[given.chrom].to_list()]
    contig = genome.contigs(chrom)
    if (contig < 0).any():
        row = int((contig < 0).argmax())
        raise UserError(f"{table.where(row)}: {given.genome} has no contig {chrom[row]}")
    position = _numbers(table, given.position, frame[given.position].to_list())
    values = np.stack([_numbers(table, name, frame[name].to_list()) for name in labels], axis=1)
    # The site becomes the base in the middle.
    start = position.astype(np.int64) - (1 if given.one_based else 0) - given.length // 2
    examples = Examples(
        [f"{path.name}:{table.line(row)}" for row in range(len(frame))],
        GenomeWindows(genome, contig, start, given.length),
        values.astype(np.float32),
        _signals(as_list(given.signals), np.array(chrom), start, given.length),
    )
    parts = _split(path, frame, chrom, config)
    split = {part: examples.take(np.flatnonzero(parts == part)) for part in set(parts)}
    for part in ("train", "test"):
        if part not in split:
            raise UserError(f"{path} has no genes for {part}: see --data.genes.test_contigs")
    return Task(
        path.name.partition(".")[0],
        "regression",
        tuple(labels),
        "pearson",
        given.length,
        split["train"],
        split.get("validation"),
        split["test"],
        num_signals=len(as_list(given.signals)),
    )


def _signals(
    paths: list[str], contig: np.ndarray, start: np.ndarray, length: int
) -> SignalWindows | None:
    return SignalWindows([BigWig(p) for p in paths], contig, start, length) if paths else None


def _split(
    path: pathlib.Path, frame: object, chrom: list[str], config: LabelledConfig
) -> np.ndarray:
    """Returns the split of each gene: by a column split, or by its contig."""
    given = config.genes
    columns = getattr(frame, "columns", [])
    if "split" in columns:
        named = [str(name) for name in frame["split"].to_list()]  # pyright: ignore[reportIndexIssue]
        if unknown := {name for name in named if split_of(name) is None}:
            raise UserError(
                f"{path}: the column split has {sorted(unknown)[0]!r}; it has train, valid and test"
            )
        return np.array([split_of(name) for name in named])
    tested, validated = as_list(given.test_contigs), as_list(given.validation_contigs)
    return np.array(
        [
            "test" if name in tested else "validation" if name in validated else "train"
            for name in chrom
        ]
    )


def _numbers(table: Table, name: str, column: list[object]) -> np.ndarray:
    found = np.empty(len(column))
    for row, value in enumerate(column):
        try:
            found[row] = float(str(value))
        except ValueError:
            found[row] = np.nan
        if not np.isfinite(found[row]):
            raise UserError(f"{table.where(row)}: {name} is {value!r}, which is not a number")
    return found
