"""`caduceus-jax evaluate eqtl`: which variants change expression, by a support vector machine."""

import logging
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.files import write_text
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.status import Status
from caduceus_jax.train.data.config import as_list
from caduceus_jax.train.evaluation import eqtl
from caduceus_jax.train.evaluation.config import EqtlEvaluation
from caduceus_jax.train.evaluation.eqtl_table import read_table
from caduceus_jax.train.evaluation.report import Report, markdown, write_report

log = logging.getLogger(__name__)

_ADDRESS = (
    "https://huggingface.co/datasets/InstaDeepAI/genomics-long-range-benchmark "
    "(variant_effect_causal_eqtl/All_Tissues.csv)"
)


def evaluate_eqtl(config: EqtlEvaluation) -> None:
    """Learns from a model's states which variants change expression, and scores the predictions.

    The states around each variant of a table are computed, with its reference and its alternative
    base; a support vector machine on them is trained and tested in three classes of distance to
    the nearest transcription start site. States that were computed by an earlier call are read.

    examples:
      caduceus-jax evaluate eqtl MODEL --table All_Tissues.csv --genome hg38.fa --out runs/eqtl

    Args:
        config: the settings.

    Raises:
        UserError: a file is missing, or files do not fit together.
    """
    _check(config)
    table = read_table(pathlib.Path(config.table), as_list(config.test_contigs))
    genome = Genome(config.genome)
    use_cores()
    model, tokenizer = inference.load(config.model, dtype=jnp.dtype(config.dtype))
    folder = pathlib.Path(config.out)
    windows = eqtl.find_windows(table, genome, config.context_length)
    counts = {str(s): int((windows.status == s).sum()) for s in np.unique(windows.status)}
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    log.info(f"{config.table}: {len(windows.status):,} rows: {said}; {len(windows.base):,} windows")
    states = eqtl.embed_windows(
        model,
        tokenizer,
        genome,
        windows,
        folder,
        length=config.context_length,
        pooled=config.window,
        protocol=config.protocol,
        batch_size=config.batch_size,
    )
    auroc = _buckets(config, table, windows, states, equivariant=model.config.rcps)
    _write_rows(folder / "rows.tsv", table, windows)
    report = _report(config, counts, auroc)
    paths = write_report(folder, report, {"rows": counts, "auroc": auroc})
    print("\n".join(markdown(report)))
    print(f"written: {', '.join(map(str, [*paths, folder / 'rows.tsv']))}")


def _buckets(
    config: EqtlEvaluation,
    table: eqtl.Table,
    windows: eqtl.Windows,
    states: np.ndarray,
    *,
    equivariant: bool,
) -> dict[str, dict[str, Any]]:
    """Computes the areas by class of distance, and of all rows together."""
    rows = np.flatnonzero(windows.status == Status.OK)
    # The paper averages both strands of test rows, but of training rows only where the model is
    # equivariant; "none" takes the + strand alone.
    tested = (0,) if config.rc_mode == "none" else (0, 1)
    single = config.protocol == "paper" and not equivariant
    common: dict[str, Any] = {"protocol": config.protocol}
    test = eqtl.features(states, table, windows, strands=tested, **common)
    train = test
    if single:
        train = eqtl.features(states, table, windows, strands=(0,), **common)
    labels, is_test = table.label[rows], table.test[rows]
    found = {}
    for name in (*eqtl.BUCKETS, "all"):
        inside = np.ones(len(rows), bool)
        if name != "all":
            inside = eqtl.in_bucket(table.distance[rows], name, config.protocol)
        learnt, tried = inside & ~is_test, inside & is_test
        found[name] = eqtl.svm_auroc(
            (train[learnt], labels[learnt]),
            (test[tried], labels[tried]),
            seeds=config.seeds,
            **common,
        )
    return found


def _check(config: EqtlEvaluation) -> None:
    if not config.table:
        raise UserError(f"table is missing: the published one is at {_ADDRESS}")
    if not config.genome:
        raise UserError("genome is missing: name the FASTA file of the table's assembly (hg38)")


def _write_rows(path: pathlib.Path, table: eqtl.Table, windows: eqtl.Windows) -> None:
    lines = ["\t".join(("chrom", "pos", "alt", "label", "tissue", "test", "status"))]
    for row, status in enumerate(windows.status):
        fields = (
            table.chrom[row],
            table.position[row] + 1,
            table.alt[row],
            table.label[row],
            table.tissue[row],
            int(table.test[row]),
            status,
        )
        lines.append("\t".join(map(str, fields)))
    write_text(path, "\n".join(lines) + "\n")


def _report(
    config: EqtlEvaluation, counts: dict[str, int], auroc: dict[str, dict[str, Any]]
) -> Report:
    labels = "the predicted labels" if config.protocol == "paper" else "the decision function"
    facts = (
        f"AUROC of {labels}, protocol {config.protocol}; the model is {config.model}, the table "
        f"{config.table}. Windows of {config.context_length:,} bases, states averaged over "
        f"{config.window:,} around the variant. Rows of the table: "
        + ", ".join(f"{count:,} {status}" for status, count in counts.items())
        + "."
    )
    header = ["distance to TSS", "C", "of each seed", "train", "test", "AUROC"]
    rows = [
        [
            name,
            str(row["C"]),
            ", ".join(f"{value:.3f}" for value in row["values"]),
            f"{row['train']:,}",
            f"{row['test']:,}",
            f"{row['mean']:.3f}" if row["values"] else "one class only",
        ]
        for name, row in auroc.items()
    ]
    return Report("Variants that change expression", facts, [header, *rows], text_columns=3)
