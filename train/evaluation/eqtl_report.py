"""`caduceus-jax evaluate --suite eqtl`: which variants change expression, by an SVM."""

import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from caduceus_jax import inference
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.windows import Status
from caduceus_jax.progress import notice
from caduceus_jax.train.config import names
from caduceus_jax.train.evaluation import eqtl
from caduceus_jax.train.evaluation.eqtl_table import read_table
from caduceus_jax.train.finetuning.config import EqtlConfig

if TYPE_CHECKING:
    from caduceus_jax.train.evaluation.evaluate import EvaluateConfig

_ADDRESS = (
    "https://huggingface.co/datasets/InstaDeepAI/genomics-long-range-benchmark "
    "(variant_effect_causal_eqtl/All_Tissues.csv)"
)


def evaluate_eqtl(config: "EvaluateConfig") -> None:
    """Embeds the variants of a table and scores them; writes rows.tsv, auroc.json and report.md.

    Every row of the table is in rows.tsv, in its place, with its status. What is embedded already
    is not embedded again.

    Raises:
        UserError: files that are missing or do not fit, or a model that is.
    """
    given = config.eqtl
    _check(config)
    table = read_table(pathlib.Path(given.table), names(given.test_contigs))
    genome = Genome(given.genome)
    use_cores()
    model, tokenizer = inference.load(config.model)
    folder = pathlib.Path(config.report)
    windows = eqtl.find_windows(table, genome, given.length)
    counts = {str(s): int((windows.status == s).sum()) for s in np.unique(windows.status)}
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    notice(f"{given.table}: {len(windows.status):,} rows: {said}; {len(windows.base):,} windows")
    states = eqtl.embed_windows(
        model,
        tokenizer,
        genome,
        windows,
        folder,
        length=given.length,
        pooled=given.pooled,
        protocol=config.protocol,
    )
    auroc = _buckets(config, table, windows, states, equivariant=model.config.rcps)
    (folder / "auroc.json").write_text(json.dumps({"rows": counts, "auroc": auroc}, indent=1))
    _write_rows(folder / "rows.tsv", table, windows)
    text = "\n".join(_lines(config, counts, auroc))
    (folder / "report.md").write_text(text + "\n")
    print(text)


def _buckets(
    config: "EvaluateConfig",
    table: eqtl.Table,
    windows: eqtl.Windows,
    states: np.ndarray,
    *,
    equivariant: bool,
) -> dict[str, dict[str, Any]]:
    """The areas by class of distance, and of all rows together."""
    rows = np.flatnonzero(windows.status == Status.OK)
    # The paper averages both strands of what is tested, and of what is trained on only where a
    # model reads both anyway; "none" takes the + strand alone.
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


def _check(config: "EvaluateConfig") -> None:
    given: EqtlConfig = config.eqtl
    if not config.model:
        raise UserError("--model is missing: the suite eqtl reads a pretrained model's states")
    if not given.table:
        raise UserError(f"--eqtl.table is missing: the published one is at {_ADDRESS}")
    if not given.genome:
        raise UserError("--eqtl.genome is missing: the FASTA file of the table's assembly (hg38)")


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
    path.write_text("\n".join(lines) + "\n")


def _lines(
    config: "EvaluateConfig", counts: dict[str, int], auroc: dict[str, dict[str, Any]]
) -> list[str]:
    labels = "predicted labels" if config.protocol == "paper" else "the decision function"
    lines = [
        f"AUROC of {labels}, protocol {config.protocol}, windows of {config.eqtl.length:,} bases, "
        f"mean over {config.eqtl.pooled:,}; rows: "
        + ", ".join(f"{count:,} {status}" for status, count in counts.items()),
        "",
        "| distance to TSS | train | test | AUROC | of each seed | C |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for name, row in auroc.items():
        values = ", ".join(f"{value:.3f}" for value in row["values"])
        mean = f"{row['mean']:.3f}" if row["values"] else "one class only"
        counted = f"{row['train']:,} | {row['test']:,}"
        lines.append(f"| {name} | {counted} | {mean} | {values} | {row['C']} |")
    return lines
