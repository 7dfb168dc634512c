"""Phased variants: a haplotype's changes scored together are one change."""

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax import UserError
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.scoring import journal
from tests.genomes import drawn, other, reverse_complement
from tests.genomes import genome as write_genome
from tests.models import kinds, language_model

CHR1 = drawn({"chr1": 160}, unknown=150)["chr1"][:140]
HEADER = (
    "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tmother\tchild\n"
)
OPTIONS = {"context_length": 31, "window": 11, "batch_size": 4}
NAMES = {"llr": ["llr"], "pll": ["pllr"], "embedding": ["l2", "cosine"]}


@pytest.fixture(scope="module")
def m():
    model = language_model(d_model=8, n_layer=1, rcps=True, initializer_range=1.0)
    return cj.Pretrained(model, cj.Tokenizer())


@pytest.fixture
def genome(tmp_path):
    return write_genome(tmp_path / "genome.fa", {"chr1": CHR1})


@pytest.fixture
def vcf(tmp_path):
    def write(*rows, name="a.vcf"):
        lines = []
        for position, ref, alt, child, *more in rows:
            columns = ["chr1", str(position + 1), ".", ref, alt, ".", ".", "."]
            keys = more[0] if more else "GT"
            lines.append("\t".join([*columns, keys, "0/0", child]) + "\n")
        path = tmp_path / name
        path.write_text(HEADER + "".join(lines))
        return str(path)

    return write


def phased(m, path, genome, mode="pll", **more):
    given = {**OPTIONS, "phased": True, "sample": "child", **more}
    return cj.score_variants(m, path, genome, mode, **given)


def snv(position, *genotype, steps=1):
    base = CHR1[position]
    return (position, base, other(base, steps), *genotype)


@pytest.mark.parametrize("mode", NAMES)
def test_changes_of_a_haplotype_are_one_change(m, genome, vcf, mode):
    rows = [snv(40, "0|1"), snv(43, "1|0"), snv(45, "1|1"), snv(47, "0|1", steps=2), snv(90, "1|0")]
    found = phased(m, vcf(*rows), genome, mode)
    assert found["status"].to_list() == ["ok"] * 5

    def joined(*rows):
        first, last = rows[0][0], rows[-1][0] + 1
        alt = list(CHR1[first:last])
        for position, _, new, _ in rows:
            alt[position - first] = new
        return ("chr1", first + 1, CHR1[first:last], "".join(alt))

    spelt = [joined(rows[1], rows[2]), joined(rows[0], rows[2], rows[3]), joined(rows[4])]
    expected = cj.score_variants(m, spelt, genome, mode, **OPTIONS)
    for name in NAMES[mode]:
        one, two, alone = expected[name].to_list()
        sides = [found[f"{name}_haplotype_{i}"].to_numpy().astype(float) for i in (1, 2)]
        none = np.nan
        np.testing.assert_allclose(sides[0], [none, one, one, none, alone], atol=1e-6)
        np.testing.assert_allclose(sides[1], [two, none, two, two, none], atol=1e-6)
        assert min(abs(one - two), abs(one - alone), abs(two - alone)) > 1e-4


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_insertions_and_deletions_are_joined(m, genome, vcf, mode):
    rows = [
        (40, CHR1[40], CHR1[40] + "GG", "0|1"),
        snv(43, "0|1"),
        (45, CHR1[45:48], CHR1[45], "0|1"),
    ]
    found = phased(m, vcf(*rows), genome, mode)
    alt = CHR1[40] + "GG" + CHR1[41:43] + other(CHR1[43]) + CHR1[44:46]
    spelt = cj.score_variants(m, [("chr1", 41, CHR1[40:48], alt)], genome, mode, **OPTIONS)
    for name in NAMES[mode]:
        one = found[f"{name}_haplotype_2"].to_list()
        assert one == [one[0]] * 3 and one[0] == pytest.approx(spelt[name][0], abs=1e-5)
    masked = phased(m, vcf(*rows), genome, "llr")
    assert masked["status"].to_list() == ["indel"] * 3  # the substitution is not alone


@pytest.mark.parametrize("mode", NAMES)
def test_what_stands_alone_has_the_score_that_it_has_without_phase(m, genome, vcf, mode):
    rows = [snv(20, "1|1"), snv(60, "1/1"), snv(100, "1"), snv(120, "0|1")]
    found = phased(m, vcf(*rows), genome, mode)
    usual = cj.score_variants(m, vcf(*rows), genome, mode, **OPTIONS)
    for name in NAMES[mode]:
        a, b, c, d = usual[name].to_list()
        sides = [found[f"{name}_haplotype_{i}"].to_numpy().astype(float) for i in (1, 2)]
        np.testing.assert_allclose(sides, [[a, b, c, np.nan], [a, b, np.nan, d]], atol=1e-6)


