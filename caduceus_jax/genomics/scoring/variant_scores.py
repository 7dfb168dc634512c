"""Three scores of a variant: masked and pseudo-log-likelihood ratio, and embedding distance."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from caduceus_jax import inference
from caduceus_jax.genomics.files.alleles import BASES
from caduceus_jax.genomics.reference.genome import Genome, TokenWindows
from caduceus_jax.genomics.reference.haplotypes import (
    Haplotypes,
    HaplotypeTokens,
    extra_left,
    middle,
    widen,
)
from caduceus_jax.genomics.reference.locate import Sites
from caduceus_jax.genomics.reference.windows import Edge, Windows, place
from caduceus_jax.genomics.scoring.journal import Journal
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.batches import Batch, TokenRows, plan, run
from caduceus_jax.inference.loading import checked_tokenizer
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.typing import TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# (numbers of rows, rows a batch) -> (place among these numbers, values) of each, in their order.
Forward = Callable[[np.ndarray, int], Iterable[tuple[int, np.ndarray]]]


class Scorer(NamedTuple):
    """What all scores need; see `score_variants` for the options."""

    model: CaduceusForMaskedLM
    tokenizer: Tokenizer
    genome: Genome
    context_length: int
    window: int
    edge: Edge
    batch_size: int | None
    journal: Journal | None
    show_progress: bool
    describe: Callable[[int], str]  # names a row of the variants


Columns = dict[str, Float[np.ndarray, " rows"]]


def masked_ratio(scorer: Scorer, sites: Sites, status: np.ndarray) -> Columns:
    """log p(ALT) - log p(REF) with all changed bases masked; sets `status` where there is none."""
    rows = np.flatnonzero(status == Status.OK)
    changed = [
        [i for i, (a, b) in enumerate(zip(sites.ref[r], sites.alt[r], strict=True)) if a != b]
        or [0]
        for r in rows.tolist()
    ]
    # A forward pass for each set of masked bases.
    keys = [
        (contig, start, *offsets)
        for contig, start, offsets in zip(
            sites.contig[rows].tolist(), sites.start[rows].tolist(), changed, strict=True
        )
    ]
    passes = sorted(set(keys), key=lambda key: (len(key), key))
    number = {key: i for i, key in enumerate(passes)}
    which = np.array([number[key] for key in keys], np.int64)
    first = np.zeros(len(passes), np.int64)
    first[which[::-1]] = rows[::-1]
    contig, start = (np.array([key[i] for key in passes], np.int64) for i in (0, 1))
    masks = [np.array(key[2:], np.int64) for key in passes]
    span = np.array([key[-1] + 1 for key in passes], np.int64)
    windows = _place_masks(scorer, contig, start, masks, span, first)
    results: list[np.ndarray | None] = [None] * len(passes)
    for chosen, width in _groups(windows, masks):
        table = np.full((len(chosen), width), -1, np.int64)
        for i, key in enumerate(chosen.tolist()):
            table[i, : len(masks[key])] = start[key] + masks[key] - windows.start[key]
        tokens = TokenWindows(
            scorer.genome,
            scorer.tokenizer,
            contig[chosen],
            windows.start[chosen],
            scorer.context_length,
        )
        values = _masked(scorer, tokens, table).reshape(-1, width, 4)
        for i, key in enumerate(chosen.tolist()):
            results[key] = values[i]
    status[rows] = windows.status[which]
    llr = np.full(len(status), np.nan, np.float32)
    for row, key, offsets in zip(rows.tolist(), which.tolist(), changed, strict=True):
        values = results[key]
        if values is not None:
            ref, alt = sites.ref[row], sites.alt[row]
            llr[row] = sum(
                values[i, BASES.index(alt[at])] - values[i, BASES.index(ref[at])]
                for i, at in enumerate(offsets)
            )
    return {"llr": llr}


def _place_masks(
    scorer: Scorer,
    contig: np.ndarray,
    start: np.ndarray,
    masks: list[np.ndarray],
    span: np.ndarray,
    first: np.ndarray,
) -> Windows:
    """Windows with the masked bases in their middle; `first` is a row of the variants for each."""
    hidden = [(b"." * bases,) for bases in span.tolist()]
    for i in np.flatnonzero(span % 2 == 0).tolist():
        bases = scorer.genome.bases(int(contig[i]), int(start[i]), int(start[i] + span[i])).copy()
        bases[masks[i]] = ord(".")
        hidden[i] = (bases.tobytes(),)
    left = extra_left(scorer.genome, contig, start, hidden, scorer.context_length)
    windows = _placed(scorer, contig, start, span, left, scorer.genome.lengths[contig], first)
    windows.status[span > scorer.context_length] = Status.TOO_LONG
    return windows


def _groups(windows: Windows, masks: list[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Passes that run together: those with up to 1, 2, 4, 8 ... masked bases."""
    widths = np.array([1 << (len(offsets) - 1).bit_length() for offsets in masks], np.int64)
    widths[windows.status != Status.OK] = 0
    for width in np.unique(widths[widths > 0]).tolist():
        yield np.flatnonzero(widths == width), width


