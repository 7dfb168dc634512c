"""Embeddings of everything that names sequences: a row for each, in its place."""

import numpy as np
import pandas
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax import inference
from caduceus_jax.genomics.options import Embedding
from caduceus_jax.genomics.reference.genome import Genome
from tests.genomes import fasta, reverse_complement, write_bed, write_vcf
from tests.models import classifier, pretrained

D_MODEL = 16


@pytest.fixture(scope="module")
def m() -> cj.Pretrained:
    return pretrained()


@pytest.fixture(scope="module")
def chr1() -> str:
    return "".join(np.random.default_rng(0).choice(list("ACGT"), 100))


@pytest.fixture(scope="module")
def genome(tmp_path_factory, chr1) -> Genome:
    folder = tmp_path_factory.mktemp("genome")
    return Genome(fasta(folder / "genome.fa", chr1=chr1, chr2="ACGT"))


def vectors(frame: polars.DataFrame) -> np.ndarray:
    return frame["embedding"].to_numpy()


def test_a_table_in_a_notebook(tmp_path, m, chr1, genome):
    frame = cj.embed(m, [chr1[:24], chr1[30:54].lower()], rc_mode="none")
    assert frame.drop("embedding").rows() == [("0", 24, "ok"), ("1", 24, "ok")]
    assert frame.schema["embedding"] == polars.Array(polars.Float32, D_MODEL)
    expected = inference.embed(m.model, [chr1[:24], chr1[30:54]], rc_mode="none")
    np.testing.assert_array_equal(vectors(frame), expected)
    bed = write_bed(tmp_path / "a.bed", "chr1\t0\t24\ta", "chr3\t0\t24\tb")
    frame = cj.embed(m, bed, genome=genome, rc_mode="none")
    assert frame["status"].to_list() == ["ok", "unknown_chrom"]
    # In a batch of another size sums may be rounded otherwise.
    np.testing.assert_allclose(frame["embedding"][0].to_numpy(), expected[0], atol=1e-5)
    assert frame["embedding"].is_null().to_list() == [False, True]


def test_regions_in_every_form(tmp_path, m, genome):
    bed = write_bed(tmp_path / "a.bed", "chr1\t10\t34", "chr1\t60\t80")
    columns = {"chrom": ["chr1"] * 2, "start": [10, 60], "end": [34, 80]}
    forms = [
        bed,
        str(bed),
        [cj.Interval("chr1", 10, 34), cj.Interval("chr1", 60, 80)],
        cj.Intervals.of([cj.Interval("chr1", 10, 34), cj.Interval("chr1", 60, 80)]),
        [("chr1", 10, 34), ("chr1", 60, 80)],
        ["chr1:11-34", "chr1:61-80"],
        polars.DataFrame(columns),
        pandas.DataFrame(columns),
        columns,
    ]
    first = cj.embed(m, forms[0], genome=genome)
    assert first.select("chrom", "start", "end").rows() == [("chr1", 10, 34), ("chr1", 60, 80)]
    for form in forms[1:]:
        frame = cj.embed(m, form, genome=str(genome.path))
        np.testing.assert_array_equal(vectors(frame), vectors(first))
    for form in ("chr1:11-34", cj.Interval("chr1", 10, 34)):
        frame = cj.embed(m, form, genome=genome)
        np.testing.assert_allclose(vectors(frame), vectors(first)[:1], atol=1e-5)


def test_variants_in_every_form(tmp_path, m, genome, chr1):
    ref = chr1[49]
    alt = "A" if ref != "A" else "C"
    vcf = write_vcf(tmp_path / "a.vcf", f"chr1\t50\t.\t{ref}\t{alt}\t.\t.\t.")
    columns = {"chrom": ["chr1"], "pos": [50], "ref": [ref], "alt": [alt]}
    forms = [
        vcf,
        cj.Variant("chr1", 50, ref, alt),
        [cj.Variant("chr1", 50, ref, alt)],
        polars.DataFrame(columns),
    ]
    expected = inference.embed(m.model, [chr1[41:58]])
    for form in forms:
        frame = cj.embed(m, form, genome=genome, context_length=17)
        assert frame.select("name", "pos", "window_start").rows() == [("chr1:50", 50, 41)]
        np.testing.assert_allclose(vectors(frame), expected, atol=1e-5)


