"""`caduceus-jax evaluate masked`: how well a model predicts masked bases, and where."""

import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.inputs import open_binary
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.data.config import as_list
from caduceus_jax.train.evaluation.config import MaskedEvaluation
from caduceus_jax.train.evaluation.report import Report, markdown, write_report

EVERYWHERE, REPEATS, NO_REPEATS, NOWHERE = "all", "repeats", "no repeats", "not annotated"
_GFF = (".gff", ".gff3", ".gtf")
_MOST_N = 0.5  # share of a window; from there on it is left out
_BASES = np.frombuffer(b"ACGT", np.uint8)


class Annotation(NamedTuple):
    """Annotated stretches, 0-based half-open."""

    contig: list[str]
    start: np.ndarray
    end: np.ndarray
    kind: list[str]


class MaskedWindows(NamedTuple):
    """Windows of a genome, and which of their bases are masked."""

    bases: np.ndarray  # (windows, length) upper case
    soft: np.ndarray  # (windows, length) bool, lower case in the genome
    contig: list[str]
    start: np.ndarray  # (windows,)
    positions: np.ndarray  # (windows, masks) indices in the window, -1 where there are fewer


def evaluate_masked(config: MaskedEvaluation) -> None:
    """Scores a model's predictions of masked bases by kind of region.

    A share of the bases of evenly spread windows is masked, the same ones every time. A base that
    several regions cover counts in each of their kinds. Repeats are the bases that the FASTA file
    has in lower case.

    examples:
      caduceus-jax evaluate masked runs/pretrain --genome hg38.fa --annotation genes.gtf --out out

    Args:
        config: the settings.

    Raises:
        UserError: no genome is named, or files do not fit together.
    """
    if not config.genome:
        raise UserError("genome is missing: name the FASTA file whose bases are masked")
    genome = Genome(config.genome)
    regions = read_regions(pathlib.Path(config.annotation)) if config.annotation else None
    masked = mask_windows(genome, config)
    use_cores()
    model, tokenizer = inference.load(config.model, dtype=jnp.dtype(config.dtype))
    ids = _encode(masked.bases, tokenizer)
    log_p = inference.masked_log_probabilities(
        model,
        ids,
        masked.positions,
        tokenizer=tokenizer,
        batch_size=config.batch_size,
        progress=True,
    )
    rows = tabulate(masked, log_p, regions)
    report = _report(config, len(masked.start), rows)
    paths = write_report(pathlib.Path(config.out), report, rows)
    print("\n".join(markdown(report)))
    print(f"written: {', '.join(map(str, paths))}")


def mask_windows(genome: Genome, config: MaskedEvaluation) -> MaskedWindows:
    """Chooses windows, evenly spread over the contigs, and the bases of them that are masked.

    Args:
        genome: the genome that the windows lie on.
        config: contigs, length and number of the windows, and the share that is masked.

    Raises:
        UserError: the contig does not exist, or no window has enough known bases.
    """
    chosen = as_list(config.contigs) or genome.names
    numbers = genome.contigs(chosen)
    if unknown := [name for name, i in zip(chosen, numbers, strict=True) if i < 0]:
        raise UserError(f"{genome.path} has no contig {unknown[0]}; it has {genome.names[0]}, ...")
    places = [
        (name, number, start)
        for name, number in zip(chosen, numbers.tolist(), strict=True)
        for start in range(
            0, int(genome.lengths[number]) - config.context_length + 1, config.context_length
        )
    ]
    # A permutation of all, because some windows are mostly N.
    order = np.random.default_rng(0).permutation(len(places))
    rows, soft, contigs, starts, positions = [], [], [], [], []
    most = round(config.context_length * config.mask_probability)
    for i in order.tolist():
        name, number, start = places[i]
        letters = genome.bases(number, start, start + config.context_length, soft_mask=True)
        upper = np.where(letters >= ord("a"), letters - 32, letters)
        known = np.flatnonzero(np.isin(upper, _BASES))
        if len(known) <= (1 - _MOST_N) * config.context_length:
            continue
        rng = np.random.default_rng((number, start))
        count = min(most, len(known))
        at = np.full(most, -1)
        at[:count] = np.sort(rng.choice(known, count, replace=False))
        rows.append(upper)
        soft.append(letters >= ord("a"))
        contigs.append(name)
        starts.append(start)
        positions.append(at)
        if len(rows) == config.windows:
            break
    if not rows:
        raise UserError(
            f"{genome.path} has no window of {config.context_length:,} bases that is not mostly N"
        )
    return MaskedWindows(
        np.stack(rows), np.stack(soft), contigs, np.array(starts), np.stack(positions)
    )


