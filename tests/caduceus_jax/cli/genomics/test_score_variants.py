"""`caduceus-jax score-variants`: every kind of file, before and after errors and interruptions."""

import os

import numpy as np
import polars
import pytest

import caduceus_jax as cj
from caduceus_jax import CaduceusForMaskedLM, UserError
from caduceus_jax.cli.genomics.score_variants import score_variants as command
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.files.vcf import read_vcf
from caduceus_jax.genomics.options import VariantScoring
from caduceus_jax.genomics.reference.genome import Genome
from caduceus_jax.model.files.task import TaskDescription
from tests.genomes import COMPLEMENT, drawn, other, write_vcf
from tests.genomes import VCF_HEADER as HEADER
from tests.genomes import genome as write_genome
from tests.models import classifier, language_model
from tests.variants import make, score

LENGTHS = {"chr1": 200, "chr2": 90}
CONTEXT = 31


@pytest.fixture(scope="module")
def sequences() -> dict[str, str]:
    return drawn(LENGTHS, unknown=120)


@pytest.fixture
def genome(tmp_path, sequences) -> Genome:
    return write_genome(tmp_path / "genome.fa", sequences)


def build(rcps: bool) -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=2, rcps=rcps, initializer_range=1.0)


@pytest.fixture(scope="module")
def ps() -> CaduceusForMaskedLM:
    return build(rcps=True)


@pytest.fixture
def folder(tmp_path, ps) -> str:
    ps.save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


