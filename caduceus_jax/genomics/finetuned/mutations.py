"""Every single-base change of regions, by what it changes in the outputs of a fine-tuned model."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.alleles import BASE_NUMBERS, BASES
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.options import Masking, VariantScoring, fitted
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.scoring.per_base import BaseChunk, PerBase
from caduceus_jax.genomics.scoring.variant_passes import Scorer
from caduceus_jax.genomics.scoring.variant_scores import ScoringWork
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.blocks import run_work
from caduceus_jax.inference.loading import Pretrained

Track = Literal["mean", "minimum"]

_LETTERS = np.array(list(BASES))


class Mutations:
    """The changes of regions' bases, with what each changes in a fine-tuned model's outputs.

    Args:
        bases: the regions.
        outputs: the model's outputs.

    Attributes:
        bases: the regions; in place of log-probabilities they hold the changes to A, C, G and T,
            (bases, 4 * columns): 0 for the genome's base, NaN where there is none.
        outputs: the model's outputs.
    """

    def __init__(self, bases: PerBase, outputs: Outputs):
        self.bases, self.outputs = bases, outputs
        shape = (bases.merged.bases, 4 * len(outputs.columns))
        bases.log_probabilities = np.full(shape, np.nan, np.float32)

    @property
    def values(self) -> Float[np.ndarray, "bases 4 columns"]:
        """Returns the changes, in the order of `bases.merged`."""
        return self.bases.log_probabilities.reshape(-1, 4, len(self.outputs.columns))

    def tables(self) -> Iterator[polars.DataFrame]:
        """Returns the table in parts: chrom, pos (from 1), ref, alt, status and the columns.

        There are three rows per base, and one without alt for an N and for a region that is not on
        the genome.
        """
        texts = dict.fromkeys(("ref", "alt", "status"), polars.String)
        schema = {"chrom": polars.String, "pos": polars.Int64, **texts}
        schema |= dict.fromkeys(self.outputs.columns, polars.Float32)
        return self.bases.tables(schema, self._table)

    def track_values(
        self, chunk: BaseChunk, column: str, track: Track
    ) -> Float[np.ndarray, " bases"]:
        """Finds out what a bigWig file has for each base of a chunk: NaN where there is none.

        Args:
            chunk: a chunk of `bases`.
            column: name of a column of the table.
            track: the "mean" of a base's three changes, or their "minimum".
        """
        four = self._values(chunk)[:, :, self.outputs.columns.index(column)].copy()
        four[np.arange(len(four)), chunk.base] = np.nan
        # Sorting puts the NaN of the genome's base last.
        three = np.sort(four, axis=1)[:, :3]
        return three.mean(axis=1) if track == "mean" else three[:, 0]

    def _values(self, chunk: BaseChunk) -> Float[np.ndarray, "bases 4 columns"]:
        shape = (len(chunk.base), 4, len(self.outputs.columns))
        if not (chunk.base >= 0).any():
            return np.full(shape, np.nan, np.float32)
        return chunk.log_probabilities.reshape(shape)

    def _table(self, chunk: BaseChunk, on_contig: bool) -> dict[str, Any]:
        known = chunk.base >= 0
        kept = np.arange(4) != chunk.base[:, None]
        kept[~known] = np.arange(4) == 0  # one row for a base that is not known
        base, alt = np.nonzero(kept)
        ref = np.where(known, _LETTERS[chunk.base], "N" if on_contig else "")[base].tolist()
        letters = np.where(known[base], _LETTERS[alt], "").tolist()
        return {
            "chrom": [chunk.chrom] * len(base),
            "pos": chunk.start + 1 + base,
            "ref": [letter or None for letter in ref],
            "alt": [letter or None for letter in letters],
            "status": chunk.status[base].tolist(),
            **dict(zip(self.outputs.columns, self._values(chunk)[kept].T, strict=True)),
        }


def mutations(
    m: Pretrained, genome: Genome, regions: Intervals, options: Masking, **run: Any
) -> Mutations:
    """Computes what every single-base change of regions does to a fine-tuned model's outputs.

    The changes are those of `score_variants`: the window with the changed base in its middle,
    compared with the same window of the genome.

    Args:
        m: a fine-tuned model with its tokenizer.
        genome: the genome that the regions lie on.
        regions: the regions; they may overlap.
        options: the verb's options.
        **run: the keyword arguments of `run_work`.

    Raises:
        UserError: an option that does not go with the model, or a context that reaches beyond its
            contig where edge is "error".
    """
    if options.masks_per_pass > 1:
        raise UserError("masks_per_pass is for language models: a fine-tuned model masks no base")
    _, options = fitted(m, None, options)
    found = Mutations(PerBase(regions, genome), Outputs.of(m))
    values, columns = found.values, found.outputs.columns
    base, sites = _sites(found.bases)
    how = VariantScoring(
        context_length=options.context, edge=options.edge, batch_size=options.batch_size
    )
    names = genome.names

    def describe(row: int) -> str:
        contig, start, ref, alt = sites.select("contig", "start", "ref", "alt").row(row)
        return f"{names[contig]}:{start + 1} {ref}>{alt}"

    scorer = Scorer(m.tokenizer, m.model.config.d_model, genome, how, describe, found.outputs)
    work = ScoringWork(scorer, m.model, sites, base, "output")
    alt = np.array([BASES.index(letter) for letter in sites["alt"]], np.int64)
    for part in run_work(m.model, work, what="scoring", unit="changes", **run):
        rows = slice(part.rows.start, part.rows.stop)
        numbers = part.frame.select(polars.col(columns).fill_null(np.nan))
        values[base[rows], alt[rows]] = numbers.to_numpy()
    # The genome's base changes nothing, where the others could be computed.
    known = np.asarray(~np.isnan(values).all(axis=(1, 2)))
    for _, _, first, there in _numbered(found.bases):
        here = np.flatnonzero(known[first : first + len(there)] & (there >= 0))
        values[first + here, there[here]] = 0
    work.report_padding()
    return found


def _numbered(bases: PerBase) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yields contig, first base, its number among the merged ones, and indices in ACGT."""
    genome, merged = bases.genome, bases.merged
    for contig, start, end, offset in zip(*merged, merged.offset, strict=True):
        contig, start, offset = int(contig), int(start), int(offset)
        yield contig, start, offset, BASE_NUMBERS[genome.bases(contig, start, int(end))]


def _sites(bases: PerBase) -> tuple[np.ndarray, polars.DataFrame]:
    """Returns the number of each change's base, and the changes as `locate` gives them."""
    number, contig, start, ref, alt = ([np.empty(0, np.int64)] for _ in range(5))
    for of_contig, first, offset, base in _numbered(bases):
        known = np.flatnonzero(base >= 0)
        which, others = np.nonzero(np.arange(4) != base[known][:, None])
        number.append(offset + known[which])
        contig.append(np.full(len(which), of_contig))
        start.append(first + known[which])
        ref.append(base[known[which]])
        alt.append(others)
    columns = [np.concatenate(parts) for parts in (number, contig, start, ref, alt)]
    letters = {name: _LETTERS[columns[i]].tolist() for name, i in (("ref", 3), ("alt", 4))}
    count = len(columns[0])
    sites = {
        "row": polars.Series(np.arange(count), dtype=polars.Int64),
        "status": polars.Series([Status.OK.value] * count, dtype=polars.String),
        "contig": polars.Series(columns[1], dtype=polars.Int64),
        "start": polars.Series(columns[2], dtype=polars.Int64),
        **{name: polars.Series(text, dtype=polars.String) for name, text in letters.items()},
    }
    return columns[0], polars.DataFrame(sites)