def tabulate(
    masked: MaskedWindows, log_p: np.ndarray, regions: Annotation | None
) -> dict[str, dict[str, float]]:
    """Scores predictions by kind of region.

    Args:
        masked: the windows and their masked bases.
        log_p: (windows, masks, 4) natural logarithms for A, C, G, T.
        regions: annotation.

    Returns:
        By kind: `bases`, the number that is masked; `cross_entropy` in nats; `accuracy`;
        `order_0_entropy` of these bases, in nats, which a model that knows only their composition
        would reach.
    """
    window, mask = np.nonzero(masked.positions >= 0)
    at = masked.positions[window, mask]
    truth = np.searchsorted(_BASES, masked.bases[window, at])
    nats = -log_p[window, mask, truth]
    right = log_p[window, mask].argmax(axis=1) == truth
    repeat = masked.soft[window, at]
    kinds = {EVERYWHERE: np.ones(len(at), bool), REPEATS: repeat, NO_REPEATS: ~repeat}
    if regions is not None:
        kinds |= _annotated(masked, window, at, regions)
    found = {}
    for kind, inside in kinds.items():
        if inside.any():
            share = np.bincount(truth[inside], minlength=4) / inside.sum()
            known = share[share > 0]
            found[kind] = {
                "bases": int(inside.sum()),
                "cross_entropy": float(nats[inside].mean()),
                "accuracy": float(right[inside].mean()),
                "order_0_entropy": float(-(known * np.log(known)).sum()),
            }
    return found


def read_regions(path: pathlib.Path) -> Annotation:
    """Reads annotated regions: BED with kinds in the fourth column, or GFF or GTF in the third.

    Args:
        path: the file; .gz is unpacked as it is read.

    Raises:
        UserError: a line is not a region.
    """
    if not path.name.removesuffix(".gz").endswith(_GFF):
        bed = read_bed(path)
        return Annotation(bed.chrom, bed.start, bed.end, bed.name)
    contig, start, end, kind = [], [], [], []
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if line.startswith(b"##FASTA"):
                break
            if line.startswith(b"#") or not line.strip():
                continue
            fields = line.decode(errors="replace").split("\t")
            if len(fields) < 8 or not (fields[3].isdecimal() and fields[4].isdecimal()):
                raise UserError(
                    f"{path}:{number}: not a GFF line: it has 9 columns, separated by tabs, the "
                    "fourth and fifth of which are positions"
                )
            contig.append(fields[0])
            kind.append(fields[2])
            start.append(int(fields[3]) - 1)
            end.append(int(fields[4]))
    return Annotation(contig, np.array(start, np.int64), np.array(end, np.int64), kind)


def _annotated(
    masked: MaskedWindows, window: np.ndarray, at: np.ndarray, regions: Annotation
) -> dict[str, np.ndarray]:
    """Finds which masked bases lie in each kind of region."""
    place = masked.start[window] + at
    contig = np.array(masked.contig)[window]
    region_contig, region_kind = np.array(regions.contig), np.array(regions.kind)
    found = {}
    for kind in np.unique(region_kind):
        inside = np.zeros(len(at), bool)
        for name in set(masked.contig):
            chosen = (region_kind == kind) & (region_contig == name)
            here = np.flatnonzero(contig == name)
            # A base is covered where more regions have begun than have ended.
            begun = np.searchsorted(np.sort(regions.start[chosen]), place[here], side="right")
            ended = np.searchsorted(np.sort(regions.end[chosen]), place[here], side="right")
            inside[here] = begun > ended
        found[str(kind)] = inside
    found[NOWHERE] = ~np.any(list(found.values()), axis=0)
    return found


def _encode(bases: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Encodes bases as token ids; N becomes padding, as in pretraining."""
    ids = tokenizer.encode(bases.tobytes()).reshape(bases.shape)
    return np.where(ids == tokenizer.n_id, tokenizer.pad_id, ids)


def _report(config: MaskedEvaluation, windows: int, rows: dict[str, dict[str, float]]) -> Report:
    facts = (
        f"{config.mask_probability:.0%} of the bases of {windows:,} windows of "
        f"{config.context_length:,} bases of {config.genome} are masked; the model is "
        f"{config.model}. Cross-entropies are in nats per base."
    )
    header = ["where", "masked bases", "cross-entropy", "order-0 entropy", "accuracy"]
    cells = [
        [
            kind,
            f"{row['bases']:,}",
            *(f"{row[name]:.4f}" for name in ("cross_entropy", "order_0_entropy", "accuracy")),
        ]
        for kind, row in rows.items()
    ]
    return Report("Masked bases by region", facts, [header, *cells])