def info(line: str) -> dict[str, str]:
    fields = line.split("\t")[7].split(";")
    return {key: value for key, _, value in (field.partition("=") for field in fields)}


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz"])
def test_command_writes_a_vcf(tmp_path, folder, genome, sequences, capsys, name):
    pysam = pytest.importorskip("pysam")
    chr1 = sequences["chr1"]
    at = {p: chr1[p] for p in (50, 80)}
    path = write_vcf(
        tmp_path / "in.vcf",
        f"1\t81\tb\t{at[80]}\t{other(at[80])},<DEL>,{other(at[80], 2)}\t5\tPASS\tDP=7",
        f"1\t51\ta\t{at[50]}\t.\t.\t.\t.",
        f"1\t51\tc\t{at[50]}\t{other(at[50])}\t.\t.\t.",
    )
    out = tmp_path / name
    words = ["score-variants", folder, str(path), "--genome", str(genome.path), "--out", str(out)]
    assert main([*words, "--context-length", str(CONTEXT)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"variants: 3 ok, 1 symbolic, 1 missing_alt; written to {out}"
    rows = [("chr1", p, at[p], other(at[p], i)) for p, i in ((80, 1), (80, 2), (50, 1))]
    model = CaduceusForMaskedLM.from_pretrained(folder)
    expected = score(model, make(*rows), genome, context_length=CONTEXT).llr
    with pysam.VariantFile(str(out)) as file:
        assert file.header.info["CADUCEUS_LLR"].number == "A"
        records = list(file)
    assert [(r.pos, r.id, r.alts) for r in records] == [
        (81, "b", (other(at[80]), "<DEL>", other(at[80], 2))),
        (51, "a", None),
        (51, "c", (other(at[50]),)),
    ]
    assert records[0].info["DP"] == ("7",) or records[0].info["DP"] == "7"
    llr = records[0].info["CADUCEUS_LLR"]
    assert llr[1] is None
    np.testing.assert_allclose([llr[0], llr[2]], expected[:2], atol=1e-5)
    assert records[0].info["CADUCEUS_STATUS"] == ("ok", "symbolic", "ok")
    assert "CADUCEUS_LLR" not in records[1].info
    assert records[1].info["CADUCEUS_STATUS"] == ("missing_alt",)
    np.testing.assert_allclose(records[2].info["CADUCEUS_LLR"], expected[2:], atol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_an_old_index_is_gone_before_the_new_file_is_there(tmp_path, folder, genome, monkeypatch):
    """Whenever a run is killed, no index lies beside a file that is not its own."""
    path = write_vcf(tmp_path / "in.vcf", "1\t51\ta\tA\t.\t.\t.\t.")
    out, old = tmp_path / "out.vcf.gz", tmp_path / "out.vcf.gz.tbi"
    old.write_text("of yesterday")
    replace, seen = os.replace, []

    def spy(source, target):
        if target == out:
            seen.append(old.exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    words = ["score-variants", folder, str(path), "--genome", str(genome.path), "--out", str(out)]
    assert main([*words, "--context-length", str(CONTEXT)]) == 0
    assert seen == [False] and out.exists() and not old.exists()


@pytest.mark.parametrize("form", ["vcf", "bcf"])
def test_structural_variants_keep_their_lines(tmp_path, folder, genome, sequences, form):
    chr1 = sequences["chr1"]
    first, unit = chr1[50], chr1[51:56]
    lines = [
        f"chr1\t51\ta\t{first}\t<DEL>,{first}{unit}\t5\tPASS\tSVLEN=-5,.;DP=7;END=56",
        "chr1\t51\tb\tN\t<DUP:TANDEM>\t.\t.\tEND=56",
        f"chr1\t51\tc\t{first}\t<INV>\t.\t.\tEND=56;SVLEN=0",
        f"chr1\t51\td\t{first}\t<INS>\t.\t.\tSEQ=GGG;END=51",
        f"chr1\t51\te\t{first}\t<DEL>\t.\t.\tEND=99",
        f"chr1\t51\tf\t{first}\t{first}[chr1:99[\t.\t.\t.",
    ]
    path = write_vcf(tmp_path / "in.vcf", *lines)
    if form == "bcf":
        pysam = pytest.importorskip("pysam")
        whole = "Number=A,Type=Integer"
        one = "Number=1,Type=Integer"
        types = {"SVLEN": whole, "DP": one, "END": one, "SEQ": "Number=A,Type=String"}
        added = "".join(f'##INFO=<ID={k},{v},Description="">\n' for k, v in types.items())
        added += "##contig=<ID=chr1,length=200>\n"
        path.write_text(path.read_text().replace("#CHROM", added + "#CHROM"))
        with pysam.VariantFile(str(path)) as source:
            with pysam.VariantFile(str(tmp_path / "in.bcf"), "wb", header=source.header) as file:
                for record in source:
                    file.write(record)
        path = tmp_path / "in.bcf"
    out = tmp_path / "out.vcf"
    words = ["score-variants", folder, str(path), "--genome", str(genome.path), "--out", str(out)]
    words += ["--mode", "embedding", "--window", "15", "--context-length", str(CONTEXT)]
    assert main(words) == 0
    found = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    added = ("CADUCEUS_", ".")
    left = [
        "\t".join([*columns[:7], ";".join(f for f in columns[7].split(";") if f[:9] not in added)])
        for columns in (line.split("\t") for line in found)
    ]
    assert left == [line if not line.endswith("\t.") else line[:-1] for line in lines]
    statuses = [info(line)["CADUCEUS_STATUS"] for line in found]
    assert statuses == ["ok,ok", "ok", "ok", "ok", "too_long", "symbolic"]
    spelt = make(
        ("chr1", 50, first + unit, first),
        ("chr1", 50, first, first + unit),
        ("chr1", 50, first + unit, first + unit.translate(COMPLEMENT)[::-1]),
        ("chr1", 50, first, first + "GGG"),
    )
    same = {"mode": "embedding", "window": 15, "context_length": CONTEXT}
    model = CaduceusForMaskedLM.from_pretrained(folder)
    expected = [f"{v:.6g}" for v in cj.score_variants(model, spelt, genome, **same)["l2"]]
    # A doubled stretch is that stretch inserted.
    l2 = [info(line).get("CADUCEUS_L2", "").split(",") for line in found]
    assert l2[0] == [expected[0], expected[1]]
    assert [l2[1], l2[2], l2[3]] == [[expected[1]], [expected[2]], [expected[3]]]
    assert l2[4] == l2[5] == [""]


def test_command_writes_parquet(tmp_path, folder, genome, sequences):
    ref = sequences["chr1"][50]
    path = write_vcf(
        tmp_path / "in.vcf",
        f"chr1\t51\t.\t{ref}\t{other(ref)},{ref}A\t.\t.\t.",
        f"chr1\t51\t.\t{ref}\t.\t.\t.\t.",
    )
    out = tmp_path / "out.parquet"
    command(
        folder,
        str(path),
        genome=str(genome.path),
        out=out,
        options=VariantScoring(context_length=CONTEXT),
    )
    frame = polars.read_parquet(out)
    model = CaduceusForMaskedLM.from_pretrained(folder)
    rows = make(("chr1", 50, ref, other(ref)))
    (expected,) = score(model, rows, genome, context_length=CONTEXT).llr.tolist()
    assert frame.columns == ["chrom", "pos", "ref", "alt", "status", "llr"]
    assert frame.rows() == [
        ("chr1", 51, ref, other(ref), "ok", pytest.approx(expected, abs=1e-5)),
        ("chr1", 51, ref, f"{ref}A", "indel", None),
        ("chr1", 51, ref, None, "missing_alt", None),
    ]


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz", "out.parquet"])
def test_no_record_in_no_record_out(tmp_path, folder, genome, capsys, name):
    path = write_vcf(tmp_path / "in.vcf")
    out = tmp_path / name
    assert (
        main(["score-variants", folder, str(path), "--genome", str(genome.path), "--out", str(out)])
        == 0
    )
    assert capsys.readouterr().err == f"variants: none; written to {out}\n"
    if name.endswith("parquet"):
        assert polars.read_parquet(out).shape == (0, 6)
    else:
        assert read_vcf(out).alt == []


def test_variants_that_are_not_on_the_genome_are_written_and_status_2(
    tmp_path, folder, genome, capsys
):
    path = write_vcf(
        tmp_path / "in.vcf", "chr9\t5\t.\tA\tC\t.\t.\t.", "chr1\t201\t.\tA\tC\t.\t.\t."
    )
    out = tmp_path / "out.vcf"
    words = ["score-variants", folder, str(path), "--genome", str(genome.path), "--out", str(out)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"variants: 1 unknown_chrom, 1 out_of_range; written to {out}\n"
        f"caduceus-jax score-variants: 2 of 2 variants are not on {genome.path}, first chr9:5: "
        f"they have the status unknown_chrom or out_of_range in {out}; --skip-bad accepts that\n"
    )
    lines = out.read_text().splitlines()
    assert [info(line)["CADUCEUS_STATUS"] for line in lines[-2:]] == [
        *("unknown_chrom", "out_of_range")
    ]
    assert main([*words, "--skip-bad"]) == 0


def test_outputs_that_cannot_be_written_are_refused_at_once(tmp_path, genome, capsys):
    path = write_vcf(tmp_path / "in.vcf")
    words = ["score-variants", "no-model", str(path), "--genome", str(genome.path), "--out"]
    cases = {
        tmp_path / "out.csv": (
            "the name must end in .vcf or .vcf.gz or .parquet or .tsv or .tsv.gz"
        ),
        tmp_path / "no" / "out.vcf": f"{tmp_path / 'no'} is not a directory",
    }
    for out, says in cases.items():
        assert main([*words, str(out)]) == 2
        assert capsys.readouterr().err == (
            f"caduceus-jax score-variants: cannot write {out}: {says}\n"
        )
    assert main([*words, str(path)]) == 2
    assert capsys.readouterr().err == (
        f"caduceus-jax score-variants: {path} is the input: choose another name for the output\n"
    )
    assert path.read_text() == HEADER


def test_an_error_leaves_the_earlier_output_alone(tmp_path, folder, genome, monkeypatch):
    path, out = write_vcf(tmp_path / "in.vcf"), tmp_path / "out.vcf"
    out.write_text("of yesterday")

    def fail(source, partial, *args, **kwargs):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("caduceus_jax.cli.genomics.score_variants.write_vcf", fail)
    with pytest.raises(UserError, match="out.vcf cannot be written: No space left on device$"):
        command(folder, str(path), genome=str(genome.path), out=out)
    assert out.read_text() == "of yesterday"
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.fixture
def classifier_folder(tmp_path) -> str:
    model = classifier(num_labels=2, d_model=8, n_layer=1, d_state=4)
    model.task = TaskDescription(labels=("a b", "a-b"), max_length=40)
    model.save_pretrained(str(tmp_path / "classifier"))
    return str(tmp_path / "classifier")


def test_a_fine_tuned_model_writes_what_changes(
    tmp_path, classifier_folder, folder, genome, sequences, capsys
):
    chr1 = sequences["chr1"]
    rows = [(p, chr1[p - 1], other(chr1[p - 1])) for p in (60, 70)]
    path = write_vcf(
        tmp_path / "in.vcf", *(f"chr1\t{p}\t.\t{r}\t{a},<DEL>\t.\t.\tDP=7" for p, r, a in rows)
    )
    out, table = tmp_path / "out.vcf", tmp_path / "out.tsv"
    words = ["score-variants", classifier_folder, str(path), "--genome", str(genome.path)]
    assert main([*words, "--out", str(table)]) == 0
    said = capsys.readouterr().err
    assert "the model sees 40 bases at a time" in said
    expected = cj.score_variants(cj.load(classifier_folder), path, genome, context_length=40)
    columns = ["difference_p_a b", "log_odds_ratio_a b", "difference_p_a-b", "log_odds_ratio_a-b"]
    assert expected.columns[5:] == columns
    found = polars.read_csv(table, separator="\t")
    np.testing.assert_allclose(found[columns[1]][0], expected[columns[1]][0], atol=1e-6)
    assert main([*words, "--out", str(out)]) == 0
    lines = [line for line in out.read_text().splitlines() if not line.startswith("##")]
    first = info(lines[1])
    assert first["CADUCEUS_STATUS_OUTPUT"] == first["CADUCEUS_STATUS"] == "ok,symbolic"
    # Keys that would be equal are told apart.
    for key, column in (("A_B", columns[1]), ("A_B_", columns[3])):
        value, nothing = first[f"CADUCEUS_LOG_ODDS_RATIO_{key}"].split(",")
        np.testing.assert_allclose(float(value), expected[column][0], rtol=1e-4)
        assert nothing == "."
    # Likelihoods of a language model stand beside it.
    again = ["score-variants", folder, str(out), "--genome", str(genome.path), "--context-length"]
    assert main([*again, "31", "--out", str(tmp_path / "both.vcf")]) == 0
    both = info((tmp_path / "both.vcf").read_text().splitlines()[-1])
    assert {"CADUCEUS_LLR", "CADUCEUS_LOG_ODDS_RATIO_A_B", "CADUCEUS_STATUS_OUTPUT"} <= both.keys()


def test_modes_that_do_not_go_with_the_model(tmp_path, classifier_folder, folder, genome, capsys):
    path = write_vcf(tmp_path / "in.vcf")
    out = ["--genome", str(genome.path), "--out", str(tmp_path / "out.tsv")]
    assert main(["score-variants", classifier_folder, str(path), *out, "--mode", "llr"]) == 2
    assert "--mode is llr, which reads a language-model head" in capsys.readouterr().err
    assert main(["score-variants", folder, str(path), *out, "--mode", "output"]) == 2
    assert "--mode is output, which is for fine-tuned models" in capsys.readouterr().err
    assert main(["score-variants", classifier_folder, str(path), *out, "--rc-mode", "none"]) == 2
    assert "--rc-mode is for language models" in capsys.readouterr().err


def test_no_file_is_read_more_often_than_it_must_be(tmp_path, folder, monkeypatch):
    """The records twice, to score and to copy them, and of the genome only what is needed."""
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 4_000_000))
    genome = write_genome(tmp_path / "large.fa", {"chr1": bases})
    records = [f"chr1\t{p + 1}\t.\t{bases[p]}\t{other(bases[p])}\t.\t.\t." for p in (70, 90)]
    without = [f"chr1\t{p}\t.\tA\t.\t.\t.\tX={'x' * 250}" for p in range(100, 20_000)]
    path = write_vcf(tmp_path / "in.vcf", *records, *without)
    read, pread = dict.fromkeys((str(path), str(genome.path)), 0), os.pread

    def counting(descriptor, count, start):
        data = pread(descriptor, count, start)
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name in read:
            read[name] += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    options = VariantScoring(context_length=CONTEXT)
    command(folder, str(path), genome=str(genome.path), out=tmp_path / "a.vcf", options=options)
    # And a buffer of it to find out its kind, and another one for its header.
    assert read[str(path)] <= 2 * path.stat().st_size + 2 * (1 << 20) + 100
    assert read[str(genome.path)] < 100_000
