"""Indexes that do not fit their genome: the scores are those of the right one all the same.

    python -m tests.stress.files.indexes FOLDER

Of a plain and of a bgzip FASTA. Prints a table of Markdown; exit status 1 if a case fails. samtools
and bgzip have to be installed; samtools is asked, too, what it reads with the index that is there
afterwards.
"""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from tests.stress.files.desk import SHORT, head, make, new_folder, row, run

LENGTHS = {"chr1": 91_000, "chr2": 92_000, "chr3": 93_000}
PLACES = range(100, 80_000, 9_000)
ASKED = range(99, 130)  # of chr2, of samtools
Rows = list[list[str]]
Fault = Callable[[pathlib.Path], object]


def drawn(seed: int) -> dict[str, str]:
    """Returns the bases of each contig."""
    rng = np.random.default_rng(seed)
    return {name: "".join(rng.choice(list("ACGT"), n)) for name, n in LENGTHS.items()}


def text_of(contigs: dict[str, str], width: int = 60) -> str:
    """Returns a FASTA file."""
    lines = (
        f">{name} of a test\n"
        + "".join(f"{bases[i : i + width]}\n" for i in range(0, len(bases), width))
        for name, bases in contigs.items()
    )
    return "".join(lines)


def indexed(path: pathlib.Path, text: str) -> pathlib.Path:
    """Writes a FASTA file, compressed if its name says so, and has samtools index it."""
    data = text.encode()
    if path.suffix == ".gz":
        data = subprocess.run(["bgzip", "-c"], input=data, capture_output=True, check=True).stdout
    path.write_bytes(data)
    subprocess.run(["samtools", "faidx", path], check=True, capture_output=True)
    return path


def fai(genome: pathlib.Path) -> pathlib.Path:
    """Returns the index of a genome."""
    return pathlib.Path(f"{genome}.fai")


def gzi(genome: pathlib.Path) -> pathlib.Path:
    """Returns the index of the blocks of a genome."""
    return pathlib.Path(f"{genome}.gzi")


def edited(change: Callable[[Rows], Rows]) -> Fault:
    """Returns a fault that changes the rows of an index."""

    def fault(genome: pathlib.Path) -> None:
        rows = change([line.split("\t") for line in fai(genome).read_text().splitlines()])
        fai(genome).write_text("".join("\t".join(map(str, cells)) + "\n" for cells in rows))

    return fault


def added(which: int, column: int, by: int) -> Fault:
    """Returns a fault that adds to a number of an index."""

    def change(rows: Rows) -> Rows:
        rows[which][column] = str(int(rows[which][column]) + by)
        return rows

    return edited(change)


def of_another(contigs: dict[str, str], width: int = 60) -> Fault:
    """Returns a fault that puts the indexes of another file in place."""

    def fault(genome: pathlib.Path) -> None:
        other = indexed(new_folder(genome.parent.parent) / genome.name, text_of(contigs, width))
        for ending in (fai, gzi):
            if ending(other).exists():
                shutil.copy(ending(other), ending(genome))

    return fault


def written(index: Callable[[pathlib.Path], pathlib.Path], data: bytes) -> Fault:
    """Returns a fault that writes something else in place of an index."""
    return lambda genome: index(genome).write_bytes(data)


def cut(index: Callable[[pathlib.Path], pathlib.Path], count: int) -> Fault:
    """Returns a fault that cuts bytes off the end of an index."""
    return lambda genome: index(genome).write_bytes(index(genome).read_bytes()[:-count])


def aged(index: Callable[[pathlib.Path], pathlib.Path]) -> Fault:
    """Returns a fault that makes an index older than its file."""
    return lambda genome: os.utime(index(genome), (1e9, 1e9))


def faults(contigs: dict[str, str]) -> dict[str, Fault]:
    """Returns the faults of an index of these contigs."""
    crlf = lambda genome: fai(genome).write_bytes(  # noqa: E731
        fai(genome).read_bytes().replace(b"\n", b"\r\n")
    )
    return {
        "missing": lambda genome: fai(genome).unlink(),
        "empty": written(fai, b""),
        "broken": written(fai, bytes(range(256))),
        "cut within a line": cut(fai, 5),
        "cut between lines": edited(lambda rows: rows[:-1]),
        "a contig missing": edited(lambda rows: [rows[0], rows[2]]),
        "a contig too many": edited(lambda rows: [*rows, ["chr9", *rows[-1][1:]]]),
        "of another file": of_another(drawn(1), 70),
        "of the same contigs, other lines": of_another(contigs, 50),
        "renamed": edited(lambda rows: [[cells[0][3:], *cells[1:]] for cells in rows]),
        "names exchanged": edited(
            lambda rows: [[rows[1][0], *rows[0][1:]], [rows[0][0], *rows[1][1:]], rows[2]]
        ),
        "older": aged(fai),
        "offset + 1": added(1, 2, 1),
        "offset - 1": added(1, 2, -1),
        "length + 1": added(2, 1, 1),
        "length - 1": added(1, 1, -1),
        "bases of a line - 1": added(0, 3, -1),
        "bytes of a line + 1": added(0, 4, 1),
        "CRLF": crlf,
        "spaces for tabs": lambda g: fai(g).write_text(fai(g).read_text().replace("\t", " ")),
        ".gzi missing": lambda genome: gzi(genome).unlink(),
        ".gzi empty": written(gzi, b""),
        ".gzi cut": cut(gzi, 7),
        ".gzi without its last block": cut(gzi, 16),
        ".gzi broken": written(gzi, bytes(range(256))),
        ".gzi older": aged(gzi),
    }


def main(folder: pathlib.Path) -> int:
    """Tries all faults; returns the exit status."""
    make(folder, 100)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    contigs, worst = drawn(0), 0
    turned = str.maketrans("ACGT", "CATG")
    records = "".join(
        f"{name}\t{p + 1}\t.\t{bases[p]}\t{bases[p].translate(turned)}\t.\t.\t.\n"
        for name, bases in contigs.items()
        for p in PLACES
    )
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "a.vcf").write_text(f"##fileformat=VCFv4.2\n{columns}{records}")

    def scored(genome: pathlib.Path) -> str:
        out = genome.parent / "out.tsv"
        words = ["score-variants", folder / "lm", folder / "a.vcf", "--genome", genome, *SHORT]
        ended = run([*words, "--out", out])
        return out.read_text() if ended.status == 0 else ended.text

    head("index", "plain FASTA", "bgzip FASTA")
    right = scored(indexed(new_folder(folder) / "a.fa", text_of(contigs)))
    for name, fault in faults(contigs).items():
        cells = []
        for file in ("a.fa", "a.fa.gz"):
            if name.startswith(".gzi") and file == "a.fa":
                cells.append("")
                continue
            genome = indexed(new_folder(folder) / file, text_of(contigs))
            fault(genome)
            same = scored(genome) == right
            asked = f"chr2:{ASKED.start + 1}-{ASKED.stop}"
            told = subprocess.run(
                ["samtools", "faidx", genome, asked], capture_output=True, text=True
            )
            mended = contigs["chr2"][ASKED.start : ASKED.stop] in told.stdout.replace("\n", "")
            worst = max(worst, not (same and mended))
            cells.append("right" if same and mended else f"WRONG {told.stderr}")
        row(name, *cells)
    return worst


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
