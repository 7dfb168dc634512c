"""INFO fields of scored variants: what they are called, how they are declared, and their values."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

import numpy as np
import polars

from caduceus_jax.genomics.finetuned.outputs import Outputs
from caduceus_jax.genomics.genes.columns import info_fields
from caduceus_jax.genomics.genome_wide.background import QUANTILE
from caduceus_jax.genomics.genome_wide.phased import HAPLOTYPES
from caduceus_jax.genomics.options import Mode
from caduceus_jax.genomics.reference.inputs import VariantSource
from caduceus_jax.genomics.scoring.variant_scores import SCORES
from caduceus_jax.inference.blocks import Part

_DESCRIPTIONS = {
    "llr": "log p(ALT) - log p(REF) with all changed bases masked, natural logarithm",
    "pllr": "pseudo-log-likelihood of a window with ALT minus that with REF, natural logarithm",
    "l2": "Euclidean distance between the mean embeddings of a window with ALT and with REF",
    "cosine": "Cosine distance between the mean embeddings of a window with ALT and with REF",
}
_PREFIX = "CADUCEUS_"
STATUS = f"{_PREFIX}STATUS"


def fields_of(mode: Mode, outputs: Outputs | None) -> dict[str, tuple[str, str]]:
    """Returns the columns that a mode gives -> the INFO field of each, and its description.

    Args:
        mode: the mode of the run.
        outputs: outputs of a fine-tuned model, in mode output.
    """
    if outputs is None:
        return {name: (f"{_PREFIX}{name.upper()}", _DESCRIPTIONS[name]) for name in SCORES[mode]}
    fields: dict[str, tuple[str, str]] = {}
    taken: set[str] = set()
    for column in outputs.columns:
        key = _PREFIX + re.sub("[^A-Z0-9]", "_", column.upper())
        while key in taken:  # names that differ in what no INFO key may have
            key += "_"
        taken.add(key)
        fields[column] = key, outputs.describe(column).replace("\\", "/").replace('"', "'")
    return fields


def declarations(mode: Mode, fields: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Returns the header lines of the INFO fields that a mode writes.

    Args:
        mode: the mode of the run.
        fields: the INFO field of each column of scores, and its description.
    """
    numbers = {key: f'Number=A,Type=Float,Description="{text}"' for key, text in fields.values()}
    any_mode = "For each ALT: ok if any mode has a score, otherwise why not"
    this_mode = f"For each ALT: ok if mode {mode} has a score, otherwise why not"
    return numbers | {
        STATUS: f'Number=A,Type=String,Description="{any_mode}"',
        f"{STATUS}_{mode.upper()}": f'Number=A,Type=String,Description="{this_mode}"',
    }


def quantiles_of(fields: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Returns the columns of quantiles -> the INFO field of each, and its description.

    Args:
        fields: the same of the scores.
    """
    text = "Share of random variants of the same kind whose {} is lower"
    return {
        name + QUANTILE: (key + QUANTILE.upper(), text.format(key))
        for name, (key, _) in fields.items()
    }


def haplotypes_of(fields: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Returns the columns of haplotypes -> the INFO field of each, and its description.

    Args:
        fields: the same of the scores.
    """
    return {
        name + haplotype: (key + haplotype.upper(), f"{text}, of haplotype {haplotype[-1]}")
        for name, (key, text) in fields.items()
        for haplotype in HAPLOTYPES
    }


def info_of_records(
    source: VariantSource,
    mode: Mode,
    names: Mapping[str, tuple[str, str]],
    parts: Iterable[Part[polars.DataFrame]],
) -> Iterator[dict[str, str]]:
    """Yields the INFO fields of each record.

    Args:
        source: the variants.
        mode: the mode of the run.
        names: the INFO field of each column of scores, and its description.
        parts: the tables of results, in order.
    """
    for part in parts:
        record = source.variants.record[part.rows.start : part.rows.stop]
        status = part.frame["status"].to_list()
        columns = {key: part.frame[name].to_list() for name, (key, _) in names.items()}
        begins = np.flatnonzero(np.diff(record, prepend=-1)).tolist()
        for first, last in zip(begins, [*begins[1:], len(record)], strict=True):
            fields = {}
            for key, column in columns.items():
                values = column[first:last]
                if any(value is not None for value in values):
                    texts = ("." if value is None else f"{value:.6g}" for value in values)
                    fields[key] = ",".join(texts)
            text = ",".join(status[first:last])
            if "tss_gene" in part.frame.columns:
                fields |= info_fields(part.frame.row(first, named=True))
            yield fields | {STATUS: text, f"{STATUS}_{mode.upper()}": text}


def combined(there: Mapping[str, str], new: Mapping[str, str], mode: Mode) -> Mapping[str, str]:
    """Combines the statuses of all modes: ok where one has a score, otherwise this run's.

    Args:
        there: INFO of the record as it was.
        new: the fields that this run adds.
        mode: the mode of this run.
    """
    others = [f"{STATUS}_{other.upper()}" for other in get_args(Mode) if other != mode]
    statuses = new[STATUS].split(",")
    for earlier in (there[key].split(",") for key in others if key in there):
        if len(earlier) == len(statuses):
            pairs = zip(statuses, earlier, strict=True)
            statuses = ["ok" if "ok" in pair else pair[0] for pair in pairs]
    return {**new, STATUS: ",".join(statuses)}
