"""Scores of single-base variants: `caduceus-jax score-variants`."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.genome import Genome, TokenWindows
from caduceus_jax.genomics.output import check_output, finish, replacing
from caduceus_jax.genomics.vcf import Variants, read_vcf, single_base_change, write_vcf
from caduceus_jax.genomics.windows import Edge, Status, centred, place
from caduceus_jax.model import CaduceusForMaskedLM
from caduceus_jax.progress import notice
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.version import __version__

_BASES = "ACGT"
_FORMATS = {".vcf": None, ".vcf.gz": "pysam", ".parquet": "polars"}
_DECLARATIONS = {
    "CADUCEUS_LLR": "Number=A,Type=Float,Description="
    '"log p(ALT) - log p(REF) at the masked position, natural logarithm, both strands averaged"',
    "CADUCEUS_STATUS": "Number=.,Type=String,Description="
    '"For each ALT: ok if it is scored, otherwise why not"',
}
# Sites looked at to find out what is wrong with positions, and the share that must agree.
_SITES_TRIED, _AGREEMENT = 1_000, 0.9


class Sites(NamedTuple):
    """Where variants lie on a genome: one row a variant."""

    status: np.ndarray  # (rows,) of `Status`; OK where the variant can be scored
    contig: Int[np.ndarray, " rows"]  # number in the genome, -1 if unknown
    position: Int[np.ndarray, " rows"]  # of the changed base, 0-based
    ref: Int[np.ndarray, " rows"]  # index in ACGT, -1 unless it is one base
    alt: Int[np.ndarray, " rows"]  # likewise


class Scores(NamedTuple):
    """One row a variant."""

    status: np.ndarray  # (rows,) of `Status`
    llr: Float[np.ndarray, " rows"]  # float32, NaN unless the status is OK


def score_variants(
    model: str,
    variants: pathlib.Path,
    genome: pathlib.Path,
    *,
    out: pathlib.Path,
    context_length: int = 1023,
    edge: Edge = "pad",
    max_ref_mismatch: float = 0.01,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    skip_bad: bool = False,
) -> None:
    """Scores the single-base variants of a VCF with a model.

    The score is a log-likelihood ratio, log p(ALT) - log p(REF): the variant's position is masked,
    and the model is asked for both bases given the sequence around it, on both strands. Negative
    scores mean that ALT is less expected there than REF. No base under the mask is seen, so that
    one forward pass serves all ALTs of a position.

    Every record comes out, in its place, with a status for each ALT: ok, or why it has no score
    (indel, mnv, symbolic, spanning_deletion, missing_alt, ambiguous, ref_mismatch, unknown_chrom,
    out_of_range, crosses_edge). A VCF gets the INFO fields CADUCEUS_LLR and CADUCEUS_STATUS; a
    parquet file has the columns chrom, pos (from 1), ref, alt, status, llr, one row an ALT.

    example:
      caduceus-jax score-variants runs/quickstart calls.vcf.gz hg38.fa --out scored.vcf.gz

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        variants: VCF (plain, gzip or bgzip) or BCF.
        genome: the reference the variants were called on: FASTA, plain or bgzip; its index (.fai)
            is made where it is missing.
        out: file to write: .vcf, .vcf.gz or .parquet. It appears when it is complete.
        context_length: bases the model sees, the variant at 0-based index context_length // 2.
            Time grows in proportion. With an odd number the variant is in the very middle, and its
            score does not depend on which strand the genome is written from.
        edge: what to do where the context reaches beyond the end of a contig: pad it with N, shift
            it inward, drop the variant (status crosses_edge), or stop with an error.
        max_ref_mismatch: share of single-base records whose REF may differ from the genome before
            the command stops, because the genome is likely the wrong one. Below it they get the
            status ref_mismatch.
        batch_size: positions in a forward pass; chosen for the device by default.
        dtype: of matrix products and activations.
        skip_bad: exit with status 0 although variants are not on the genome (unknown_chrom,
            out_of_range).

    Raises:
        UserError: an input cannot be used, REF differs too often, or variants are not on the
            genome (then the output is written first).
    """
    variants, genome, out = map(pathlib.Path, (variants, genome, out))
    ending = check_output(out, _FORMATS)
    if out.resolve() == variants.resolve():
        raise UserError(f"{out} is the input: choose another name for the output")
    use_cores()
    network, tokenizer = inference.load(model, dtype=dtype)
    table, reference = read_vcf(variants), Genome(genome)
    scores = score(
        network,
        table,
        reference,
        tokenizer=tokenizer,
        context_length=context_length,
        edge=edge,
        max_ref_mismatch=max_ref_mismatch,
        batch_size=batch_size,
        show_progress=True,
        source=str(variants),
    )
    with replacing(out) as partial:
        if ending == ".parquet":
            _write_parquet(partial, table, scores)
        else:
            write_vcf(
                variants,
                partial,
                _DECLARATIONS,
                _fields(table, scores),
                provenance=f'##caduceus_jax=<Version="{__version__}",Model="{model}",'
                f'Genome="{genome}",ContextLength={context_length}>',
                compress=ending == ".vcf.gz",
            )
    names = [f"{c}:{p + 1}" for c, p in zip(table.chrom, table.position, strict=True)]
    finish("variants", names, scores.status, out, genome, skip_bad)


def score(
    model: CaduceusForMaskedLM,
    variants: Variants,
    genome: Genome,
    *,
    tokenizer: Tokenizer | None = None,
    context_length: int = 1023,
    edge: Edge = "pad",
    max_ref_mismatch: float = 0.01,
    batch_size: int | None = None,
    show_progress: bool = False,
    source: str = "variants",
) -> Scores:
    """Scores variants by the masked log-likelihood ratio; see `score_variants`.

    Args:
        model: a masked language model.
        variants: for example from `vcf.read_vcf`.
        genome: the reference they were called on.
        tokenizer: of the model; the original's by default.
        context_length: see `score_variants`.
        edge: see `score_variants`.
        max_ref_mismatch: see `score_variants`.
        batch_size: see `score_variants`.
        show_progress: say on standard error how far it is.
        source: what error messages call the variants.

    Returns:
        Status and score of each row of `variants`.

    Raises:
        UserError: REF differs from the genome too often, or an option is out of range.
    """
    if context_length < 1:
        raise UserError(f"context_length is {context_length}; it must be at least 1")
    tokenizer = tokenizer or Tokenizer()

    def describe(row: int) -> str:
        name = f"{variants.chrom[row]}:{variants.position[row] + 1}"
        return f"{source}:{variants.line[row]} ({name} {variants.ref[row]}>{variants.alt[row]})"

    sites = locate(variants, genome)
    _check_reference(variants, sites, genome, max_ref_mismatch, source, describe)
    status, rows = sites.status.copy(), np.flatnonzero(sites.status == Status.OK)
    # Rows of one position share a forward pass.
    places, first, which = np.unique(
        sites.contig[rows] << 32 | sites.position[rows], return_index=True, return_inverse=True
    )
    contig, position = places >> 32, places & 0xFFFF_FFFF
    windows = place(
        *centred(position, context_length),
        genome.lengths[contig],
        edge=edge,
        describe=lambda i: describe(int(rows[first[i]])),
    )
    if padded := int(np.count_nonzero(windows.padding)):
        notice(f"{padded:,} positions are near the end of a contig: N stands for what is beyond")
    run = np.flatnonzero(windows.status == Status.OK)
    log_probabilities = np.full((len(places), 4), np.nan, np.float32)
    log_probabilities[run] = inference.masked_log_probabilities(
        model,
        TokenWindows(genome, tokenizer, contig[run], windows.start[run], context_length),
        (position - windows.start)[run],
        tokenizer=tokenizer,
        batch_size=batch_size,
        show_progress=show_progress,
    )
    status[rows], llr = windows.status[which], np.full(len(status), np.nan, np.float32)
    alt, ref = (log_probabilities[which, base[rows]] for base in (sites.alt, sites.ref))
    llr[rows] = alt - ref
    return Scores(status, llr)


def locate(variants: Variants, genome: Genome) -> Sites:
    """Finds variants on a genome, and out which of them can be scored there.

    Args:
        variants: for example from `vcf.read_vcf`.
        genome: the reference they were called on.
    """
    kind = functools.cache(single_base_change)
    changes = [kind(ref, alt) for ref, alt in zip(variants.ref, variants.alt, strict=True)]
    offset = np.array([change.offset for change in changes], np.int64)
    ref = np.array([_index(change.ref) for change in changes], np.int64)
    alt = np.array([_index(change.alt) for change in changes], np.int64)
    contig, position = genome.contigs(variants.chrom), variants.position + offset
    lengths = np.where(contig >= 0, genome.lengths[contig], -1)
    status = place(position, position + 1, lengths).status
    on_genome = status == Status.OK
    status[on_genome] = np.array([change.status for change in changes], status.dtype)[on_genome]
    rows = np.flatnonzero(status == Status.OK)
    found = _bases_at(genome, contig[rows], position[rows])
    status[rows[found != ref[rows]]] = Status.REF_MISMATCH
    status[rows[found < 0]] = Status.AMBIGUOUS
    return Sites(status, contig, position, ref, alt)


def _index(base: str) -> int:
    """Index in ACGT of a base; -1 for what is none."""
    return _BASES.index(base) if base and base in _BASES else -1


def _bases_at(genome: Genome, contigs: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The genome's bases at 0-based positions, as indices in ACGT; -1 for N and outside."""
    index = np.full(256, -1, np.int64)
    index[list(_BASES.encode())] = range(4)
    return index[genome.windows(contigs, positions, 1)[:, 0]]


