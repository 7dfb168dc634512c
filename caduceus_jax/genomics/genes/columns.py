"""Genes beside scores: columns of a table, and INFO fields of a VCF."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import polars

from caduceus_jax.genomics.files.inputs import AnyPath, Input
from caduceus_jax.genomics.genes.annotation import read_annotation
from caduceus_jax.genomics.genes.places import COLUMNS, Genes
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.genomics.reference.inputs import VariantSource
from caduceus_jax.inference.blocks import Part

_DESCRIPTIONS = {
    "gene": "Gene that POS lies in, or whose transcription start site is the nearest",
    "region": "CDS, UTR, exon, intron, upstream or intergenic, of POS",
    "tss_gene": "Gene of the nearest transcription start site",
    "tss_distance": "Bases from the nearest transcription start site, negative upstream",
}
_KEYS = {name: f"CADUCEUS_{name.upper()}" for name in COLUMNS}


class GeneColumns:
    """Finds the genes of variants.

    Args:
        gtf: the annotation, GTF or GFF3.
        source: the variants.
        genome: the genome that they lie on.

    Raises:
        UserError: the annotation cannot be read.
    """

    def __init__(self, gtf: AnyPath | Input, source: VariantSource, genome: Genome):
        self._genes = Genes(read_annotation(gtf), genome)
        self._variants = source.variants

    def beside(self, rows: range, frame: polars.DataFrame) -> polars.DataFrame:
        """Returns a table of some variants with the columns of `Genes.of`.

        Args:
            rows: numbers of the variants, from 0.
            frame: table of these variants.
        """
        chrom = self._variants.chrom[rows.start : rows.stop]
        position = np.asarray(self._variants.position[rows.start : rows.stop])
        return frame.hstack(self._genes.of(chrom, position))

    def added(self, parts: Iterable[Part[polars.DataFrame]]) -> Iterator[Part[polars.DataFrame]]:
        """Yields the parts of a table of variants with these columns."""
        for part in parts:
            yield part._replace(frame=self.beside(part.rows, part.frame))

    def declarations(self) -> dict[str, str]:
        """Returns the header lines of the INFO fields."""
        kinds = {polars.String: "String", polars.Int64: "Integer"}
        return {
            _KEYS[name]: f'Number=1,Type={kinds[dtype]},Description="{_DESCRIPTIONS[name]}"'
            for name, dtype in COLUMNS.items()
        }


def info_fields(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns the INFO fields of a record.

    Args:
        row: a row of the table, by column; one without columns of genes gives nothing.
    """
    found = {key: row[name] for name, key in _KEYS.items() if row.get(name) is not None}
    return {key: _escaped(str(value)) for key, value in found.items()}


def _escaped(text: str) -> str:
    """Returns a value as VCF 4.3 (1.2) writes characters that have a meaning."""
    return re.sub(r"[%;=,:\s]", lambda match: f"%{ord(match[0]):02X}", text)
