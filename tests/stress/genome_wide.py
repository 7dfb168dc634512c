"""A store of a whole contig: in one run, killed and continued, and in shards; then looked up.

    python -m tests.stress.genome_wide FOLDER [GENOME]

Without a genome, one of 40,000 bases is drawn. One line a case; exit status 1 if one fails. The
model is the smallest sensible one, of random parameters: what is tested is the store.
"""

import pathlib
import resource
import subprocess
import sys
import time

import numpy as np

import caduceus_jax as cj
from caduceus_jax.files import file_digest
from caduceus_jax.genomics.files.fasta import iterate_fasta
from tests.models import language_model

KILLS, SHARDS = 10, 4
CONTEXT, MASKS = 127, 32
LOOKED_UP = 100_000
MOST_SECONDS = 3600


def main(folder: pathlib.Path, genome: pathlib.Path | None) -> None:
    """All cases."""
    folder.mkdir(parents=True, exist_ok=True)
    language_model(d_model=8, n_layer=1, d_state=4).save_pretrained(str(folder / "model"))
    genome = genome or drawn(folder / "genome.fa")
    bases = sum(len(sequence) for _, sequence in iterate_fasta(genome))
    whole = folder / "whole.zarr"
    words = ["likelihood", str(folder / "model"), "all", "--genome", str(genome)]
    words += ["--context-length", str(CONTEXT), "--masks-per-pass", str(MASKS)]
    seconds = finish(start(folder, *words, "--out", str(whole)))
    known = int(sum((~np.isnan(values[:, 0])).sum() for values in stored(whole)))
    size, memory = sum(f.stat().st_size for f in whole.rglob("*") if f.is_file()), peak()
    print(
        f"{bases:,} bases, {known:,} known: {seconds:.0f} s, {known / seconds:,.0f} known bases/s, "
        f"{size / 1e6:.1f} MB, at most {memory:.0f} MB of memory"
    )
    killed = folder / "killed.zarr"
    kills = [kill(folder, killed, (i + 1) / (KILLS + 1) * known * 8, words) for i in range(KILLS)]
    finish(start(folder, *words, "--out", str(killed)))
    assert content(killed) == content(whole)
    print(f"killed {sum(kills)} times and continued: the same bytes")
    parts = folder / "parts.zarr"
    times = [
        finish(start(folder, *words, "--out", str(parts), "--shard", f"{i}/{SHARDS}"))
        for i in range(1, SHARDS + 1)
    ]
    shards = sorted(map(str, folder.glob("parts.zarr.shard-*")))
    merged = finish(start(folder, "merge", *shards))
    assert content(parts) == content(whole) and len(shards) == SHARDS
    print(f"{SHARDS} shards of {', '.join(f'{t:.0f}' for t in times)} s, merged in {merged:.0f} s: "
          "the same bytes")  # fmt: skip
    look_up(folder, genome, whole)


def drawn(path: pathlib.Path) -> pathlib.Path:
    """Writes a genome of two contigs, with stretches of N."""
    rng = np.random.default_rng(0)
    records = []
    for name, length in (("one", 30_000), ("two", 10_000)):
        sequence = rng.choice(np.frombuffer(b"ACGT", np.uint8), length)
        sequence[length // 3 : length // 2] = ord("N")
        records.append(f">{name}\n{sequence.tobytes().decode()}\n")
    path.write_text("".join(records))
    return path


def start(folder: pathlib.Path, *words: str) -> subprocess.Popen[bytes]:
    """Starts a command; what it says is added to the log."""
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", "caduceus_jax", *words]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> float:
    """Waits for a command to succeed; returns the seconds."""
    began = time.monotonic()
    status = process.wait(MOST_SECONDS)
    assert status == 0, status
    return time.monotonic() - began


def kill(folder: pathlib.Path, out: pathlib.Path, size: float, words: list[str]) -> bool:
    """Runs a command until its journal has so many bytes, and kills it; whether it was in time."""
    journal = out.with_name(f"{out.name}.journal")
    process = start(folder, *words, "--out", str(out))
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size >= size:
            process.kill()
            process.wait()
            assert not out.exists()
            return True
        time.sleep(0.01)
    return False


def content(store: pathlib.Path) -> dict[str, str]:
    """The digest of each file of a store."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): file_digest(path) for path in files}


def stored(store: pathlib.Path) -> list[np.ndarray]:
    """The values of each contig."""
    opened = cj.ScoreStore(store)
    opened.verify()
    return [opened.fetch(name) for name in opened.contigs]


def peak() -> float:
    """Megabytes of memory that a command has used at most."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def look_up(folder: pathlib.Path, genome: pathlib.Path, store: pathlib.Path) -> None:
    """Scores random substitutions from the store, by command, and times it."""
    opened, reference = cj.ScoreStore(store), cj.Genome(genome)
    rng, lines, expected = np.random.default_rng(1), [], []
    for name in opened.contigs:
        values, text = opened.fetch(name), reference.fetch(name)
        known = np.flatnonzero(~np.isnan(values[:, 0]))
        count = min(len(known), LOOKED_UP // len(opened.contigs))
        for place in np.sort(rng.choice(known, count, replace=False)).tolist():
            ref = text[place]
            alt = "ACGT"[("ACGT".index(ref) + int(rng.integers(1, 4))) % 4]
            lines.append(f"{name}\t{place + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n")
            expected.append(values[place, "ACGT".index(alt)] - values[place, "ACGT".index(ref)])
    vcf, out = folder / "in.vcf", folder / "out.vcf"
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    vcf.write_text(header + "".join(lines))
    words = ["score-variants", str(folder / "model"), str(vcf), "--genome", str(genome)]
    words += ["--context-length", str(CONTEXT), "--scores", str(store), "--out", str(out)]
    seconds = finish(start(folder, *words))
    records = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    fields = [dict(f.split("=") for f in line.split("\t")[7].split(";")) for line in records]
    assert {field["CADUCEUS_STATUS"] for field in fields} == {"ok"}
    found = np.array([float(field["CADUCEUS_LLR"]) for field in fields])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    began = time.monotonic()
    model = cj.load(folder / "model")
    cj.score_variants(model, vcf, genome, scores=store, context_length=CONTEXT)
    verb = time.monotonic() - began
    began = time.monotonic()
    numbers = rng.integers(0, len(opened.contigs), LOOKED_UP)
    places = rng.integers(0, min(c.length for c in opened.contigs.values()), LOOKED_UP)
    opened.at(list(opened.contigs), numbers, places)
    raw = time.monotonic() - began
    print(
        f"{len(lines):,} variants: command {len(lines) / seconds:,.0f}/s ({seconds:.1f} s with its "
        f"start), verb {len(lines) / verb:,.0f}/s, store alone {LOOKED_UP / raw:,.0f}/s; every "
        "score as stored"
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