def test_tables_and_files_of_sequences(tmp_path, m, chr1):
    expected = inference.embed(m.model, [chr1[:24], chr1[30:54]])
    path = fasta(tmp_path / "a.fa", a=chr1[:24], b=chr1[30:54])
    table = polars.DataFrame({"sequence": [chr1[:24], chr1[30:54]], "label": [0, 1]})
    table.write_csv(tmp_path / "a.csv")
    for form in (path, str(path), table, table.to_pandas(), tmp_path / "a.csv"):
        np.testing.assert_array_equal(vectors(cj.embed(m, form)), expected)
    other = table.rename({"sequence": "dna"})
    np.testing.assert_array_equal(vectors(cj.embed(m, other, sequence="dna")), expected)
    with pytest.raises(cj.UserError, match="^the table has no column sequence; it has dna, label"):
        cj.embed(m, other)


@pytest.mark.parametrize("options", [{"rc_mode": "none"}, {"concatenate": True}])
def test_the_other_strand_is_read_from_its_5_prime_end(tmp_path, m, genome, chr1, options, caplog):
    bed = write_bed(tmp_path / "a.bed", "chr1\t10\t33\ta\t0\t-", "chr1\t10\t33\tb\t0\t+")
    frame = cj.embed(m, bed, genome=genome, pooling="center", **options)
    assert frame["strand"].to_list() == ["-", "+"]
    bases = [reverse_complement(chr1[10:33]), chr1[10:33]]
    expected = inference.embed(m.model, bases, pooling="center", **options)
    np.testing.assert_allclose(vectors(frame), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    assert "1 region is on the - strand, which is read from its 5' end" in caplog.messages
    averaged = cj.embed(m, bed, genome=genome)
    assert "strand" not in averaged.columns
    np.testing.assert_array_equal(vectors(averaged)[0], vectors(averaged)[1])


def test_options_are_fields_or_one_value(m, chr1):
    one = cj.embed(m, [chr1], pooling="center", layer=1)
    for frame in (
        cj.embed(m, [chr1], options=Embedding(pooling="center", layer=1)),
        cj.embed(m, [chr1], options=Embedding(pooling="center"), layer=1),
    ):
        np.testing.assert_array_equal(vectors(frame), vectors(one))
    with pytest.raises(TypeError, match="^poling is not an option; there are pooling, window, "):
        cj.embed(m, [chr1], poling="mean")


def test_any_model_embeds(m, chr1):
    for model in (classifier(rcps=True), classifier(rc_mode="posthoc"), m.model):
        frame = cj.embed(model, [chr1])
        expected = inference.embed(model, [chr1])
        np.testing.assert_array_equal(vectors(frame), expected)


def test_nothing_gives_no_row(m, genome):
    for nothing in ([], polars.DataFrame({"sequence": []}, schema={"sequence": polars.String})):
        assert cj.embed(m, nothing).shape[0] == 0
    assert cj.embed(m, [], pooling="none").schema["embedding"] == polars.List(
        polars.Array(polars.Float32, D_MODEL)
    )


def test_what_needs_a_genome_says_so(m, tmp_path):
    with pytest.raises(cj.UserError, match="lies on a genome: pass `genome`, too$"):
        cj.embed(m, [cj.Interval("chr1", 0, 5)])
    with pytest.raises(cj.UserError, match=r"^sequence 1 \(0-based\) is empty$"):
        cj.embed(m, ["ACGT", ""])
    with pytest.raises(cj.UserError, match=r"^sequence 0 \(0-based\) has 9 bases, more than max_l"):
        cj.embed(m, ["ACGTACGTA"], max_length=8)
    with pytest.raises(
        cj.UserError, match="^rc_mode is 'posthoc', which contradicts an equivarian"
    ):
        cj.embed(m, ["ACGT"], rc_mode="posthoc")