def test_statuses(m, genome, vcf):
    table = [
        (snv(20, "0/1"), "unphased"),
        (snv(22, "./."), "unphased"),
        (snv(24, "."), "unphased"),
        (snv(26, ".|1"), "unphased"),
        (snv(28, "0|1|1"), "unphased"),
        (snv(30, "7", "DP"), "unphased"),
        (snv(32, "0|0"), "not_carried"),
        (snv(34, "0|2"), "not_carried"),
        ((36, CHR1[36], f"{other(CHR1[36])},{other(CHR1[36], 2)}", "2|0"), "not_carried"),
        (None, "ok"),
        ((50, CHR1[50:54], CHR1[50], "1|0"), "conflict"),
        (snv(52, "1|0"), "conflict"),
        (snv(53, "0|1"), "ok"),
        ((70, CHR1[70], "*", "1|0"), "spanning_deletion"),
        ((72, other(CHR1[72]), CHR1[72], "1|0"), "ref_mismatch"),
        (snv(134, "1|0"), "ok"),
        ((150, "A", "C", "1|0"), "out_of_range"),
        ((90, CHR1[90], CHR1[90] + "ACGTACGTACGT", "1|0"), "too_long"),
    ]
    rows = [row for row, _ in table if row is not None]
    found = phased(m, vcf(*rows), genome, max_ref_mismatch=0.5)
    assert found["status"].to_list() == [status for _, status in table]
    scored = found.select("^pllr.*$").to_numpy()
    assert (~np.isnan(scored.astype(float))).any(axis=1).tolist() == [s == "ok" for _, s in table]


def test_phase_sets_and_windows_part_what_is_joined(m, genome, vcf):
    def scored(*rows):
        return phased(m, vcf(*rows), genome)["pllr_haplotype_1"].to_list()

    near = [snv(40, "1|0"), snv(44, "1|0"), snv(50, "1|0"), snv(51, "1|0")]
    assert len(set(scored(*near[:2]))) == 1
    # 11 bases, no more; and 12 are parted at the wider gap.
    assert len(set(scored(*near[:3]))) == 1
    a, b, c, d = scored(*near)
    assert a == b and c == d and a != c
    # Gaps of the same width are parted alike.
    assert len(set(scored(snv(40, "1|0"), snv(47, "1|0"), snv(54, "1|0")))) == 3
    sets = [snv(40, "1|0:7", "GT:PS"), snv(44, "1|0:8", "GT:PS")]
    assert len(set(scored(*sets))) == 2
    sets = [snv(40, "1|0:7", "GT:PS"), snv(44, "1|0:7", "GT:PS"), snv(46, "1|1", "GT:PS")]
    assert len(set(scored(*sets))) == 1


@pytest.mark.parametrize("mode", ["pll", "embedding"])
def test_both_strands_score_alike(m, genome, tmp_path, vcf, mode):
    turned = reverse_complement(CHR1)
    size, here, there = len(CHR1), [], []
    changes = [(40, 1, "1|0"), (43, 1, "1|1"), (45, 2, "0|1"), (47, 1, "0|1"), (90, 3, "0|1")]
    for start, count, genotype in changes:
        old = CHR1[start : start + count]
        if count == 1:
            here.append((start, old, other(old), genotype))
            new = reverse_complement(other(old))
            there.append((size - start - 1, reverse_complement(old), new, genotype))
        else:
            here.append((start - 1, CHR1[start - 1] + old, CHR1[start - 1], genotype))
            at = size - start - count - 1
            there.append((at, turned[at : at + count + 1], turned[at], genotype))
    one = phased(m, vcf(*here), genome, mode)
    mirror = write_genome(tmp_path / "turned.fa", {"chr1": turned})
    two = phased(m, vcf(*there[::-1], name="b.vcf"), mirror, mode)[::-1]
    assert one["status"].to_list() == two["status"].to_list() == ["ok"] * 5
    for name in one.columns[5:]:
        left, right = (f[name].to_numpy().astype(float) for f in (one, two))
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_refusals(m, genome, vcf, tmp_path):
    path = vcf(snv(40, "1|0"))
    with pytest.raises(UserError, match="has no sample father; it has mother, child"):
        phased(m, path, genome, sample="father")
    with pytest.raises(UserError, match="phased goes with neither scores nor null"):
        phased(m, path, genome, "llr", null="matched")
    with pytest.raises(UserError, match="phased goes with neither scores nor null"):
        phased(m, path, genome, "llr", scores=tmp_path / "a.zarr")
    with pytest.raises(UserError, match="phased needs the genotypes of a VCF, which variants"):
        phased(m, ["chr1:41:A>C"], genome)
    with pytest.raises(UserError, match="sample is for phased variants"):
        phased(m, path, genome, phased=False)
    alone = tmp_path / "alone.vcf"
    lines = [line.split("\t")[:8] for line in (HEADER.splitlines()[1], "chr1\t1\t.\tA\tC\t.\t.\t.")]
    alone.write_text(HEADER.splitlines()[0] + "\n" + "".join("\t".join(x) + "\n" for x in lines))
    with pytest.raises(UserError, match="has no samples"):
        phased(m, str(alone), genome, sample=None)
    # The first sample is the default: it has none of these.
    assert phased(m, path, genome, sample=None)["status"].to_list() == ["not_carried"]