def _placed(
    scorer: Scorer,
    contig: np.ndarray,
    start: np.ndarray,
    span: np.ndarray,
    left: np.ndarray,
    lengths: np.ndarray,
    row: np.ndarray,
) -> Windows:
    """Windows of the context's length; says how many are padded."""
    windows = place(
        *middle(start, span, scorer.context_length, left),
        lengths,
        edge=scorer.edge,
        describe=lambda i: scorer.describe(int(row[i])),
    )
    if padded := int(np.count_nonzero(windows.padding)):
        log.info(f"{padded:,} sequences are near the end of a contig: N stands for what is beyond")
    return windows


class Alleles(NamedTuple):
    """The sequences that a score compares, those that several variants share only once."""

    haplotypes: Haplotypes
    context: np.ndarray  # (sequences,) first base that the model sees of each
    window: np.ndarray  # (sequences,) first base of the window around the allele
    ref: Int[np.ndarray, " rows"]  # number of each variant's sequence with REF
    alt: Int[np.ndarray, " rows"]  # and with ALT


def _alleles(scorer: Scorer, sites: Sites, status: np.ndarray) -> tuple[np.ndarray, Alleles]:
    """The rows that can be scored, and their sequences; sets `status` of those that cannot."""
    genome, rows = scorer.genome, np.flatnonzero(status == Status.OK)
    fits = [max(len(sites.ref[r]), len(sites.alt[r])) <= scorer.window for r in rows.tolist()]
    status[rows[~np.array(fits, bool)]] = Status.TOO_LONG
    rows = rows[np.array(fits, bool)]
    contig = sites.contig[rows]
    widened = [
        widen(genome, c, s, sites.ref[r], sites.alt[r], scorer.context_length)
        for r, c, s in zip(rows.tolist(), contig.tolist(), sites.start[rows].tolist(), strict=True)
    ]
    start = np.array([w[0] for w in widened], np.int64)
    pairs = [(ref.encode(), alt.encode()) for _, ref, alt in widened]
    left = extra_left(genome, contig, start, list(pairs), scorer.context_length)
    keys = [
        [
            (c, s, s + len(pair[0]), pair[side], side, more or len(pair[side]) % 2 == 1)
            for c, s, pair, more in zip(
                contig.tolist(), start.tolist(), pairs, left.tolist(), strict=True
            )
        ]
        for side in (0, 1)
    ]
    sequences = sorted({*keys[0], *keys[1]})
    number = {key: i for i, key in enumerate(sequences)}
    ref, alt = (np.array([number[key] for key in side], np.int64) for side in keys)
    contigs, starts, ends = (np.array([key[i] for key in sequences], np.int64) for i in (0, 1, 2))
    haplotypes = Haplotypes(contigs, starts, ends, [key[3] for key in sequences])
    more = np.array([key[5] for key in sequences], bool)
    row = np.zeros(len(sequences), np.int64)
    row[alt], row[ref] = rows, rows
    lengths, span = haplotypes.lengths(genome), haplotypes.span
    windows = _placed(scorer, haplotypes.contig, haplotypes.start, span, more, lengths, row)
    worse = np.where(windows.status[ref] == Status.OK, windows.status[alt], windows.status[ref])
    status[rows], kept = worse, worse == Status.OK
    around, _ = middle(haplotypes.start, span, scorer.window, more)
    alleles = Alleles(haplotypes, windows.start, around, ref[kept], alt[kept])
    return rows[kept], alleles


def pseudo_ratio(scorer: Scorer, sites: Sites, status: np.ndarray) -> Columns:
    """Pseudo-log-likelihood of the window with ALT minus that with REF."""
    rows, alleles = _alleles(scorer, sites, status)
    used = np.unique(np.concatenate([alleles.ref, alleles.alt]))
    bases = _tokens(scorer, alleles, alleles.window, scorer.window)[used]
    index = np.full(len(scorer.tokenizer.complement), -1, np.int64)
    index[list(scorer.tokenizer.base_ids)] = range(4)
    index = index[bases]
    position = (alleles.window - alleles.context)[used, None] + np.arange(scorer.window)
    # An unknown base has no probability.
    index[(position < 0) | (position >= scorer.context_length)] = -1
    sequence, at = np.nonzero(index >= 0)
    tokens = _Repeated(
        _tokens(scorer, alleles, alleles.context, scorer.context_length), used[sequence]
    )
    positions = position[sequence, at][:, None]
    seen = _masked(scorer, tokens, positions, base=index[sequence, at])[:, 0]
    total, known = np.zeros((2, len(alleles.context)))
    total[used] = np.bincount(sequence, weights=seen, minlength=len(used))
    known[used] = np.bincount(sequence, minlength=len(used))
    # Sums over different numbers of bases compare nothing.
    comparable = known[alleles.ref] == known[alleles.alt]
    status[rows[~comparable]] = Status.AMBIGUOUS
    pllr = np.full(len(status), np.nan, np.float32)
    pllr[rows] = np.where(comparable, total[alleles.alt] - total[alleles.ref], np.nan)
    return {"pllr": pllr}


