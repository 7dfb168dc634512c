"""bcftools, tabix and samtools read what is written, and find in it what we wrote."""

import re
import shutil
import subprocess

import numpy as np
import polars
import pytest

from caduceus_jax.cli.main import main
from tests.genomes import genome as write_genome
from tests.genomes import write_vcf
from tests.models import language_model

RNG = np.random.default_rng(0)
BASES = "".join(RNG.choice(list("ACGT"), 3000))
OTHERS = {"A": "C,G", "C": "T", "G": "*,A", "T": "<DEL>"}


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"{name} is not installed: apt-get install {name}"
    return pytest.mark.skipif(shutil.which(name) is None, reason=reason)


def tool(*words) -> str:
    """Runs a tool, and fails on any warning of it."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\[[WE]::|warning|error", done.stderr, re.I), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The folder of a genome, a model and the scores of 24 records, with both modes."""
    folder = tmp_path_factory.mktemp("tools")
    write_genome(folder / "genome.fa", {"chr1": BASES, "chr2": BASES[::-1]})
    language_model(d_model=8, n_layer=1, rcps=True).save_pretrained(str(folder / "model"))
    records = []
    for i, p in enumerate(range(100, 2500, 100)):
        ref = BASES[p : p + (3 if i % 5 == 0 else 1)]
        alt = ref[0] if len(ref) > 1 else OTHERS[ref]
        end = f";END={p + 4}" if alt == "<DEL>" else ""
        records.append(f"chr1\t{p + 1}\trs{i}\t{ref}\t{alt}\t.\tPASS\tDP={i}{end}")
    header = '##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
    header += '##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n'
    header += '##ALT=<ID=DEL,Description="Deletion">\n##contig=<ID=chr1,length=3000>\n'
    header += '##FILTER=<ID=PASS,Description="All filters passed">\n'
    path = write_vcf(folder / "in.vcf", *records)
    kept = path.read_text().splitlines()
    start = next(i for i, line in enumerate(kept) if line.startswith("#CHROM"))
    path.write_text("\n".join([kept[0], header.strip(), *kept[start:]]) + "\n")
    score(folder, "llr", "in.vcf", "out.parquet")
    score(folder, "llr", "in.vcf", "llr.vcf")
    score(folder, "pll", "llr.vcf", "out.vcf")
    score(folder, "pll", "llr.vcf", "out.vcf.gz", "--tabix")
    return folder


def score(folder, mode: str, variants: str, out: str, *more: str) -> None:
    words = ["score-variants", folder / "model", folder / variants, "--mode", mode, *more]
    words += ["--genome", folder / "genome.fa", "--context-length", "31", "--out", folder / out]
    words += ["--window", "7"] if mode == "pll" else []
    assert main([str(word) for word in words]) == 0


def query(path) -> list[list[str]]:
    fields = r"%POS\t%REF\t%ALT\t%INFO/CADUCEUS_LLR\t%INFO/CADUCEUS_STATUS\n"
    return [line.split("\t") for line in tool("bcftools", "query", "-f", fields, path).splitlines()]


def by_allele(scored) -> dict[tuple[int, str], float | None]:
    """What the table says: the llr of each record's position and ALT."""
    table = polars.read_parquet(scored / "out.parquet")
    return {(row["pos"], row["alt"]): row["llr"] for row in table.iter_rows(named=True)}


@needs("bcftools")
def test_bcftools_finds_the_scores_of_the_table(scored):
    expected, seen = by_allele(scored), 0
    for position, _, alts, scores, statuses in query(scored / "out.vcf"):
        alts, scores, statuses = alts.split(","), scores.split(","), statuses.split(",")
        assert len(alts) == len(statuses)
        for alt, score in zip(
            alts, scores if len(scores) == len(alts) else ["."] * 9, strict=False
        ):
            value = expected[int(position), alt]
            assert (score == ".") == (value is None)
            if value is not None:
                seen += 1
                assert float(score) == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert seen == sum(value is not None for value in expected.values()) > 10


@needs("bcftools")
def test_bcftools_sorts_converts_and_splits(scored):
    path, genome = scored / "out.vcf", scored / "genome.fa"
    lines = query(path)
    for words in (
        ["sort", "-Ov", "-o", scored / "sorted.vcf", path],
        ["view", "-Ob", "-o", scored / "out.bcf", path],
        ["view", "-Oz", "-o", scored / "again.vcf.gz", scored / "out.vcf.gz"],
    ):
        tool("bcftools", *words)
        assert query(words[4] if words[0] == "view" else words[3]) == lines
    # One line per ALT, each with its own score.
    tool("bcftools", "norm", "-f", genome, "-o", scored / "aligned.vcf", path)
    assert len(query(scored / "aligned.vcf")) == len(lines)
    tool("bcftools", "norm", "-m", "-any", "-o", scored / "split.vcf", path)
    split = query(scored / "split.vcf")
    assert len(split) == sum(alts.count(",") + 1 for _, _, alts, _, _ in lines)
    expected = by_allele(scored)
    for position, _, alt, score, _ in split:
        value = expected[int(position), alt]
        assert (score == ".") == (value is None)
        assert value is None or float(score) == pytest.approx(value, rel=1e-5, abs=1e-6)
    # What was there before the scores is untouched.
    old = tool("bcftools", "annotate", "-x", "^INFO/DP,INFO/END", path)
    assert [x for x in old.splitlines() if x[0] != "#"] == [
        line for line in (scored / "in.vcf").read_text().splitlines() if line[0] != "#"
    ]


@needs("tabix")
@needs("bcftools")
def test_tabix_finds_regions(scored):
    inside = [line for line in query(scored / "out.vcf") if 500 <= int(line[0]) <= 1200]
    found = tool("tabix", scored / "out.vcf.gz", "chr1:500-1200").splitlines()
    assert [line.split("\t")[1] for line in found] == [line[0] for line in inside]
    assert tool("tabix", "-l", scored / "out.vcf.gz").split() == ["chr1"]


@needs("samtools")
def test_samtools_reads_our_index(scored):
    """Which is written when the genome is opened first."""
    assert (scored / "genome.fa.fai").exists()
    assert (
        "".join(tool("samtools", "faidx", scored / "genome.fa", "chr1:101-180").split()[1:])
        == (BASES[100:180])
    )
