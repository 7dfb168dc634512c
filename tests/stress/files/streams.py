"""Every input of every command, through every stream and in every encoding.

    python -m tests.stress.files.streams FOLDER

The result is the one of a plain file, or the command refuses in one sentence. Prints a table of
Markdown, one line for each input; exit status 1 if a case fails. bgzip has to be installed.
"""

import gzip
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import polars

from tests.stress.files.desk import SHORT, STREAMS, delivered, head, make, new_folder, row, run

DAMAGED = ("empty", "gzip cut short", "bgzip cut short", "bgzip without its end", "a zero byte",
           "UTF-16", "random bytes", "gzip with something behind")  # fmt: skip
FEW = ("path", "cat FILE | -")


class Case(NamedTuple):
    """An input of a command."""

    words: Callable[[str], list[object]]
    text: str
    name: str  # of a file
    ending: str  # of the output


def texts(bases: str) -> dict[str, str]:
    """Returns the content of a file of each kind, each with a letter that is not ASCII."""
    turned = bases.translate(str.maketrans("ACGT", "CATG"))
    places, starts = range(100, 160, 10), range(0, 100, 20)
    changes = [(p + 1, bases[p], turned[p]) for p in places]
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    header = f"##fileformat=VCFv4.2\n##contig=<ID=1,length={len(bases)}>\n{columns}"
    rows = {
        "VCF": (f"1\t{p}\trs{p}\t{a}\t{b}\t.\t.\tN=\xe9x\n" for p, a, b in changes),
        "variants": (f"1\t{p}\t{a}\t{b}\tcaf\xe9\n" for p, a, b in changes),
        "FASTA": (f">s{p} \xe9\n{bases[p:][:20]}\n{bases[p + 20 :][:9]}\n" for p in starts),
        "table": (f"s{p},{bases[p : p + 20]},caf\xe9\n" for p in starts),
        "BED": (f"1\t{p}\t{p + 20}\tn{p}\xe9\t0\t{'+-'[p // 20 % 2]}\n" for p in starts),
        "GTF": (
            f'1\tx\tgene\t{p}\t{p + 30}\t.\t+\t.\tgene_id "g{p}"; gene_name "\xe9{p}";\n'
            for p in (90, 140)
        ),
        "scores": (f"1\t{i}\tA\tC\tok\t{i / 7:.4f}\tg\xe9{i % 2}\tintron\n" for i in range(9)),
    }
    first = {
        "VCF": header,
        "variants": "chrom\tpos\tref\talt\tnote\n",
        "table": "id,sequence,note\n",
        "scores": "chrom\tpos\tref\talt\tstatus\tllr\tgene\tregion\n",
    }
    return {kind: first.get(kind, "") + "".join(lines) for kind, lines in rows.items()}


def cases(folder: pathlib.Path, bases: str) -> dict[str, Case]:
    """Returns all inputs."""
    text = texts(bases)
    of_genome = ["--genome", folder / "genome.fa", *SHORT]
    lm, trained, plain = folder / "lm", folder / "classifier", folder / "plain.vcf"
    plain.write_text(text["VCF"])
    null = ["--null", "matched", "--null-size", "2", "--null-regions"]
    score = ["score-variants", lm]
    found = {
        "score-variants VCF": Case(lambda x: [*score, x, *of_genome], text["VCF"], "a.vcf", ".vcf"),
        "score-variants table": Case(
            lambda x: [*score, x, *of_genome], text["variants"], "a.tsv", ".tsv"
        ),
        "--gtf": Case(
            lambda x: [*score, plain, *of_genome, "--gtf", x], text["GTF"], "a.gtf", ".tsv"
        ),
        "--null-regions BED": Case(
            lambda x: [*score, plain, *of_genome, *null, x], text["BED"], "a.bed", ".tsv"
        ),
        "summarise table": Case(lambda x: ["summarise", x], text["scores"], "a.tsv", ".tsv"),
    }
    for verb, model in (("embed", lm), ("predict", trained), ("attribute", lm)):
        ending = ".parquet" if verb == "embed" else ".tsv"
        for kind, name in (
            ("FASTA", "a.fa"),
            ("table", "a.csv"),
            ("BED", "a.bed"),
            ("VCF", "a.vcf"),
        ):
            more = of_genome if kind in ("BED", "VCF") else []
            found[f"{verb} {kind}"] = Case(
                lambda x, v=verb, m=model, n=more: [v, m, x, *n], text[kind], name, ending
            )
    for verb in ("likelihood", "mutagenesis"):
        found[f"{verb} BED"] = Case(
            lambda x, v=verb: [v, lm, x, *of_genome], text["BED"], "a.bed", ".tsv"
        )
    return found


