"""Genes, transcription start sites and parts of genes from GTF and GFF3 files."""

import io
from typing import NamedTuple

import polars
from polars import col

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import AnyPath, Input, as_input, check_text

_COLUMNS = ("chrom", "source", "type", "start", "end", "score", "strand", "phase", "attributes")
_GFF3_FASTA = b"\n##FASTA"
# Generations between a part and its gene in GFF3: exon, transcript, gene; one more for safety.
_GENERATIONS = 3
_PARTS = {
    "CDS": "CDS",
    "stop_codon": "CDS",
    "UTR": "UTR",
    "five_prime_utr": "UTR",
    "three_prime_utr": "UTR",
    "five_prime_UTR": "UTR",
    "three_prime_UTR": "UTR",
    "5UTR": "UTR",
    "3UTR": "UTR",
    "exon": "exon",
}


class Annotation(NamedTuple):
    """Holds the genes of an annotation; positions are 0-based half-open.

    Attributes:
        genes: one row per gene: chrom, start, end, strand and gene, its name.
        sites: one row per transcription start site and gene: chrom, position, strand and gene.
        parts: one row per coding sequence, untranslated region and exon: chrom, start, end, region
            ("CDS", "UTR" or "exon") and gene. A gene without parts is one exon.
    """

    genes: polars.DataFrame
    sites: polars.DataFrame
    parts: polars.DataFrame


def read_annotation(path: AnyPath | Input) -> Annotation:
    """Reads a GTF or GFF3 file, plain or compressed.

    A gene is called by its name (gene_name or gene in GTF, Name in GFF3), or by its ID where it has
    none. A transcription start site is the first base of a transcript, or of a gene without
    transcripts.

    Args:
        path: the file.

    Raises:
        UserError: no such file, not such a file, a line without nine columns or with a position
            that is not a number, or no genes.
    """
    source = as_input(path)
    with source.open() as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    text = text.partition(_GFF3_FASTA)[0]
    check_text(source.name, text, "a GTF or GFF3 file")
    features = _features(source.name, text)
    parents = features["attributes"].str.contains(r"(?:^|;)\s*(?:ID|Parent)=").any()
    features = _of_gff3(features) if parents else _of_gtf(features)
    features = features.drop_nulls(["gene_id"])
    if not len(features):
        raise UserError(
            f"{source.name} has no genes: a GTF file has the attribute gene_id, and a GFF3 file "
            "features of the type gene, to which others belong by Parent"
        )
    return _annotation(features)


def _features(name: str, text: bytes) -> polars.DataFrame:
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith(b"#"):
            if line.count(b"\t") < len(_COLUMNS) - 1:
                raise UserError(
                    f"{name}:{number}: only {line.count(b'	') + 1} of the nine columns of GTF and "
                    "GFF3; they are separated by tabs"
                )
            break
    else:
        raise UserError(f"{name} has no features: it is empty, or has comments alone")
    try:
        frame = polars.read_csv(
            io.BytesIO(text),
            has_header=False,
            separator="\t",
            comment_prefix="#",
            quote_char=None,
            infer_schema=False,
            encoding="utf8-lossy",
            new_columns=list(_COLUMNS),
            truncate_ragged_lines=True,
        )
    except polars.exceptions.PolarsError as error:
        raise UserError(f"{name} is not a GTF or GFF3 file: {str(error).splitlines()[0]}") from None
    frame = frame.drop_nulls(["chrom"]).with_columns(col("attributes").fill_null(""))
    numbered = frame.with_columns(col("start", "end").cast(polars.Int64, strict=False))
    ordered = numbered.select((col("start") <= col("end")).fill_null(False)).to_series()
    wrong = frame.filter(~ordered)
    if len(wrong):
        row = wrong.row(0, named=True)
        raise UserError(
            f"{name}: a feature on {row['chrom']} goes from {row['start']} to {row['end']}: these "
            "are two positions, counted from 1, of which the first is not the larger one"
        )
    return numbered.with_columns(start=col("start") - 1)