def _check_reference(
    variants: Variants,
    sites: Sites,
    genome: Genome,
    max_ref_mismatch: float,
    source: str,
    describe: Callable[[int], str],
) -> None:
    """Stops where REF differs from the genome so often that it must be the wrong genome."""
    wrong = np.flatnonzero(sites.status == Status.REF_MISMATCH)
    checked = np.flatnonzero(np.isin(sites.status, (Status.OK, Status.REF_MISMATCH)))
    mismatches = len(np.unique(variants.record[wrong]))
    records = len(np.unique(variants.record[checked]))
    if mismatches <= max_ref_mismatch * records:
        return
    cause = f"{genome.path} is most likely another assembly than the variants were called on"
    tried = checked[np.linspace(0, len(checked) - 1, min(len(checked), _SITES_TRIED)).astype(int)]
    for shift, says in ((1, "one too small, counted from 0"), (-1, "one too large")):
        there = _bases_at(genome, sites.contig[tried], sites.position[tried] + shift)
        if len(tried) > 9 and np.mean(there == sites.ref[tried]) > _AGREEMENT:
            cause = f"the positions are most likely {says}"
    base = _BASES[_bases_at(genome, sites.contig[wrong[:1]], sites.position[wrong[:1]])[0]]
    raise UserError(
        f"{source}: REF differs from the genome in {mismatches:,} of {records:,} single-base "
        f"records, first at {describe(int(wrong[0]))} where the genome has {base}: {cause} "
        f"(--max-ref-mismatch, now {max_ref_mismatch:g}, sets how many are accepted)"
    )


def _fields(variants: Variants, scores: Scores) -> Iterator[dict[str, str]]:
    """The INFO fields of each record."""
    if not len(variants.record):
        return
    for rows in np.split(np.arange(len(scores.llr)), np.flatnonzero(np.diff(variants.record)) + 1):
        llr, fields = scores.llr[rows], {}
        if not np.isnan(llr).all():
            texts = ("." if np.isnan(value) else f"{value:.6g}" for value in llr)
            fields["CADUCEUS_LLR"] = ",".join(texts)
        fields["CADUCEUS_STATUS"] = ",".join(scores.status[rows])
        yield fields


def _write_parquet(path: pathlib.Path, variants: Variants, scores: Scores) -> None:
    import polars

    polars.DataFrame(
        {
            "chrom": polars.Series(variants.chrom, dtype=polars.String),
            "pos": variants.position + 1,
            "ref": polars.Series(variants.ref, dtype=polars.String),
            "alt": polars.Series(variants.alt, dtype=polars.String),
            "status": polars.Series(scores.status.tolist(), dtype=polars.String),
            "llr": polars.Series(scores.llr).fill_nan(None),
        }
    ).write_parquet(path)
