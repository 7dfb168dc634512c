"""The forward passes that scores of variants are made of.

The changes of a block of variants become forward passes, each once however many variants need it,
and what the passes give becomes a table of scores. Every step makes a new table; none is changed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars
from jaxtyping import Float, Int
from polars import col

from caduceus_jax.genomics.files.alleles import BASES
from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.options import Mode, VariantScoring
from caduceus_jax.genomics.reference.genome import Genome, TokenWindows
from caduceus_jax.genomics.reference.haplotypes import Haplotypes, HaplotypeTokens, widen
from caduceus_jax.genomics.reference.locate import Windows, extra_left, middle, place
from caduceus_jax.genomics.status import Status
from caduceus_jax.inference.batches import TokenRows
from caduceus_jax.tokenizer import Tokenizer

_OK = col("status") == Status.OK.value
_INDEX = {base: i for i, base in enumerate(BASES)}


class Scorer(NamedTuple):
    """Holds what all scores need.

    Attributes:
        tokenizer: the tokenizer of the model.
        channels: number of channels of the mean embedding of both strands.
        genome: the genome that the variants lie on.
        options: the verb's options.
        describe: names a row of the variants, for errors.
        outputs: outputs of a fine-tuned model, where these are compared.
    """

    tokenizer: Tokenizer
    channels: int
    genome: Genome
    options: VariantScoring
    describe: Callable[[int], str]
    outputs: Outputs | None = None


class Passes(Protocol):
    """The forward passes of one block of variants.

    Attributes:
        tokens: (passes, context_length) token ids.
        extra: (passes, ...) the other argument of the forward pass.
        item: shape of the result of a pass.
        padded: windows that reach beyond their contigs, with N for what is there.
    """

    tokens: TokenRows
    extra: Any
    item: tuple[int, ...]
    padded: int

    def scores(self, values: np.ndarray) -> polars.DataFrame:
        """Computes the status and the scores of each row of the block."""
        ...


class MaskedRatio:
    """log p(ALT) - log p(REF) with all changed bases masked: one pass per set of masked bases.

    Args:
        scorer: the model and all else that scores need.
        sites: the changes of a block.
    """

    def __init__(self, scorer: Scorer, sites: polars.DataFrame):
        changes = sites.filter(_OK)
        masks = [
            [i for i, (a, b) in enumerate(zip(ref, alt, strict=True)) if a != b] or [0]
            for ref, alt in changes.select("ref", "alt").iter_rows()
        ]
        changes = changes.with_columns(
            masks=polars.Series([",".join(map(str, m)) for m in masks], dtype=polars.String)
        )
        key = ["contig", "start", "masks"]
        passes = changes.unique(key, keep="first", maintain_order=True).select("row", *key)
        windows = self._placed(scorer, passes)
        passes = passes.with_columns(
            window=polars.Series(windows.start, dtype=polars.Int64),
            status=polars.Series(windows.status.tolist(), dtype=polars.String),
        )
        run = passes.filter(_OK).with_row_index("pass")
        passes = passes.join(run.select(*key, "pass"), on=key, how="left", maintain_order="left")
        self._sites = sites
        self._changes = changes.drop("status").join(
            passes.drop("row"), on=key, how="left", maintain_order="left"
        )
        self.tokens = TokenWindows(
            scorer.genome,
            scorer.tokenizer,
            run["contig"].to_numpy(),
            run["window"].to_numpy(),
            scorer.options.context,
        )
        self.extra = _masks_of(run)
        self.item = (self.extra.shape[1], 4)
        self.padded = int(np.count_nonzero(windows.padding))

    @staticmethod
    def _placed(scorer: Scorer, passes: polars.DataFrame) -> Windows:
        """Returns windows with the masked bases in their middle."""
        genome, length = scorer.genome, scorer.options.context
        contig, start = (passes[name].to_numpy() for name in ("contig", "start"))
        masks = [list(map(int, text.split(","))) for text in passes["masks"]]
        span = np.array([m[-1] + 1 for m in masks], np.int64)
        masked = [(b"." * bases,) for bases in span.tolist()]
        for i in np.flatnonzero(span % 2 == 0).tolist():
            first = int(start[i])
            bases = genome.bases(int(contig[i]), first, first + int(span[i])).copy()
            bases[masks[i]] = ord(".")
            masked[i] = (bases.tobytes(),)
        left = extra_left(genome, contig, start, masked, length)
        windows = _windows(scorer, contig, start, span, left, genome.lengths[contig], passes["row"])
        status = windows.status.copy()
        status[span > length] = Status.TOO_LONG
        return windows._replace(status=status)

    def scores(self, values: Float[np.ndarray, "passes masks 4"]) -> polars.DataFrame:
        """Returns the status and llr of each row."""
        scored = self._changes.filter(_OK).select("row", "pass", "masks", "ref", "alt")
        llr = np.zeros(len(scored), np.float32)
        which = scored["pass"].to_numpy()
        at = [list(map(int, text.split(","))) for text in scored["masks"]]
        old = [_INDEX[r[o]] for r, os in zip(scored["ref"], at, strict=True) for o in os]
        new = [_INDEX[a[o]] for a, os in zip(scored["alt"], at, strict=True) for o in os]
        counts = np.array([len(offsets) for offsets in at], np.int64)
        row = np.repeat(np.arange(len(at)), counts)
        order = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = values[which[row], order]
        here = np.arange(len(row))
        np.add.at(llr, row, chosen[here, new] - chosen[here, old])
        found = scored.select("row").with_columns(llr=polars.Series(llr, dtype=polars.Float32))
        return joined_scores(self._sites, self._changes, found, ("llr",))


class Alleles:
    """The sequences that a score compares, those that several variants share only once.

    Args:
        scorer: the model and all else that scores need.
        sites: the changes of a block.

    Attributes:
        sites: the rows of the block, with the statuses that are known so far.
        changes: one row per change that can be scored: row, and the numbers of its sequences with
            REF and with ALT among those that are run.
        context: first base that the model sees of each sequence that is run.
        window: first base of the window around the allele.
        padded: windows that reach beyond their contigs.
    """

    def __init__(self, scorer: Scorer, sites: polars.DataFrame):
        options, genome = scorer.options, scorer.genome
        longest = polars.max_horizontal(col("ref").str.len_bytes(), col("alt").str.len_bytes())
        fits = sites.with_columns(
            status=polars.when(_OK & (longest > options.window))
            .then(polars.lit(Status.TOO_LONG.value))
            .otherwise("status")
        )
        changes = fits.filter(_OK)
        sequences = _with_alleles(scorer, changes)
        key = ["contig", "start", "end", "allele", "side", "left"]
        unique = sequences.unique(key, keep="first", maintain_order=True)
        haplotypes = Haplotypes(
            unique["contig"].to_numpy(),
            unique["start"].to_numpy(),
            unique["end"].to_numpy(),
            [allele.encode() for allele in unique["allele"]],
        )
        lengths, span = haplotypes.lengths(genome), haplotypes.span
        left = unique["left"].to_numpy()
        windows = _windows(
            scorer, haplotypes.contig, haplotypes.start, span, left, lengths, unique["row"]
        )
        around, _ = middle(haplotypes.start, span, options.window, left)
        unique = unique.drop("row").with_columns(
            status=polars.Series(windows.status.tolist(), dtype=polars.String),
            number=polars.Series(np.arange(len(unique)), dtype=polars.Int64),
        )
        pairs = sequences.join(unique, on=key, how="left", maintain_order="left").select(
            "row", "side", "status", "number"
        )
        ref, alt = (pairs.filter(col("side") == side).drop("side") for side in (0, 1))
        both = ref.join(alt, on="row", suffix="_alt", maintain_order="left")
        worse = polars.when(_OK).then("status_alt").otherwise("status").alias("status")
        both = both.select("row", worse, ref="number", alt="number_alt")
        # Sequences are run that a change needs which can be scored.
        scored = both.filter(_OK)
        used = np.unique(np.concatenate([scored["ref"].to_numpy(), scored["alt"].to_numpy()]))
        place_of = np.zeros(len(unique), np.int64)
        place_of[used] = np.arange(len(used))
        self.sites = _updated(fits, both)
        self.changes = scored.select(
            "row",
            ref=polars.Series(place_of[scored["ref"].to_numpy()], dtype=polars.Int64),
            alt=polars.Series(place_of[scored["alt"].to_numpy()], dtype=polars.Int64),
        )
        self.padded = int(np.count_nonzero(windows.padding))
        self.context, self.window = windows.start[used], around[used]
        self._scorer = scorer
        self._haplotypes = Haplotypes(
            haplotypes.contig[used],
            haplotypes.start[used],
            haplotypes.end[used],
            [haplotypes.allele[i] for i in used.tolist()],
        )

    def tokens(self, starts: np.ndarray, length: int) -> HaplotypeTokens:
        """Returns windows of the sequences, of the same length, as token ids."""
        genome, tokenizer = self._scorer.genome, self._scorer.tokenizer
        return HaplotypeTokens(genome, tokenizer, self._haplotypes, starts, length)


class PseudoRatio:
    """Pseudo-log-likelihood of the window with ALT minus that with REF: one pass per base.

    Args:
        scorer: the model and all else that scores need.
        sites: the changes of a block.
    """

    def __init__(self, scorer: Scorer, sites: polars.DataFrame):
        options, alleles = scorer.options, Alleles(scorer, sites)
        bases = alleles.tokens(alleles.window, options.window)[np.arange(len(alleles.window))]
        index = np.full(len(scorer.tokenizer.complement), -1, np.int64)
        index[list(scorer.tokenizer.base_ids)] = range(4)
        known = index[bases]
        position = (alleles.window - alleles.context)[:, None] + np.arange(options.window)
        # An unknown base has no probability.
        known[(position < 0) | (position >= options.context)] = -1
        self._sequence, at = np.nonzero(known >= 0)
        self._base = known[self._sequence, at]
        self._alleles, self.padded = alleles, alleles.padded
        tokens = alleles.tokens(alleles.context, options.context)
        self.tokens = _Repeated(tokens, self._sequence)
        self.extra = position[self._sequence, at][:, None]
        self.item = (1, 4)

    def scores(self, values: Float[np.ndarray, "passes 1 4"]) -> polars.DataFrame:
        """Returns the status and pllr of each row."""
        changes, count = self._alleles.changes, len(self._alleles.context)
        seen = values[np.arange(len(values)), 0, self._base]
        total = np.bincount(self._sequence, weights=seen, minlength=count)
        known = np.bincount(self._sequence, minlength=count)
        ref, alt = (changes[name].to_numpy() for name in ("ref", "alt"))
        # Sums over different numbers of bases are not comparable.
        comparable = known[ref] == known[alt]
        status = np.where(comparable, Status.OK.value, Status.AMBIGUOUS.value)
        found = changes.select("row").with_columns(
            status=polars.Series(status.tolist(), dtype=polars.String),
            pllr=polars.Series((total[alt] - total[ref]).astype(np.float32)),
        )
        scored = found.filter(_OK).select("row", "pllr")
        return joined_scores(self._alleles.sites, found.select("row", "status"), scored, ("pllr",))


class EmbeddingDistance:
    """Distances between the mean embeddings of the window with ALT and with REF.

    Args:
        scorer: the model and all else that scores need.
        sites: the changes of a block.
    """

    def __init__(self, scorer: Scorer, sites: polars.DataFrame):
        options, alleles = scorer.options, Alleles(scorer, sites)
        first = alleles.window - alleles.context
        spans = np.stack([first, first + options.window], axis=1)
        self._alleles, self.padded = alleles, alleles.padded
        self.tokens = alleles.tokens(alleles.context, options.context)
        self.extra = 2 * np.clip(spans, 0, options.context)
        self.item = (scorer.channels,)

    def scores(self, values: Float[np.ndarray, "passes channels"]) -> polars.DataFrame:
        """Returns the status, l2 and cosine of each row."""
        changes, vectors = self._alleles.changes, values.astype(np.float64)
        ref, alt = (vectors[changes[name].to_numpy()] for name in ("ref", "alt"))
        norms = np.linalg.norm(ref, axis=1) * np.linalg.norm(alt, axis=1)
        cosine = np.maximum(1 - (ref * alt).sum(axis=1) / np.maximum(norms, 1e-30), 0)
        scored = changes.select("row").with_columns(
            l2=polars.Series(np.linalg.norm(alt - ref, axis=1).astype(np.float32)),
            cosine=polars.Series(cosine.astype(np.float32)),
        )
        none = changes.select("row", status=polars.lit(Status.OK.value))
        return joined_scores(self._alleles.sites, none, scored, ("l2", "cosine"))


PASSES: dict[Mode, Callable[[Scorer, polars.DataFrame], Any]] = {
    "llr": MaskedRatio,
    "pll": PseudoRatio,
    "embedding": EmbeddingDistance,
}


def _masks_of(run: polars.DataFrame) -> Int[np.ndarray, "passes masks"]:
    """Returns masked positions within each window, -1 where it has fewer than others."""
    masks = [list(map(int, text.split(","))) for text in run["masks"]]
    # Few shapes: 1, 2, 4, 8 ... masks.
    width = 1 << (max(map(len, masks), default=1) - 1).bit_length()
    table = np.full((len(masks), width), -1, np.int64)
    first = (run["start"] - run["window"]).to_list()
    for i, offsets in enumerate(masks):
        table[i, : len(offsets)] = [first[i] + offset for offset in offsets]
    return table


def _with_alleles(scorer: Scorer, changes: polars.DataFrame) -> polars.DataFrame:
    """Makes two rows per change, with REF and with ALT, each over all of its repeat."""
    length = scorer.options.context
    widened = [
        widen(scorer.genome, contig, start, ref, alt, length)
        for contig, start, ref, alt in changes.select("contig", "start", "ref", "alt").iter_rows()
    ]
    contig = changes["contig"].to_numpy()
    start = np.array([w[0] for w in widened], np.int64)
    pairs: list[tuple[bytes, ...]] = [(ref.encode(), alt.encode()) for _, ref, alt in widened]
    # Fine-tuned models are trained on windows of an even length, too.
    even_too = scorer.outputs is not None
    left = extra_left(scorer.genome, contig, start, pairs, length, even_too=even_too)
    sides = [
        polars.DataFrame(
            {
                "row": changes["row"],
                "side": polars.Series([side] * len(widened), dtype=polars.Int64),
                "contig": changes["contig"],
                "start": polars.Series(start, dtype=polars.Int64),
                "end": polars.Series(start + [len(w[1]) for w in widened], dtype=polars.Int64),
                "allele": polars.Series([w[1 + side] for w in widened], dtype=polars.String),
                # It decides where a base is left over; elsewhere it is nothing.
                "left": polars.Series(
                    [
                        bool(m) or (length - len(pair[side])) % 2 == 0
                        for m, pair in zip(left, pairs, strict=True)
                    ],
                    dtype=polars.Boolean,
                ),
            }
        )
        for side in (0, 1)
    ]
    return polars.concat(sides)


def _windows(
    scorer: Scorer,
    contig: np.ndarray,
    start: np.ndarray,
    span: np.ndarray,
    left: np.ndarray,
    lengths: np.ndarray,
    row: polars.Series,
) -> Windows:
    """Returns windows of the context's length, with a stretch in their middle."""
    rows = row.to_numpy()
    return place(
        *middle(start, span, scorer.options.context, left),
        lengths,
        edge=scorer.options.edge,
        describe=lambda i: scorer.describe(int(rows[i])),
    )


def _updated(sites: polars.DataFrame, changes: polars.DataFrame) -> polars.DataFrame:
    """Returns the rows with the statuses of those changes that have one."""
    new = changes.select("row", new="status")
    joined = sites.join(new, on="row", how="left", maintain_order="left")
    return joined.with_columns(status=polars.coalesce("new", "status")).drop("new")


def joined_scores(
    sites: polars.DataFrame,
    changes: polars.DataFrame,
    scored: polars.DataFrame,
    names: tuple[str, ...],
) -> polars.DataFrame:
    """Returns one row per row of the block: row, status and scores, null unless it is ok."""
    rows = _updated(sites, changes).select("row", "status")
    joined = rows.join(scored, on="row", how="left", maintain_order="left")
    return joined.with_columns(col(name).fill_nan(None) for name in names)


class _Repeated:
    """Rows of token ids, some of them several times; `which` are their numbers."""

    def __init__(self, rows: TokenRows, which: np.ndarray):
        self.shape = (len(which), rows.shape[1])
        self._rows, self._which = rows, which

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._rows[self._which[rows]]
