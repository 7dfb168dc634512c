"""In-silico saturation mutagenesis: `caduceus-jax mutagenesis`."""

import contextlib
import itertools
import pathlib
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics import plots
from caduceus_jax.genomics.files.output import replacing
from caduceus_jax.genomics.interval import Intervals
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.regions import read_regions
from caduceus_jax.genomics.reference.windows import Edge
from caduceus_jax.genomics.scoring import per_base
from caduceus_jax.genomics.scoring.base_files import (
    TABLES,
    TRACKS,
    check_outputs,
    write_table,
    write_track,
)
from caduceus_jax.genomics.scoring.per_base import BASES, EveryBase, Piece
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.tokenizer import Tokenizer

_PICTURES: dict[str, str | None] = dict.fromkeys((".png", ".svg", ".pdf"), "matplotlib")


def mutagenesis(
    model: str,
    region: str,
    genome: pathlib.Path,
    *,
    out: list[pathlib.Path],
    track: Literal["mean", "minimum"] = "mean",
    strand: Literal["+", "-"] = "+",
    context_length: int = 1023,
    edge: Edge = "pad",
    together: int = 1,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """Scores every single-base change of a region: in-silico saturation mutagenesis.

    The score is that of score-variants: log p(alt) - log p(ref) where the base is masked, given
    the sequence around it, on both strands. Negative scores mean that the change is less expected
    there than the genome's base.

    One computation writes any of these:
    a table (.parquet, .tsv), three rows a base: chrom, pos (from 1), ref, alt, status, llr. An N
    of the genome has one row without alt, with the status ambiguous;
    a track (.bw, bigWig), one value a base: the mean of its three scores, or the minimum;
    a picture (.png, .svg, .pdf) of one region of at most 1,000 bases: a heat map of all changes
    under a logo of what the model expects, with positions from 1.

    examples:
      caduceus-jax mutagenesis runs/quickstart chr22:19,710,790-19,711,174 hg19.fa \\
          --out gp1bb.parquet gp1bb.bw gp1bb.png
      caduceus-jax mutagenesis runs/quickstart promoter_7 promoters.fa --out promoter_7.svg
      caduceus-jax mutagenesis runs/quickstart exons.bed hg38.fa --out exons.parquet

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        region: a region as genome browsers write it, chr22:30,000,001-30,002,000 (from 1, the last
            base included); the name of a contig, or of a sequence in a FASTA file; all: every one
            of them; or a BED file (from 0, the end not included).
        genome: FASTA, plain or bgzip; its index (.fai) is made where it is missing.
        out: files to write, one or more. They appear when all are complete.
        track: what a bigWig file holds: the mean of the three scores of a base, whose negative is
            how much the genome's base is preferred, or the minimum, its most harmful change.
        strand: draw the picture as this strand is read, from its 5' end. Tables and tracks are of
            the + strand.
        context_length: bases the model sees, the masked one at 0-based index context_length // 2.
            Time grows in proportion. With an odd number the scores do not depend on which strand
            the genome is written from.
        edge: what to do where the context reaches beyond the end of a contig: pad it with N, shift
            it inward, drop the base (status crosses_edge), or stop with an error.
        together: bases masked in one pass, spread over the middle half of the context. K together
            are about K times as fast, and an approximation. How far from exact: scores of a small
            human model (64 channels, 4 layers) moved by 0.02 on average (their standard deviation
            is 0.97; correlation 0.9996) with 8 together in 1,023; by 0.07 (0.995) with 32.
        batch_size: windows in a forward pass; chosen for the device by default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although regions are not on the genome.

    Raises:
        UserError: an input cannot be used, a picture would show several regions or too long a one,
            or regions are not on the genome (then the outputs are written first).
    """
    outputs = check_outputs(out, TABLES | TRACKS | _PICTURES, (region, genome))
    reference = Genome(genome)
    places = read_regions(region, reference)
    if any(ending in _PICTURES for ending in outputs.values()):
        _check_drawable(places, reference)
    use_cores()
    network, tokenizer = inference.load(model, dtype=dtype)
    results = per_base.run(
        network,
        reference,
        places,
        tokenizer=tokenizer,
        context_length=context_length,
        edge=edge,
        together=together,
        batch_size=batch_size,
        show_progress=True,
        folder=next(iter(outputs)).parent,
    )
    with contextlib.ExitStack() as whole:
        for path, ending in outputs.items():
            partial = whole.enter_context(replacing(path))
            if ending in TRACKS:
                write_track(partial, results, lambda piece: _value(piece, track))
            elif ending in TABLES:
                write_table(partial, ending, _frames(results))
            else:
                import polars

                figure = plots.draw_mutagenesis(
                    polars.concat(_frames(results)), strand=strand, model=_short(model)
                )
                figure.savefig(partial, format=ending[1:])
    per_base.finish(results, list(outputs), skip_bad)


def scores(
    model: CaduceusForMaskedLM,
    genome: Genome,
    regions: str | pathlib.Path | Intervals,
    *,
    tokenizer: Tokenizer | None = None,
    context_length: int = 1023,
    edge: Edge = "pad",
    together: int = 1,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Any:
    """The scores of every single-base change of regions; see `mutagenesis`, whose table it is.

    Args:
        model: a masked language model.
        genome: where the regions lie; any FASTA file.
        regions: see `regions.read_regions`.
        tokenizer: of the model; the original's by default.
        context_length: see `mutagenesis`.
        edge: see `mutagenesis`.
        together: see `mutagenesis`.
        batch_size: see `mutagenesis`.
        show_progress: say on standard error how far it is.

    Returns:
        polars.DataFrame with the columns chrom, pos (from 1), ref, alt, status and llr (natural
        logarithm, float32): three rows a base in the order A, C, G, T.

    Raises:
        UserError: see `regions.read_regions` and `per_base.run`.
    """
    import polars

    results = per_base.run(
        model,
        genome,
        read_regions(regions, genome),
        tokenizer=tokenizer,
        context_length=context_length,
        edge=edge,
        together=together,
        batch_size=batch_size,
        show_progress=show_progress,
    )
    return polars.concat(_frames(results))


def _check_drawable(regions: Intervals, genome: Genome) -> None:
    if len(regions.start) != 1:
        raise UserError(
            f"a picture shows one region, and there are {len(regions.start):,}: name one, like "
            "chr22:30,000,001-30,002,000"
        )
    end = min(int(regions.end[0]), int(genome.lengths[genome.contigs(regions.chrom)[0]]))
    plots.check_length(end - int(regions.start[0]))


def _short(model: str) -> str:
    """What a picture calls a model: a hub id as it is, of a path the last two names."""
    return "/".join(pathlib.Path(model).parts[-2:]).lstrip("/")


def _ratios(piece: Piece) -> Float[np.ndarray, "bases 4"]:
    """Scores of A, C, G and T; NaN for the genome's base and where there is none."""
    rows = np.arange(len(piece.base))
    ratios = piece.log_probabilities - piece.log_probabilities[rows, piece.base][:, None]
    ratios[rows, piece.base] = np.nan
    return ratios


def _value(piece: Piece, track: Literal["mean", "minimum"]) -> Float[np.ndarray, " bases"]:
    # An order of the other three bases: theirs are numbers wherever there is a score at all.
    three = np.sort(_ratios(piece), axis=1)[:, :3]
    return three.mean(axis=1) if track == "mean" else three[:, 0]


def _frames(results: EveryBase) -> Any:
    """Tables of a piece each; the first is empty, so that there is one."""
    import polars

    letters = np.array(list(BASES))
    texts = dict.fromkeys(("ref", "alt", "status"), polars.String)
    schema = {"chrom": polars.String, "pos": polars.Int64, **texts, "llr": polars.Float32}

    def frame(piece: Piece) -> Any:
        known, on_contig = piece.base >= 0, piece.contig >= 0
        on_contig = on_contig and piece.start < results.genome.lengths[piece.contig]
        # One row for a base that is not known: its first.
        kept = np.arange(4) != piece.base[:, None]
        kept[~known] = np.arange(4) == 0
        base, alt = np.nonzero(kept)
        ref = np.where(known, letters[piece.base], "N" if on_contig else "")[base]
        return polars.DataFrame(
            {
                "chrom": [piece.chrom] * len(base),
                "pos": piece.start + 1 + base,
                "ref": [letter or None for letter in ref.tolist()],
                "alt": [
                    letter if known[row] else None
                    for row, letter in zip(base, letters[alt].tolist(), strict=True)
                ],
                "status": piece.status[base].tolist(),
                "llr": _ratios(piece)[kept],
            },
            schema=schema,
        ).with_columns(polars.col("llr").fill_nan(None))

    return itertools.chain([polars.DataFrame(schema=schema)], map(frame, results.pieces()))
