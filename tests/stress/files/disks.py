"""A disk that fills at random bytes, for every format of every command.

    python -m tests.stress.files.disks FOLDER [files | disk]

`files`: no file may be larger than a random number of bytes, which is where a write fails. `disk`:
a file system in memory has that many bytes left; it needs `unshare -m` and root, in which this
starts itself again. Each time there is one sentence, the old file is as it was, and nothing else is
left but the journal, from which the same command makes the whole file afterwards. Prints a table of
Markdown; exit status 1 if a case fails.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np

from tests.disks import files_of_at_most
from tests.stress.files.desk import SHORT, head, make, new_folder, row, run

POSITIONS = 20
OLD = b"of yesterday"
_DISK = 16 << 20  # bytes
_TIMED = (".png", ".svg")  # each has the time at which it was written, or random names
FORMATS = {
    "score-variants": (".vcf", ".vcf.gz", ".tsv", ".tsv.gz", ".parquet"),
    "embed": (".parquet", ".npz", ".h5", ".h5ad"),
    "predict": (".tsv", ".tsv.gz", ".parquet"),
    "likelihood": (".bw", ".tsv", ".parquet", ".zarr"),
    "mutagenesis": (".tsv", ".bw", ".png", ".svg"),
    "attribute": (".tsv", ".npz", ".bw", ".parquet"),
    "summarise": (".tsv", ".tsv.gz", ".parquet"),
}


def commands(folder: pathlib.Path) -> dict[str, list[object]]:
    """Returns the words of each command, but for its output."""
    bases = make(folder, 3000)
    turned = bases.translate(str.maketrans("ACGT", "CATG"))
    vcf, bed, table = (folder / name for name in ("a.vcf", "a.bed", "a.tsv"))
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    places = range(100, 2900, 2)
    records = (f"1\t{p + 1}\trs{p}\t{bases[p]}\t{turned[p]}\t.\t.\tN={p * p}\n" for p in places)
    vcf.write_text(f"##fileformat=VCFv4.2\n{columns}{''.join(records)}")
    bed.write_text("".join(f"1\t{p}\t{p + 9}\n" for p in range(0, 2900, 3)))
    scores = (f"1\t{i}\tA\tC\tok\t{i / 7:.4f}\tg{i // 2}\tintron\n" for i in range(2000))
    header = "chrom\tpos\tref\talt\tstatus\tllr\tgene\tregion\n"
    table.write_text(f"{header}{''.join(scores)}")
    of_genome = ["--genome", folder / "genome.fa", *SHORT]
    return {
        "score-variants": ["score-variants", folder / "lm", vcf, *of_genome],
        "embed": ["embed", folder / "lm", bed, *of_genome],
        "predict": ["predict", folder / "classifier", bed, *of_genome],
        "likelihood": ["likelihood", folder / "lm", "1:1-900", *of_genome],
        "mutagenesis": ["mutagenesis", folder / "lm", "1:1-150", *of_genome],
        "attribute": ["attribute", folder / "lm", bed, *of_genome],
        "summarise": ["summarise", table],
    }


def content(path: pathlib.Path) -> bytes:
    """Returns all bytes of a file, or of the files of a folder; none where there is nothing."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
    return b"".join(file.read_bytes() for file in files if file.is_file())


def failed(words: list[object], out: pathlib.Path, most: int, disk: bool) -> list[str]:
    """Runs a command where so many bytes fit; returns what is wrong with how it ends."""
    before, there = content(out), {file.name for file in out.parent.iterdir()}
    filler = out.parent / "filler"
    if disk:
        left = os.statvfs(out.parent)
        filler.write_bytes(b"\1" * max(left.f_bavail * left.f_frsize - most, 0))
        ended = run(words)
        filler.unlink()
    else:
        with files_of_at_most(most):
            ended = run(words)
    wrong = []
    if ended.status == 0 and out.suffix == ".zarr":  # its files are small: it may fit
        shutil.rmtree(out)
        return []
    if not ended.refused or "cannot be" not in ended.sentences[0]:
        wrong.append(f"status {ended.status}: {ended.text[-300:]!r}")
    if content(out) != before and out.suffix != ".zarr":
        wrong.append("the old file is changed")
    if left := {file.name for file in out.parent.iterdir()} - there - {f"{out.name}.journal"}:
        wrong.append(f"left: {left}")
    return wrong


def tried(folder: pathlib.Path, name: str, words: list[object], ending: str, disk: bool) -> bool:
    """Tries one format of a command, and prints its row; returns whether it is as it should be."""
    here = new_folder(folder)
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "x", here], check=True)
    out = here / f"out{ending}"
    words = [*words, "--out", out]
    assert run(words).status == 0
    whole = content(out)
    if out.is_dir():
        shutil.rmtree(out)  # another run's store is not replaced
    else:
        out.write_bytes(OLD)
    drawn = np.random.default_rng(len(whole)).integers(1, max(len(whole), 3), POSITIONS - 2)
    wrong = [
        text for n in (0, len(whole) - 1, *drawn.tolist()) for text in failed(words, out, n, disk)
    ]
    if run(words).status != 0 or (content(out) != whole and ending not in _TIMED):
        wrong.append("not whole afterwards")
    row(name, ending, f"{len(whole):,}", POSITIONS, "; ".join(wrong[:2]) or "none")
    if disk:
        subprocess.run(["umount", "-l", here], check=True)
    return not wrong


def main(folder: pathlib.Path, how: str = "files") -> int:
    """Tries all formats; returns the exit status."""
    disk = how == "disk"
    if disk and "IN_NAMESPACE" not in os.environ:
        again = [sys.executable, "-m", "tests.stress.files.disks", str(folder), how]
        environment = {**os.environ, "IN_NAMESPACE": "1"}
        return subprocess.run(["unshare", "-m", *again], env=environment).returncode
    words = commands(folder)
    head("command", "format", "bytes", "positions", "wrong")
    pairs = [(name, ending) for name, endings in FORMATS.items() for ending in endings]
    return int(not all([tried(folder, n, words[n], ending, disk) for n, ending in pairs]))


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), *sys.argv[2:]))