def _of_gtf(features: polars.DataFrame) -> polars.DataFrame:
    def value(key: str) -> polars.Expr:
        found = col("attributes").str.extract(rf'(?:^|;)\s*{key}\s+"?([^";]*)"?')
        return polars.when(found.str.strip_chars() == "").then(None).otherwise(found)

    gene = value("gene_id")
    return features.select(
        "chrom",
        "type",
        "start",
        "end",
        "strand",
        gene_id=gene,
        gene=polars.coalesce(value("gene_name"), value("gene"), gene),
        transcript=value("transcript_id"),
    )


def _of_gff3(features: polars.DataFrame) -> polars.DataFrame:
    def value(key: str) -> polars.Expr:
        return col("attributes").str.extract(rf"(?:^|;)\s*{key}=([^;]*)")

    rows = features.select(
        "chrom",
        "type",
        "start",
        "end",
        "strand",
        id=value("ID"),
        parent=value("Parent").str.split(",").list.first(),
        name=polars.coalesce(value("Name"), value("gene_name"), value("gene")),
    )
    is_gene = col("type").str.to_lowercase().str.ends_with("gene")
    genes = rows.filter(is_gene & col("id").is_not_null()).unique("id", keep="first")
    genes = genes.select(
        gene_id="id",
        gene=polars.coalesce("name", col("id").str.replace(r"^gene[:-]", "")),
    )
    above = rows.drop_nulls("id").unique("id", keep="first").select(up="id", next="parent")
    rows = rows.with_columns(
        gene_id=polars.when(is_gene).then("id").otherwise("parent"), transcript="parent"
    )
    known = polars.Series(genes["gene_id"])
    for _ in range(_GENERATIONS):
        rows = rows.join(above, left_on="gene_id", right_on="up", how="left", maintain_order="left")
        there = col("gene_id").is_in(known.implode())
        rows = rows.with_columns(gene_id=polars.when(there).then("gene_id").otherwise("next")).drop(
            "next"
        )
    return rows.join(genes, on="gene_id", how="inner", maintain_order="left")


def _annotation(features: polars.DataFrame) -> Annotation:
    kind = col("type").str.to_lowercase()
    of_gene = ["chrom", "gene_id"]
    genes = features.group_by(of_gene, maintain_order=True).agg(
        col("start").min(), col("end").max(), col("strand").first(), col("gene").first()
    )
    is_transcript = (kind == "transcript") | kind.str.ends_with("rna")
    spans = features.filter(is_transcript)
    if "transcript" in features.columns and not len(spans):
        # Files of exons alone: a transcript spans its exons.
        named = features.filter((kind == "exon") & col("transcript").is_not_null())
        spans = named.group_by([*of_gene, "transcript"], maintain_order=True).agg(
            col("start").min(), col("end").max(), col("strand").first(), col("gene").first()
        )
    wanted = ["chrom", "start", "end", "strand", "gene", "gene_id"]
    without = genes.join(spans.select(of_gene).unique(), on=of_gene, how="anti")
    spans = polars.concat([spans.select(wanted), without.select(wanted)])
    position = polars.when(col("strand") == "-").then(col("end") - 1).otherwise("start")
    sites = spans.select("chrom", position.alias("position"), "strand", "gene").unique()
    parts = features.filter(col("type").is_in(list(_PARTS)))
    # A gene of which no part is known is one exon: in files of genes alone, and for many tRNAs.
    bare = genes.join(parts.select(of_gene).unique(), on=of_gene, how="anti")
    region = col("type").replace_strict(_PARTS).alias("region")
    order = ["chrom", "start", "end", "region", "gene"]
    whole = bare.with_columns(region=polars.lit("exon")).select(order)
    parts = polars.concat([parts.with_columns(region).select(order), whole])
    return Annotation(
        genes.select("chrom", "start", "end", "strand", "gene"), sites, parts.unique()
    )
