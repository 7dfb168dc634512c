"""`caduceus-jax summarise`, from variants with --gtf to genes and regions."""

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax.cli.main import main
from tests import annotations
from tests.genomes import fasta, other, write_vcf
from tests.models import language_model

POSITIONS = (100, 5051, 5060, 5300, 9100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genes")
    language_model(d_model=8, n_layer=1, d_state=4).save_pretrained(str(folder / "model"))
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 12_000))
    fasta(folder / "a.fa", chr1=bases)
    rows = [f"chr1\t{p}\t.\t{bases[p - 1]}\t{other(bases[p - 1])}\t.\t.\tDP=1" for p in POSITIONS]
    write_vcf(folder / "a.vcf", *rows)
    annotations.gff3(folder / "a.gff3.gz")
    return folder


def words(folder, out) -> list[str]:
    paths = [str(folder / name) for name in ("model", "a.vcf", "a.fa", "a.gff3.gz")]
    model, vcf, genome, gtf = paths
    named = ["score-variants", model, vcf, "--genome", genome, "--gtf", gtf]
    return [*named, "--context-length", "31", "--out", str(out)]


def test_from_a_vcf_to_genes_and_regions(tmp_path, folder, capsys):
    scored, out = tmp_path / "a.tsv", tmp_path / "b.tsv"
    assert main(words(folder, scored)) == 0
    frame = polars.read_csv(scored, separator="\t")
    assert frame.columns[-5:] == ["llr", "gene", "region", "tss_gene", "tss_distance"]
    assert frame["region"].to_list() == ["intergenic", "CDS", "CDS", "intron", "exon"]
    assert frame["gene"].to_list() == ["A", "A", "A", "A", "B"]
    assert frame["tss_distance"].to_list() == [-4901, 50, 59, -201, 400]
    given = cj.score_variants(
        cj.load(folder / "model"),
        folder / "a.vcf",
        folder / "a.fa",
        gtf=folder / "a.gff3.gz",
        context_length=31,
    )
    assert given.drop("llr").equals(frame.drop("llr").cast(given.drop("llr").schema))
    assert main(["summarise", str(scored), "--by", "region", "--out", str(out)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"4 regions; written to {out}"
    found = polars.read_csv(out, separator="\t")
    assert found["region"].to_list() == ["CDS", "exon", "intron", "intergenic"]
    assert found["n"].to_list() == [2, 1, 1, 1] and set(found["score"]) == {"llr"}
    np.testing.assert_allclose(found["mean"][0], frame["llr"][1:3].mean(), atol=1e-6)


def test_a_vcf_gets_info_fields(tmp_path, folder):
    out = tmp_path / "a.vcf"
    assert main(words(folder, out)) == 0
    lines = out.read_text().splitlines()
    assert any(line.startswith("##INFO=<ID=CADUCEUS_TSS_DISTANCE,Number=1,") for line in lines)
    second = lines[-4].split("\t")[7]
    assert second.startswith("DP=1;CADUCEUS_LLR=")
    assert "CADUCEUS_GENE=A;CADUCEUS_REGION=CDS;CADUCEUS_TSS_GENE=A;CADUCEUS_TSS_DISTANCE=50" in (
        second
    )


def test_tables_without_genes_are_one_sentence(tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("chrom\tllr\n1\t2\n")
    assert main(["summarise", str(tmp_path / "a.tsv"), "--out", str(tmp_path / "b.tsv")]) == 2
    said = capsys.readouterr().err
    assert "a.tsv has no column gene: score-variants writes it" in said
    assert len(said.splitlines()) == 1