def forms(text: str) -> dict[str, bytes]:
    """Returns a text in all forms that mean the same, and damaged."""
    plain, crlf, bom = text.encode(), text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf"
    half = len(plain) // 2
    return {
        "plain": plain,
        "BOM": bom + plain,
        "CRLF": crlf,
        "BOM, CRLF": bom + crlf,
        "Latin-1": text.encode("latin-1"),
        "no last line end": plain[:-1],
        "blank lines at the end": plain + b"\n\n",
        "gzip": gzip.compress(plain),
        "bgzip": bgzip(plain),
        "BOM, bgzip": bgzip(bom + plain),
        "CRLF, gzip": gzip.compress(crlf),
        "two members of gzip": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        "empty": b"",
        "gzip cut short": gzip.compress(plain)[:-20],
        "bgzip cut short": bgzip(plain)[:-40],
        "bgzip without its end": bgzip(plain)[:-28],
        "a zero byte": plain[:-9] + b"\0" + plain[-9:],
        "UTF-16": text.encode("utf-16"),
        "random bytes": bytes(range(255, 0, -1)) * 9,
        "gzip with something behind": gzip.compress(plain) + b"junk",
    }


def bgzip(data: bytes) -> bytes:
    """Returns data in blocks of gzip."""
    return subprocess.run(["bgzip", "-c"], input=data, capture_output=True, check=True).stdout


def content(path: pathlib.Path) -> str:
    """Returns what an output has, but for its line ends and the names of inputs."""
    if path.suffix == ".parquet":
        return repr(polars.read_parquet(path).drop("name").rows())
    text = path.read_bytes().replace(b"\r\n", b"\n").decode(errors="replace")
    text = re.sub(r"^.*?(?=:\d+\t)", "", text.replace("\ufffd", "\xe9"), flags=re.MULTILINE)
    return "\n".join(x for x in text.splitlines() if not x.startswith("##caduceus"))


def tried(folder: pathlib.Path, case: Case, form: str, stream: str) -> tuple[str, str]:
    """Runs a case; returns what became of it, and its content or its sentence."""
    here = new_folder(folder)
    out, (path, data) = here / f"out{case.ending}", (here / case.name, forms(case.text)[form])
    if "gzip" in form:
        path = here / f"{case.name}.gz"
    with delivered(stream, data, path) as (word, stdin):
        ended = run([*case.words(word), "--out", out], stdin)
    left = {file.name for file in here.iterdir()} - {out.name, path.name}
    if ended.status == 0 and not left:
        return "result", content(out)
    refused = ended.refused and not out.exists() and not left
    return "refused" if refused else "FAILS", f"{left or ''}{ended.text[-300:]}"


def main(folder: pathlib.Path) -> int:
    """Tries all cases; returns the exit status."""
    bases, worst = make(folder, 400), 0
    head("input", "forms × streams", "the plain result", "damaged", "refused", "fails")
    for name, case in cases(folder, bases).items():
        right, same, refused, fails = "", 0, 0, []
        counts = {False: 0, True: 0}
        for form in forms(case.text):
            damaged = form in DAMAGED and not (form == "empty" and case.name.endswith(".bed"))
            if form == "empty" and not damaged:
                continue
            for stream in FEW if form not in ("plain", "gzip", "bgzip") else STREAMS:
                if form == "empty" and stream != "path":
                    continue  # of a pipe nothing tells what it should have been
                what, told = tried(folder, case, form, stream)
                right = right or told
                counts[damaged] += 1
                good = what == "refused" if damaged else what == "result" and told == right
                same, refused = same + (good and not damaged), refused + (good and damaged)
                if not good:
                    fails.append(f"{form}, {stream}: {what} {told[-200:]!r}")
        row(name, counts[False], same, counts[True], refused, "; ".join(fails))
        worst = max(worst, bool(fails))
    return worst


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