def test_outputs_of_fine_tuned_models(genome, vcf):
    tuned = cj.Pretrained(kinds()["classifier"], cj.Tokenizer())
    path = vcf(snv(40, "0|1"), snv(43, "0|1"))
    how = {"context_length": 20, "phased": True, "sample": "child"}
    found = cj.score_variants(tuned, path, genome, **how)  # the window is the context at most
    alt = other(CHR1[40]) + CHR1[41:43] + other(CHR1[43])
    spelt = cj.score_variants(tuned, [("chr1", 41, CHR1[40:44], alt)], genome, context_length=20)
    for name in spelt.columns[5:]:
        value = pytest.approx(spelt[name][0], abs=1e-5)
        assert found[f"{name}_haplotype_2"].to_list() == [value, value]
        assert found[f"{name}_haplotype_1"].to_list() == [None, None]


@pytest.fixture
def words(tmp_path, m, genome, vcf):
    m.model.save_pretrained(str(tmp_path / "lm"))
    multiple = (12, CHR1[12], f"{other(CHR1[12])},{other(CHR1[12], 2)}", "2|1:9", "GT:GQ")
    near = [snv(p, "1|0" if p % 3 else "0|1") for p in range(20, 120, 2)]
    path = vcf(multiple, *near, snv(121, "0/1"))
    options = ["--window", "11", "--context-length", "31", "--batch-size", "4", "--phased"]
    return [str(tmp_path / "lm"), path, "--genome", str(genome.path), *options, "--sample", "child"]


@pytest.mark.parametrize("form", ["vcf", "bcf"])
def test_command_writes_both_haplotypes(m, genome, words, tmp_path, form):
    path = words[1]
    expected = phased(m, path, genome, "embedding")
    if form == "bcf":
        pysam = pytest.importorskip("pysam")
        types = "".join(
            f'##FORMAT=<ID={key},Number=1,Type={kind},Description="">\n'
            for key, kind in (("GT", "String"), ("GQ", "Integer"))
        )
        text = (tmp_path / "a.vcf").read_text()
        contig = "##contig=<ID=chr1,length=140>\n"
        (tmp_path / "a.vcf").write_text(text.replace("#CHROM", types + contig + "#CHROM"))
        with pysam.VariantFile(path) as source:
            with pysam.VariantFile(str(tmp_path / "a.bcf"), "wb", header=source.header) as file:
                for record in source:
                    file.write(record)
        words = [words[0], str(tmp_path / "a.bcf"), *words[2:]]
    out = tmp_path / "out.vcf"
    assert main(["score-variants", *words, "--mode", "embedding", "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    head = [line for line in lines if line.startswith("##INFO=<ID=CADUCEUS_L2_HAPLOTYPE_1,")]
    assert len(head) == 1 and head[0].endswith('with REF, of haplotype 1">')
    made = next(line for line in lines if line.startswith("##caduceus_jax"))
    assert 'Phased="True",Sample="child"' in made
    records = [line.split("\t") for line in lines if not line.startswith("#")]
    infos = [dict(f.split("=") for f in r[7].split(";")) for r in records]
    assert records[0][8] == "GT:GQ" and records[0][10] == "2|1:9"
    one, two = (expected[f"l2_haplotype_{i}"].to_list() for i in (1, 2))
    assert infos[0]["CADUCEUS_STATUS"] == "ok,ok"
    assert infos[0]["CADUCEUS_L2_HAPLOTYPE_1"] == f".,{one[1]:.6g}"
    assert infos[0]["CADUCEUS_L2_HAPLOTYPE_2"] == f"{two[0]:.6g},."
    for row, fields in enumerate(infos[1:-1], start=2):
        assert ("CADUCEUS_L2_HAPLOTYPE_1" in fields) == (one[row] is not None)
    assert infos[-1] == {"CADUCEUS_STATUS": "unphased", "CADUCEUS_STATUS_EMBEDDING": "unphased"}
    assert main(["score-variants", *words, "--null", "matched", "--out", str(out)]) == 2


def test_shards_and_continued_runs_are_one_run(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["score-variants", *words, "--mode", "embedding", "--out"]
    assert main([*command, "whole.tsv"]) == 0
    for number in (2, 1, 3):
        assert main([*command, "a.tsv", "--shard", f"{number}/3"]) == 0
    assert main(["merge", *(f"a.tsv.shard-{number}-of-3" for number in (1, 2, 3))]) == 0
    whole = (tmp_path / "whole.tsv").read_bytes()
    assert (tmp_path / "a.tsv").read_bytes() == whole and whole.count(b"\n") == 54
    append, count = journal.Journal.append, []

    def stopping(self, values):
        append(self, values)
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "append", stopping)
    assert main([*command, "b.tsv"]) == 130
    assert main([*command, "b.tsv"]) == 0
    assert (tmp_path / "b.tsv").read_bytes() == whole
