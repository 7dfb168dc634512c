"""Scores of variants: `caduceus-jax score-variants`."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import numpy as np
from flax import nnx

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.output import check_output, finish, replacing
from caduceus_jax.genomics.files.variant_tables import (
    is_table,
    read_table,
    table_of,
    vcf_of,
    write_table,
)
from caduceus_jax.genomics.files.vcf import Vcf, write_vcf
from caduceus_jax.genomics.files.vcf_index import index_vcf
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.locate import locate, name_row
from caduceus_jax.genomics.reference.windows import Edge
from caduceus_jax.genomics.scoring import variant_scores
from caduceus_jax.genomics.scoring.journal import Journal, open_journal
from caduceus_jax.genomics.variant import Variants
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.version import __version__

if TYPE_CHECKING:
    import polars

Mode = Literal["llr", "pll", "embedding"]
_FORMATS = {
    ".vcf": None,
    ".vcf.gz": "pysam",
    ".parquet": "polars",
    ".tsv": "polars",
    ".tsv.gz": "polars",
}
_SCORERS = {
    "llr": variant_scores.masked_ratio,
    "pll": variant_scores.pseudo_ratio,
    "embedding": variant_scores.embedding_distances,
}
_DESCRIPTIONS = {
    "llr": "log p(ALT) - log p(REF) with all changed bases masked, natural logarithm, both strands",
    "pllr": "pseudo-log-likelihood of a window with ALT minus that with REF, natural logarithm, "
    "both strands",
    "l2": "Euclidean distance between the mean embeddings of a window with ALT and with REF",
    "cosine": "Cosine distance between the mean embeddings of a window with ALT and with REF",
}
_COLUMNS = {"llr": ("llr",), "pll": ("pllr",), "embedding": ("l2", "cosine")}


def score_variants(
    model: str,
    variants: pathlib.Path,
    genome: pathlib.Path,
    *,
    out: pathlib.Path,
    mode: Mode = "llr",
    window: int = 65,
    context_length: int = 1023,
    edge: Edge = "pad",
    max_ref_mismatch: float = 0.01,
    batch_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tabix: bool = False,
    resume: bool = False,
    skip_bad: bool = False,
) -> None:
    """Scores the variants of a VCF, or of a table, with a model.

    There are three modes, and all of them read both strands:

      llr        log p(ALT) - log p(REF): the changed bases are masked, and the model is asked for
                 REF's and ALT's given the sequence around them. One forward pass serves all ALTs
                 of a position. For substitutions of one or several bases; insertions and deletions
                 have no base to compare and get the status indel: use one of the other modes.
      pll        pseudo-log-likelihood ratio: every base of a --window around the variant is masked
                 in turn, in the sequence with REF and in the one with ALT; the sum of log p over
                 ALT's window minus that over REF's. Takes --window forward passes for each
                 allele. For insertions and deletions too.
      embedding  distance between the mean embeddings of the --window with ALT and with REF,
                 Euclidean (l2) and cosine (1 - cos). For insertions and deletions too.

    Negative llr and pllr mean that ALT is less expected there than REF.

    The model always sees --context-length bases with the allele in the middle, REF's or ALT's:
    more of the genome on both sides makes up for a deletion. What REF and ALT share at their ends
    is no part of the allele; an insertion or deletion within a repeat covers all of the repeat
    that it can be moved in (up to the context's length on either side), wherever the VCF puts it.
    So the score depends neither on how the variant is written nor on the strand of the genome.
    (With an odd --context-length, and with an odd --window. Where an allele of an even number of
    bases leaves one base more on one side, the alphabetical order of both strands decides on which,
    so that both decide alike. A base that is the window's middle has the 0-based index
    context_length // 2.)

    Every record comes out, in its place, with a status for each ALT: ok, or why it has no score
    (indel, too_long: more changed bases than the window or the context has, symbolic,
    spanning_deletion, missing_alt, ambiguous: bases other than A, C, G, T, also where N leaves the
    windows of pll with different numbers of bases, ref_mismatch, unknown_chrom, out_of_range,
    crosses_edge). A VCF gets the INFO fields CADUCEUS_STATUS and CADUCEUS_LLR, CADUCEUS_PLLR, or
    CADUCEUS_L2 and CADUCEUS_COSINE. Tables get the columns status and llr, pllr, or l2 and cosine,
    one row an ALT, besides chrom, pos (from 1), ref, alt. Fields of an earlier run in another mode
    stay.

    What is computed is kept in a journal beside the output (OUT.journal) until the output is
    written. A run that was interrupted, by whatever, continues with --resume, to the very bytes
    that it would have written.

    examples:
      caduceus-jax score-variants runs/quickstart calls.vcf.gz hg38.fa --out scored.vcf.gz --tabix
      caduceus-jax score-variants runs/quickstart indels.tsv hg38.fa --mode pll --out scored.tsv

    Args:
        model: folder of a model or of a pretraining run, or a hub id such as owner/name.
        variants: VCF (plain, gzip or bgzip), BCF, or a table with the columns chrom, pos (from 1),
            ref and alt, one row an ALT, further columns stay: .parquet, or .tsv (plain or gzip).
        genome: the reference the variants were called on: FASTA, plain or bgzip; its index (.fai)
            is made where it is missing.
        out: file to write: .vcf, .vcf.gz (bgzip), .parquet, .tsv or .tsv.gz. It appears when it
            is complete. A VCF written from a table has the four columns alone.
        mode: llr, pll or embedding, see above.
        window: bases around the variant that pll and embedding look at; at most the context's.
        context_length: bases the model sees, the variant in the middle. Time grows in proportion.
        edge: what to do where the context reaches beyond the end of a contig: pad it with N, shift
            it inward, drop the variant (status crosses_edge), or stop with an error.
        max_ref_mismatch: share of records whose REF may differ from the genome before the command
            stops, because the genome is likely the wrong one. Below it they get the status
            ref_mismatch.
        batch_size: sequences in a forward pass; chosen for the device by default.
        dtype: of matrix products and activations.
        tabix: also write the index of a .vcf.gz, OUT.tbi; the records must be sorted.
        resume: continue from the journal of the same run that was interrupted. Without it a
            journal that is there is written anew.
        skip_bad: exit with status 0 although variants are not on the genome (unknown_chrom,
            out_of_range).

    Raises:
        UserError: an input cannot be used, REF differs too often, the journal is another run's,
            or, with everything written, records are not sorted (--tabix) or variants are not on
            the genome.
    """
    variants, genome, out = map(pathlib.Path, (variants, genome, out))
    ending = check_output(out, _FORMATS)
    if out.resolve() == variants.resolve():
        raise UserError(f"{out} is the input: choose another name for the output")
    if tabix and ending != ".vcf.gz":
        raise UserError(f"--tabix is for .vcf.gz, which {out} is not: name the output so")
    _check_options(mode, window, context_length)
    use_cores()
    network, tokenizer = inference.load(model, dtype=dtype)
    source = None if is_table(variants) else Vcf(variants)
    rows, frame = read_table(variants) if source is None else (source.variants(), None)
    reference = Genome(genome)
    options = {
        "mode": mode,
        "context_length": context_length,
        "edge": edge,
        **({} if mode == "llr" else {"window": window}),
    }
    run = {
        **options,
        "batch_size": batch_size,
        "model": _digest_of_model(network, tokenizer, dtype),
        "variants": _digest(variants),
        "genome": reference.identity,
        "version": __version__,
        "jax": jax.__version__,
        "devices": [str(device.device_kind) for device in jax.local_devices()],
    }
    provenance = {"ID": mode, "Version": __version__, "Model": model, "Genome": genome, **options}
    del provenance["mode"]
    with open_journal(out.with_name(f"{out.name}.journal"), run, resume=resume) as journal:
        status, columns = _score(
            network,
            rows,
            reference,
            tokenizer=tokenizer,
            mode=mode,
            window=window,
            context_length=context_length,
            edge=edge,
            max_ref_mismatch=max_ref_mismatch,
            batch_size=batch_size,
            journal=journal,
            show_progress=True,
            source=str(variants),
        )
        with replacing(out) as partial:
            if ending in (".vcf", ".vcf.gz"):
                write_vcf(
                    source or Vcf.of_lines(vcf_of(rows, reference)),
                    partial,
                    _declarations(mode),
                    _fields(rows, status, columns),
                    provenance=_titles(provenance),
                    compress=ending == ".vcf.gz",
                )
            else:
                write_table(partial, ending, table_of(rows, status, columns, frame))
    if tabix:
        index_vcf(out)
    names = [f"{c}:{p + 1}" for c, p in zip(rows.chrom, rows.position, strict=True)]
    finish("variants", names, status, out, genome, skip_bad)


def scores(
    model: CaduceusForMaskedLM,
    variants: Variants,
    genome: Genome,
    *,
    tokenizer: Tokenizer | None = None,
    mode: Mode = "llr",
    window: int = 65,
    context_length: int = 1023,
    edge: Edge = "pad",
    max_ref_mismatch: float = 0.01,
    batch_size: int | None = None,
    show_progress: bool = False,
    source: str = "variants",
) -> "polars.DataFrame":
    """Scores variants; see `score_variants` for what the scores are.

    Args:
        model: a masked language model.
        variants: for example from `vcf.read_vcf`.
        genome: the reference they were called on.
        tokenizer: of the model; the original's by default.
        mode: see `score_variants`.
        window: see `score_variants`.
        context_length: see `score_variants`.
        edge: see `score_variants`.
        max_ref_mismatch: see `score_variants`.
        batch_size: see `score_variants`.
        show_progress: say on standard error how far it is.
        source: what error messages call the variants.

    Returns:
        One row an ALT, in the order of `variants`: chrom, pos (from 1), ref, alt, status, and
        llr, pllr, or l2 and cosine, null unless the status is ok.

    Raises:
        UserError: REF differs from the genome too often, or an option is out of range.
    """
    _check_options(mode, window, context_length)
    status, columns = _score(
        model,
        variants,
        genome,
        tokenizer=tokenizer or Tokenizer(),
        mode=mode,
        window=window,
        context_length=context_length,
        edge=edge,
        max_ref_mismatch=max_ref_mismatch,
        batch_size=batch_size,
        journal=None,
        show_progress=show_progress,
        source=source,
    )
    return table_of(variants, status, columns, None)


def _score(
    model: CaduceusForMaskedLM,
    variants: Variants,
    genome: Genome,
    *,
    tokenizer: Tokenizer,
    mode: Mode,
    window: int,
    context_length: int,
    edge: Edge,
    max_ref_mismatch: float,
    batch_size: int | None,
    journal: Journal | None,
    show_progress: bool,
    source: str,
) -> tuple[np.ndarray, variant_scores.Columns]:
    """Status and scores, (rows,) each; scores are NaN unless the status is OK."""
    sites = locate(
        variants,
        genome,
        indels=mode != "llr",
        max_ref_mismatch=max_ref_mismatch,
        source=source,
    )
    scorer = variant_scores.Scorer(
        model=model,
        tokenizer=tokenizer,
        genome=genome,
        context_length=context_length,
        window=window,
        edge=edge,
        batch_size=batch_size,
        journal=journal,
        show_progress=show_progress,
        describe=name_row(variants, source),
    )
    status = sites.status.copy()
    return status, _SCORERS[mode](scorer, sites, status)


def _check_options(mode: Mode, window: int, context_length: int) -> None:
    if mode not in get_args(Mode):
        raise UserError(f"mode is {mode!r}; it is one of: {', '.join(get_args(Mode))}")
    if context_length < 1:
        raise UserError(f"context_length is {context_length}; it must be at least 1")
    if mode != "llr" and not 1 <= window <= context_length:
        raise UserError(
            f"window is {window}; it must be from 1 to context_length, which is {context_length}"
        )


def _declarations(mode: Mode) -> dict[str, str]:
    """The header lines of the INFO fields that a mode writes."""
    numbers = {
        f"CADUCEUS_{name.upper()}": f'Number=A,Type=Float,Description="{_DESCRIPTIONS[name]}"'
        for name in _COLUMNS[mode]
    }
    says = '"For each ALT: ok if it is scored, otherwise why not"'
    return numbers | {"CADUCEUS_STATUS": f"Number=.,Type=String,Description={says}"}


def _titles(provenance: dict[str, Any]) -> dict[str, str]:
    return {
        key if key == "ID" else key.title().replace("_", ""): str(value)
        for key, value in provenance.items()
    }


def _fields(
    variants: Variants, status: np.ndarray, columns: variant_scores.Columns
) -> Iterator[dict[str, str]]:
    """The INFO fields of each record."""
    if not len(variants.record):
        return
    for rows in np.split(np.arange(len(status)), np.flatnonzero(np.diff(variants.record)) + 1):
        fields = {}
        for name, column in columns.items():
            values = column[rows]
            if not np.isnan(values).all():
                texts = ("." if np.isnan(value) else f"{value:.6g}" for value in values)
                fields[f"CADUCEUS_{name.upper()}"] = ",".join(texts)
        fields["CADUCEUS_STATUS"] = ",".join(status[rows])
        yield fields


def _digest(path: pathlib.Path) -> dict[str, Any]:
    """Size and digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, hashlib.blake2b).hexdigest()[:32]
    return {"bytes": path.stat().st_size, "digest": digest}


def _digest_of_model(model: CaduceusForMaskedLM, tokenizer: Tokenizer, dtype: str) -> str:
    """A digest of all that makes a model's answer: architecture, weights, vocabulary, dtype."""
    digest = hashlib.blake2b(repr((model.config, tokenizer.vocabulary, dtype)).encode())
    for path, parameter in sorted(nnx.to_flat_state(nnx.state(model, nnx.Param))):
        digest.update(repr(path).encode() + np.ascontiguousarray(parameter[...]).tobytes())
    return digest.hexdigest()[:32]
