"""Every example of a manual page is read by the real parser; most are run, with --slow."""

import gzip
import itertools
import pathlib
import shlex
import shutil

import numpy as np
import pysam
import pytest

import caduceus_jax as cj
from caduceus_jax.cli import main
from caduceus_jax.cli.arguments import parse
from caduceus_jax.cli.commands import COMMANDS, signature_of
from tests import annotations
from tests.genomes import VCF_HEADER, fasta, other, write_bed
from tests.models import classifier, language_model

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


def commands(text):
    """The words of each command in an example, `caduceus-jax` left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words):
            if word == "caduceus-jax":
                end = next((j for j in range(i, len(words)) if words[j] in (">", "|")), None)
                yield words[i + 1 : end]


def check(words):
    name, rest = main._split(words)
    assert name in COMMANDS, words
    parse(f"caduceus-jax {name}", signature_of(COMMANDS[name]), rest)
    return name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_manual_page_has_examples_that_parse(name):
    signature = signature_of(COMMANDS[name])
    found = [check(words) for words in commands(signature.examples)]
    assert name in found, f"{name} has no example of itself"
    # None hides outside the block, where nothing would check it.
    assert "caduceus-jax " not in signature.description.replace("`caduceus-jax", "`")


# Examples that need hours, a network, another machine, a GPU or what another command wrote: they
# are only parsed.
PARSED = {
    "pretrain", "finetune", "evaluate", "evaluate eqtl", "evaluate masked", "plan", "runs",
    "bench scan", "bench model", "bench step", "bench data", "merge",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with every file that an example names: small models, genomes, lists."""
    folder = tmp_path_factory.mktemp("desk")
    language_model(d_model=8, n_layer=1, d_state=4).save_pretrained(str(folder / "runs/quickstart"))
    for name in ("splice", "enhancers"):
        model = classifier(num_labels=2, d_model=8, n_layer=1, d_state=4)
        model.save_pretrained(str(folder / f"runs/{name}/seed-1/model"))
    quickstart = str(folder / "runs/quickstart")
    tracks = cj.CaduceusForTracks.from_pretrained(quickstart, num_tracks=1, bin_size=16)
    tracks.save_pretrained(str(folder / "runs/accessibility/seed-1/model"))
    shutil.copy(GOLDEN / "lightning/last.ckpt", folder)
    rng = np.random.default_rng(0)
    # The positions of the examples, on a chr22 that is long enough.
    chr22 = rng.choice(np.frombuffer(b"ACGT", np.uint8), 30_003_000).tobytes().decode()
    for name in ("hg38", "hg19"):
        fasta(folder / f"{name}.fa", chr22=chr22)
    with gzip.open(folder / "hg38.fa.gz", "wt") as file:
        file.write(f">chr22\n{chr22[:5000]}\n")
    for name, contig in (("phage", "phage"), ("promoters", "promoter_7"), ("chrM", "chrM")):
        fasta(folder / f"{name}.fa", **{contig: chr22[:120]})
    fasta(folder / "reads.fa", one=chr22[:60], two=chr22[60:100])
    (folder / "table.csv").write_text(f"bases,label\n{chr22[:60]},1\n")
    for name in ("peaks", "genes", "exons"):
        write_bed(folder / f"{name}.bed", ("chr22", 2000, 2040))
    records = [f"chr22\t{p}\t.\t{chr22[p - 1]}\t{other(chr22[p - 1])}\t.\t.\t." for p in (9, 99)]
    with pysam.BGZFile(str(folder / "calls.vcf.gz"), "w") as file:
        file.write(VCF_HEADER.encode() + "".join(f"{line}\n" for line in records).encode())
    annotations.gtf(folder / "genes.gtf.gz")
    texts = ["gene\tregion\tstatus\tllr", "A\tCDS\tok\t-1.5", "B\tintron\tok\t0.5"]
    (folder / "scored_genes.tsv").write_text("\n".join(texts))
    rows = f"chr22\t99\t{chr22[98]}\t{chr22[98]}A\n"
    (folder / "indels.tsv").write_text(f"chrom\tpos\tref\talt\n{rows}")
    return folder


EXAMPLES = [
    (name, words)
    for name in COMMANDS
    if name not in PARSED
    for words in commands(signature_of(COMMANDS[name]).examples)
    if words[0] == name
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), EXAMPLES, ids=[" ".join(w) for _, w in EXAMPLES])
def test_examples_run(name, words, desk, monkeypatch, run, shapes_unchecked):
    monkeypatch.chdir(desk)
    # What a pipe would bring is in a file here.
    words = ["calls.vcf.gz" if word == "-" else word for word in words]
    status, _, log = run(*words)
    assert status == 0, log
    if "--out" in words:
        paths = itertools.takewhile(
            lambda word: not word.startswith("--"), words[words.index("--out") + 1 :]
        )
        stems = [path.partition(".")[0] for path in paths]
        assert all(list(desk.glob(f"{stem}*")) for stem in stems)
