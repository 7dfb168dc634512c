"""What a model expects at each base of a region or a contig: `caduceus-jax likelihood`."""

import contextlib
import itertools
import pathlib
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.genomics.files.output import check_output, replacing
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
from caduceus_jax.genomics.scoring.per_base import BASES, EveryBase, Piece, entropy, information
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.tokenizer import Tokenizer

Track = Literal["logp", "entropy", "information"]


def likelihood(
    model: str,
    regions: str,
    genome: pathlib.Path,
    *,
    out: list[pathlib.Path],
    track: Literal["logp", "entropy", "information", "all"] = "logp",
    context_length: int = 1023,
    edge: Edge = "pad",
    together: int = 1,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """Masks each base of regions in turn and writes what the model expects there.

    A table has one row a base, region by region in the order given: chrom, pos (from 1), ref,
    status, logp_A, logp_C, logp_G, logp_T (natural logarithms of the probabilities given the
    sequence around the masked base, both strands), logp (that of ref) and entropy (in bits, of the
    four probabilities made to sum to 1: 0 where the model is certain, 2 where it knows nothing).
    The status is ok; ambiguous, where the genome has N; crosses_edge, with --edge drop; or
    unknown_chrom or out_of_range, in the one row of a region that is not on the genome. The other
    columns are empty then. A bigWig file has the value of one of the columns logp and entropy, or
    the information, 2 bits - entropy, for each base that has one, whatever the number of regions
    it is in.

    Contigs of any length: memory does not grow with them. 16 bytes a base are kept beside the
    first output while the command runs.

    examples:
      caduceus-jax likelihood runs/quickstart chr22:30,000,001-30,002,000 hg38.fa --out region.tsv
      caduceus-jax likelihood runs/quickstart genes.bed hg38.fa --out genes.parquet genes.bw
      caduceus-jax likelihood runs/quickstart all phage.fa --track all --out phage.bw

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        regions: BED file (from 0, the end not included); or a region as genome browsers write it,
            chr22:30,000,001-30,002,000 (from 1, the last base included), or a contig's name, or
            all: every contig.
        genome: FASTA, plain or bgzip; its index (.fai) is made where it is missing.
        out: files to write, one or more: .parquet, .tsv or .bw (bigWig). They appear when all are
            complete.
        track: what bigWig files hold: logp, entropy or information; all writes three files, and
            X.bw becomes X.logp.bw, X.entropy.bw and X.information.bw.
        context_length: bases the model sees, the masked one at 0-based index context_length // 2.
            Time grows in proportion. With an odd number the results do not depend on which strand
            the genome is written from.
        edge: what to do where the context reaches beyond the end of a contig: pad it with N, shift
            it inward, drop the base (status crosses_edge), or stop with an error.
        together: bases masked in one pass, spread over the middle half of the context. K together
            are about K times as fast, and an approximation. How far from exact: logp of a small
            human model (64 channels, 4 layers) moved by 0.011 on average, and by less than 0.06 at
            99 of 100 bases, with 8 together in 1,023; by 0.04 and 0.17 with 32.
        batch_size: windows in a forward pass; chosen for the device by default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although regions are not on the genome.

    Raises:
        UserError: an input cannot be used, or regions are not on the genome (then the outputs are
            written first).
    """
    outputs = check_outputs(out, TABLES | TRACKS, (regions, genome))
    tracks: tuple[Track, ...] = get_args(Track) if track == "all" else (track,)
    files: list[tuple[pathlib.Path, str, Track]] = [
        (_of_track(path, name) if ending in TRACKS and track == "all" else path, ending, name)
        for path, ending in outputs.items()
        for name in (tracks if ending in TRACKS else tracks[:1])
    ]
    for path, _, _ in files:
        check_output(path, TABLES | TRACKS)
    reference = Genome(genome)
    places = read_regions(regions, reference)
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
        folder=files[0][0].parent,
    )
    with contextlib.ExitStack() as whole:
        for path, ending, name in files:
            partial = whole.enter_context(replacing(path))
            if ending in TRACKS:
                write_track(partial, results, lambda piece, name=name: _value(piece, name))
            else:
                write_table(partial, ending, _frames(results))
    per_base.finish(results, [path for path, _, _ in files], skip_bad)


def probabilities(
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
    """A table of what a model expects at each base; see `likelihood`, whose table it is.

    Args:
        model: a masked language model.
        genome: where the regions lie.
        regions: see `regions.read_regions`.
        tokenizer: of the model; the original's by default.
        context_length: see `likelihood`.
        edge: see `likelihood`.
        together: see `likelihood`.
        batch_size: see `likelihood`.
        show_progress: say on standard error how far it is.

    Returns:
        polars.DataFrame with the columns chrom, pos (from 1), ref, status, logp_A, logp_C, logp_G,
        logp_T, logp (natural logarithms, float32) and entropy (bits, float32).

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


def of_reference(piece: Piece) -> Float[np.ndarray, " bases"]:
    """The log-probability of the genome's base; NaN where there is none."""
    return piece.log_probabilities[np.arange(len(piece.base)), piece.base]


def _value(piece: Piece, track: Track) -> Float[np.ndarray, " bases"]:
    if track == "logp":
        return of_reference(piece)
    bits = {"entropy": entropy, "information": information}
    return bits[track](piece.log_probabilities)


def _of_track(path: pathlib.Path, track: Track) -> pathlib.Path:
    return path.with_name(f"{path.name.removesuffix('.bw')}.{track}.bw")


def _frames(results: EveryBase) -> Any:
    """Tables of a piece each; the first is empty, so that there is one."""
    import polars

    letters = np.array([*BASES, "N"])
    numbers = [f"logp_{base}" for base in BASES] + ["logp", "entropy"]
    columns = {"chrom": polars.String, "pos": polars.Int64, "ref": polars.String}
    schema = columns | {"status": polars.String} | dict.fromkeys(numbers, polars.Float32)

    def frame(piece: Piece) -> Any:
        values = piece.log_probabilities
        on_contig = piece.contig >= 0 and piece.start < results.genome.lengths[piece.contig]
        return polars.DataFrame(
            {
                "chrom": [piece.chrom] * len(piece.base),
                "pos": piece.start + 1 + np.arange(len(piece.base)),
                "ref": letters[piece.base].tolist() if on_contig else [None],
                "status": piece.status.tolist(),
                **{f"logp_{base}": values[:, i] for i, base in enumerate(BASES)},
                "logp": of_reference(piece),
                "entropy": entropy(values),
            },
            schema=schema,
        ).with_columns(polars.col(numbers).fill_nan(None))

    return itertools.chain([polars.DataFrame(schema=schema)], map(frame, results.pieces()))
