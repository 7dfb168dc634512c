"""`caduceus-jax evaluate --suite masked`: how well hidden bases are known, and where."""

import json
import pathlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.bed import read_bed
from caduceus_jax.genomics.files.compressed import open_binary
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import names
from caduceus_jax.train.finetuning.config import MaskedConfig

if TYPE_CHECKING:
    from caduceus_jax.train.evaluation.evaluate import EvaluateConfig

EVERYWHERE, REPEATS, NO_REPEATS, NOWHERE = "all", "repeats", "no repeats", "not annotated"
_GFF = (".gff", ".gff3", ".gtf")
_MOST_N = 0.5  # share of a window; from there on it is left out
_BASES = np.frombuffer(b"ACGT", np.uint8)


class Regions(NamedTuple):
    """Annotated stretches, 0-based half-open."""

    contig: list[str]
    start: np.ndarray
    end: np.ndarray
    kind: list[str]


class Hidden(NamedTuple):
    """What is asked: windows, and which of their bases are hidden."""

    bases: np.ndarray  # (windows, length) upper case
    soft: np.ndarray  # (windows, length) bool, lower case in the genome
    contig: list[str]
    start: np.ndarray  # (windows,)
    positions: np.ndarray  # (windows, masks) indices in the window, -1 where there are fewer


def evaluate_masked(config: "EvaluateConfig") -> None:
    """Hides a share of the bases of evenly spread windows; writes masked.json and report.md.

    A base that several regions cover counts in each of their kinds. Repeats are the bases that the
    FASTA file has in lower case.

    Raises:
        UserError: no model or genome, or files that do not fit.
    """
    given = config.masked
    if not config.model or not given.genome:
        raise UserError("the suite masked needs --model and --masked.genome")
    genome = Genome(given.genome)
    regions = read_regions(pathlib.Path(given.annotation)) if given.annotation else None
    hidden = hide(genome, given)
    use_cores()
    model, tokenizer = inference.load(config.model)
    ids = _encode(hidden.bases, tokenizer)
    log_p = inference.masked_log_probabilities(
        model, ids, hidden.positions, tokenizer=tokenizer, show_progress=True
    )
    rows = tabulate(hidden, log_p, regions)
    folder = pathlib.Path(config.report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "masked.json").write_text(json.dumps(rows, indent=1))
    text = "\n".join(_lines(config, len(hidden.start), rows))
    (folder / "report.md").write_text(text + "\n")
    print(text)


def hide(genome: Genome, given: MaskedConfig) -> Hidden:
    """Windows, evenly spread over the contigs, and bases of them that are hidden.

    Raises:
        UserError: no such contig, or no window with enough known bases.
    """
    chosen = names(given.contigs) or genome.names
    numbers = genome.contigs(chosen)
    if unknown := [name for name, i in zip(chosen, numbers, strict=True) if i < 0]:
        raise UserError(f"{genome.path} has no contig {unknown[0]}; it has {genome.names[0]}, ...")
    places = [
        (name, number, start)
        for name, number in zip(chosen, numbers.tolist(), strict=True)
        for start in range(0, int(genome.lengths[number]) - given.length + 1, given.length)
    ]
    # More than are wanted, because some are N.
    order = np.random.default_rng(0).permutation(len(places))
    rows, soft, contigs, starts, positions = [], [], [], [], []
    most = round(given.length * given.mask_probability)
    for i in order.tolist():
        name, number, start = places[i]
        letters = genome.fetch(number, start, start + given.length, soft_mask=True)
        upper = np.where(letters >= ord("a"), letters - 32, letters)
        known = np.flatnonzero(np.isin(upper, _BASES))
        if len(known) <= (1 - _MOST_N) * given.length:
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
        if len(rows) == given.windows:
            break
    if not rows:
        raise UserError(
            f"{genome.path} has no window of {given.length:,} bases that is not mostly N"
        )
    return Hidden(np.stack(rows), np.stack(soft), contigs, np.array(starts), np.stack(positions))


def tabulate(
    hidden: Hidden, log_p: np.ndarray, regions: Regions | None
) -> dict[str, dict[str, float]]:
    """Scores by kind of region.

    Args:
        hidden: what was asked.
        log_p: (windows, masks, 4) natural logarithms for A, C, G, T.
        regions: annotation.

    Returns:
        By kind: `bases` hidden; `cross_entropy` in nats; `accuracy`; `order_0_entropy` of these
        bases, in nats, which a model that knows only their composition would reach.
    """
    window, mask = np.nonzero(hidden.positions >= 0)
    at = hidden.positions[window, mask]
    truth = np.searchsorted(_BASES, hidden.bases[window, at])
    nats = -log_p[window, mask, truth]
    right = log_p[window, mask].argmax(axis=1) == truth
    repeat = hidden.soft[window, at]
    kinds = {EVERYWHERE: np.ones(len(at), bool), REPEATS: repeat, NO_REPEATS: ~repeat}
    if regions is not None:
        kinds |= _annotated(hidden, window, at, regions)
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


def read_regions(path: pathlib.Path) -> Regions:
    """A BED file with kinds in its fourth column, or a GFF or GTF file with them in its third.

    Raises:
        UserError: a line that is no region.
    """
    if not path.name.removesuffix(".gz").endswith(_GFF):
        bed = read_bed(path)
        return Regions(bed.chrom, bed.start, bed.end, bed.name)
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
    return Regions(contig, np.array(start, np.int64), np.array(end, np.int64), kind)


def _annotated(
    hidden: Hidden, window: np.ndarray, at: np.ndarray, regions: Regions
) -> dict[str, np.ndarray]:
    """Which hidden bases lie in each kind of region."""
    place = hidden.start[window] + at
    contig = np.array(hidden.contig)[window]
    region_contig, region_kind = np.array(regions.contig), np.array(regions.kind)
    found = {}
    for kind in np.unique(region_kind):
        inside = np.zeros(len(at), bool)
        for name in set(hidden.contig):
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
    """Token ids; N is padding, as in pretraining."""
    ids = tokenizer.encode(bases.tobytes()).reshape(bases.shape)
    return np.where(ids == tokenizer.n_id, tokenizer.pad_id, ids)


def _lines(config: "EvaluateConfig", windows: int, rows: dict[str, dict[str, float]]) -> list[str]:
    given = config.masked
    lines = [
        f"{given.mask_probability:.0%} of the bases of {windows:,} windows of {given.length:,} of "
        f"{given.genome} hidden from {config.model}, natural logarithms:",
        "",
        "| where | hidden bases | cross-entropy | order-0 entropy | accuracy |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, row in rows.items():
        lines.append(
            f"| {kind} | {row['bases']:,} | {row['cross_entropy']:.4f} | "
            f"{row['order_0_entropy']:.4f} | {row['accuracy']:.4f} |"
        )
    return lines
