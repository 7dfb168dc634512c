"""GTF and GFF3 files give the same genes."""

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.genes.annotation import read_annotation
from tests import annotations


@pytest.mark.parametrize("name", ["a.gtf", "a.gtf.gz", "a.gff3", "a.gff3.gz"])
def test_genes_sites_and_parts(tmp_path, name):
    write = annotations.gtf if "gtf" in name else annotations.gff3
    found = read_annotation(write(tmp_path / name))
    assert found.genes.select("start", "end", "strand", "gene").rows() == [
        (5000, 6000, "+", "A"),
        (9000, 9500, "-", "B"),
    ]
    sites = found.sites.sort("position").select("position", "strand", "gene").rows()
    assert sites == [(5000, "+", "A"), (5500, "+", "A"), (9499, "-", "B")]
    parts = found.parts.sort("start", "end").select("start", "end", "region", "gene").rows()
    assert parts == [
        (5000, 5050, "UTR", "A"),
        (5000, 5100, "exon", "A"),
        (5050, 5100, "CDS", "A"),
        (5500, 6000, "exon", "A"),
        (5900, 6000, "exon", "A"),
        (9000, 9500, "exon", "B"),
    ]


def test_files_of_parts_alone(tmp_path):
    found = read_annotation(annotations.gtf(tmp_path / "a.gtf", genes=False))
    whole = read_annotation(annotations.gtf(tmp_path / "b.gtf"))
    assert found.genes.equals(whole.genes)
    assert found.sites.sort("position").equals(whole.sites.sort("position"))


def test_names_that_are_missing_or_quoted(tmp_path):
    text = (
        '1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG1"; gene_name "";\n'
        "1\tx\tgene\t21\t29\t.\t-\t.\tgene_id NC_2; note \"has 'quotes'\"\n"
    )
    (tmp_path / "a.gtf").write_text(text)
    found = read_annotation(tmp_path / "a.gtf")
    assert found.genes["gene"].to_list() == ["ENSG1", "NC_2"]
    # Nothing is known of their parts.
    parts = found.parts.sort("start").select("start", "end", "region", "gene").rows()
    assert parts == [(0, 9, "exon", "ENSG1"), (20, 29, "exon", "NC_2")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no features"),
        ("#nothing\n", "has no features"),
        ("chr1\t1\t9\n", "a:1: only 3 of the nine columns"),
        ("1\tx\tgene\ta\t9\t.\t+\t.\tgene_id \"A\"\n", "goes from a to 9"),
        ("1\tx\tgene\t10\t9\t.\t+\t.\tgene_id \"A\"\n", "goes from 10 to 9"),
        ("1\tx\tgene\t1\t9\t.\t+\t.\tcolour \"red\"\n", "a has no genes"),
        ("#\n1\tx\tgene\t1\t9\t.\t+\t.\tgene_id \"A\0\"\n", "a:2: a zero byte: this is not text"),
    ],
)  # fmt: skip
def test_what_is_not_an_annotation_is_one_sentence(tmp_path, text, says):
    (tmp_path / "a").write_text(text)
    with pytest.raises(UserError, match=says):
        read_annotation(tmp_path / "a")
