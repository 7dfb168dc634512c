"""Files of attributions: tables, bigWig tracks, arrays for TF-MoDISco and pictures."""

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.genomics.files.output import check_output, replacing
from caduceus_jax.genomics.files.table_files import TABLES, table_writer
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.sequences import Sequences
from caduceus_jax.genomics.scoring.attributions import Attributed
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import Part

PICTURES: dict[str, str | None] = dict.fromkeys((".png", ".svg", ".pdf"), "matplotlib")
FORMATS: dict[str, str | None] = {**TABLES, ".bw": "pyBigWig", ".npz": None, **PICTURES}
Draw = Callable[[polars.DataFrame, pathlib.Path, str], None]
Table = Callable[[range, list[Attributed]], polars.DataFrame]


def one_hot_path(path: pathlib.Path) -> pathlib.Path:
    """Returns the file of one-hot sequences that goes with a .npz of contributions."""
    return path.with_name(f"{path.name.removesuffix('.npz')}.one_hot.npz")


def check_attribution_files(
    outputs: Mapping[pathlib.Path, str], sequences: Sequences, genome: Genome | None, most: int
) -> None:
    """Finds out before the work that the outputs can hold the attributions.

    Args:
        outputs: files and their endings.
        sequences: the sequences to attribute.
        genome: the genome that they lie on.
        most: bases that a picture shows.

    Raises:
        UserError: sequences of different lengths for a .npz, a track without a genome, or a picture
            of several sequences or of too many bases.
    """
    lengths = sequences.lengths[sequences.status == Status.OK]
    for path, ending in outputs.items():
        if ending == ".npz":
            check_output(one_hot_path(path), FORMATS)
            if len(different := np.unique(lengths)) > 1:
                raise UserError(
                    f"{path} holds sequences of one length, and there are sequences of "
                    f"{different[0]:,} and of {different[-1]:,} bases: pass `context_length`, or "
                    "write a table"
                )
        if ending == ".bw" and genome is None:
            raise UserError(f"{path} is a track on a genome: pass `genome`, or write a table")
        if ending in PICTURES and (len(sequences.lengths) != 1 or not len(lengths)):
            raise UserError(
                f"a picture shows one sequence, and there are {len(sequences.lengths):,}: name a "
                "region, like chr22:30,000,001-30,000,200"
            )
        if ending in PICTURES and lengths[0] > most:
            raise UserError(
                f"a picture shows at most {most:,} bases, and the sequence has {lengths[0]:,}: "
                "draw a part of it, or write a table or a track"
            )


def write_attributions(
    outputs: Mapping[pathlib.Path, str],
    parts: Iterable[Part[list[Attributed]]],
    sequences: Sequences,
    genome: Genome | None,
    *,
    table: Table,
    draw: Draw,
) -> None:
    """Writes attributions into all outputs: tables as they come, the others at the end.

    Args:
        outputs: files and their endings.
        parts: parts of the attributions, in order.
        sequences: all of them.
        genome: the genome that they lie on.
        table: makes the table of some rows.
        draw: draws a table into a file of a kind of picture.

    Raises:
        UserError: a file cannot be written; the outputs that were there before are as they were.
    """
    kept: list[Attributed] = []
    keep = any(ending not in TABLES for ending in outputs.values())
    with contextlib.ExitStack() as whole, contextlib.ExitStack() as tables:
        partial = {path: whole.enter_context(replacing(path)) for path in outputs}
        writers = [
            tables.enter_context(table_writer(partial[path], ending))
            for path, ending in outputs.items()
            if ending in TABLES
        ]
        for write in writers:
            write(table(range(0), []))
        for part in parts:
            frame = table(part.rows, part.frame)
            for write in writers:
                write(frame)
            kept += part.frame if keep else []
        tables.close()
        for path, ending in outputs.items():
            if ending == ".npz":
                one_hot = whole.enter_context(replacing(one_hot_path(path)))
                _write_arrays(partial[path], one_hot, kept)
            elif ending == ".bw":
                assert genome is not None
                contigs = zip(genome.names, genome.lengths.tolist(), strict=True)
                write_bigwig(partial[path], contigs, _track(kept, sequences, genome, table))
            elif ending in PICTURES:
                draw(table(range(1), kept), partial[path], ending)


def _write_arrays(path: pathlib.Path, one_hot: pathlib.Path, kept: list[Attributed]) -> None:
    """Writes contributions and sequences, (sequences, 4, bases) each, as TF-MoDISco reads them."""
    bases = len(kept[0].base) if kept else 0
    contributions = np.zeros((len(kept), 4, bases), np.float32)
    there = np.zeros((len(kept), 4, bases), np.int8)
    for i, one in enumerate(kept):
        contributions[i] = np.nan_to_num(one.contributions).T
        there[i] = one.base == np.arange(4)[:, None]
    for file, array in ((path, contributions), (one_hot, there)):
        with file.open("wb") as opened:
            np.savez_compressed(opened, array)


def _track(
    kept: list[Attributed], sequences: Sequences, genome: Genome, table: Table
) -> Iterator[tuple[str, int, Float[np.ndarray, " bases"]]]:
    """Yields the attribution of each base, the mean where several sequences have it."""
    contigs = genome.contigs(sequences.frame["chrom"].to_list())
    for contig in np.unique(contigs[contigs >= 0]).tolist():
        ones = [one for one in kept if contigs[one.row] == contig]
        columns = ("pos", "attribution")
        frames = [table(range(one.row, one.row + 1), [one]).select(columns) for one in ones]
        if not frames:
            continue
        mean = polars.concat(frames).drop_nulls().group_by("pos").mean().sort("pos")
        position, values = mean["pos"].to_numpy() - 1, mean["attribution"].to_numpy()
        begins = np.flatnonzero(np.diff(position, prepend=-2) != 1).tolist()
        for first, last in zip(begins, [*begins[1:], len(position)], strict=True):
            yield genome.names[contig], int(position[first]), values[first:last]