def embedding_distances(scorer: Scorer, sites: Sites, status: np.ndarray) -> Columns:
    """Distances between the mean embeddings of the window with ALT and with REF."""
    rows, alleles = _alleles(scorer, sites, status)
    used = np.unique(np.concatenate([alleles.ref, alleles.alt]))
    tokens = _tokens(scorer, alleles, alleles.context, scorer.context_length)
    first = (alleles.window - alleles.context)[used]
    spans = np.clip(np.stack([first, first + scorer.window], 1), 0, scorer.context_length)
    checked_tokenizer(scorer.model, scorer.tokenizer, both_strands=True)

    def forward(numbers: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
        def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
            chosen = numbers[batch.rows]
            return np.asarray(tokens[used[chosen]], np.int32), spans[chosen].astype(np.int32)

        batches = plan(np.full(len(numbers), scorer.context_length), size)
        return run(_mean_states, scorer.model, batches, inputs)

    vectors = np.zeros((len(alleles.context), scorer.model.config.d_model))
    vectors[used] = _computed(scorer, forward, len(used), scorer.model.config.d_model)
    ref, alt = vectors[alleles.ref], vectors[alleles.alt]
    norms = np.linalg.norm(ref, axis=1) * np.linalg.norm(alt, axis=1)
    columns = {name: np.full(len(status), np.nan, np.float32) for name in ("l2", "cosine")}
    columns["l2"][rows] = np.linalg.norm(alt - ref, axis=1)
    columns["cosine"][rows] = np.maximum(1 - (ref * alt).sum(axis=1) / np.maximum(norms, 1e-30), 0)
    return columns


def _mean_states(
    model: CaduceusForMaskedLM, ids: TokenIds, spans: Int[jax.Array, "batch 2"]
) -> Float[jax.Array, "batch d_model"]:
    hidden, _ = model.caduceus(ids, both_strands=True)
    states = hidden.astype(jnp.float32).mean(axis=1)
    at = jnp.arange(ids.shape[1])[None]
    inside = (at >= spans[:, :1]) & (at < spans[:, 1:])
    return jnp.mean(states, axis=1, where=inside[:, :, None])


def _tokens(scorer: Scorer, alleles: Alleles, starts: np.ndarray, length: int) -> HaplotypeTokens:
    return HaplotypeTokens(scorer.genome, scorer.tokenizer, alleles.haplotypes, starts, length)


class _Repeated:
    """Rows of token ids, some of them several times; `which` are their numbers."""

    def __init__(self, rows: TokenRows, which: np.ndarray):
        self.shape = (len(which), rows.shape[1])
        self._rows, self._which = rows, which

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._rows[self._which[rows]]


def _masked(
    scorer: Scorer, tokens: TokenRows, positions: np.ndarray, base: np.ndarray | None = None
) -> Float[np.ndarray, "rows values"]:
    """Log-probabilities at masked positions (rows, masks): of all bases, or of one of each row."""

    def forward(numbers: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
        results = inference.iterate_masked_log_probabilities(
            scorer.model,
            _Repeated(tokens, numbers),
            positions[numbers],
            tokenizer=scorer.tokenizer,
            batch_size=size,
        )
        for at, values in results:
            chosen = slice(None) if base is None else base[numbers[at]]
            yield at, values[:, chosen].reshape(-1)

    width = positions.shape[1] * (4 if base is None else 1)
    return _computed(scorer, forward, len(positions), width)


def _computed(
    scorer: Scorer, forward: Forward, rows: int, width: int
) -> Float[np.ndarray, "rows values"]:
    """The values (width,) of each row: those of the journal, and those still to be computed.

    Which rows share a batch depends on nothing but their number, so that a run that is continued
    computes the very same numbers: the journal holds whole batches, in their order.
    """
    values = np.full((rows, width), np.nan, np.float32)
    if not rows:
        return values
    lengths = np.full(rows, scorer.context_length, np.int64)
    size = plan(lengths, scorer.batch_size)[0].size
    done, journal = 0, scorer.journal
    while journal is not None and done < rows and (kept := journal.next()) is not None:
        kept = kept.reshape(-1, width)
        values[done : done + len(kept)] = kept
        done += len(kept)
    if done:
        log.info(f"{done:,} of {rows:,} sequences are in the journal")
    left = np.arange(done, rows)
    if not len(left):
        return values
    # A last batch that is not full repeats its rows, here as in an uninterrupted run.
    numbers = np.resize(left, max(len(left), size))
    results = forward(numbers, size)
    if scorer.show_progress:
        results = track(results, total=len(numbers), what="scoring", unit="sequences")
    begun = done
    for at, result in results:
        if at >= len(left):
            continue
        values[done] = result
        done += 1
        if journal is not None and (done - begun == size or done == rows):
            journal.append(values[begun:done])
            begun = done
    return values
