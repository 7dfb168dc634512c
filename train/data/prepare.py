"""`caduceus-jax prepare`: a FASTA file becomes a folder that training reads without waiting."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import time
from typing import BinaryIO

import numpy as np

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.files import WriteFailed
from caduceus_jax.genomics.files.fasta import iterate_chunks
from caduceus_jax.genomics.reference.store import (
    BASES,
    FORMAT,
    INDEX,
    RUNS,
    UNKNOWN,
    VERSION,
    Contig,
    Source,
    Store,
    content_digest,
)
from caduceus_jax.progress import track

_MEGABYTE = 1_000_000


def prepare(genome: pathlib.Path, *, out: pathlib.Path) -> None:
    """Prepares a genome for training: one byte per base in a folder that opens at once.

    pretrain does this by itself for the FASTA files it is given, into the run's folder. Preparing
    a genome once and naming the folder instead (--data.fasta folder) saves doing it in every run.

    The file is read once, in pieces: some 200 MB of memory are enough for any genome, and as many
    bytes of disk are taken as there are bases. Lower case, which marks repeats, is kept. IUPAC
    ambiguity codes become N; any other byte is refused with its line number. The
    folder appears when it is whole, and not before.

    examples:
      caduceus-jax prepare hg38.fa.gz --out genomes/hg38
      caduceus-jax pretrain --config caduceus_ps_1k --data.fasta genomes/hg38

    Args:
        genome: FASTA file, plain or gzip. A pipe may be named, and - is standard input.
        out: folder to make.

    Raises:
        UserError: the file is not FASTA or cannot be read, or `out` exists.
    """
    begun = time.monotonic()
    store = write_store(resolve_data(str(genome)), out)
    contigs, runs = store.contigs.values(), store.unknown
    total, unknown = len(store.bases), int((runs[:, 1] - runs[:, 0]).sum())
    ambiguous = sum(contig.ambiguous for contig in contigs)
    print(f"{out}: {total:,} bases in {len(contigs):,} contig{'s' * (len(contigs) > 1)}")
    print(
        f"{unknown:,} of them unknown (N), in {len(runs):,} runs; {ambiguous:,} were ambiguity "
        "codes"
    )
    print(f"source {store.source.name}, {store.source.size:,} bytes, SHA-256 {store.source.sha256}")
    print(f"took {time.monotonic() - begun:.1f} s")
    print(f"next:\n  {shlex.join(['caduceus-jax', 'pretrain', '--data.fasta', str(out)])}")


def write_store(fasta: pathlib.Path, out: pathlib.Path) -> Store:
    """Makes a store of a FASTA file; see `prepare`.

    It is written beside its place and moved there when it is whole: whatever interrupts the
    writing, nothing looks finished that is not. What an earlier interruption left is removed.
    """
    if out.exists():
        raise UserError(f"{out} already exists: choose another folder, or remove it")
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{partial} cannot be made: {error.strerror}") from None
    try:
        _write(fasta, partial)
        partial.replace(out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise WriteFailed(f"{out} cannot be written: {error.strerror or error}") from None
        raise
    return Store(out)


def _write(fasta: pathlib.Path, folder: pathlib.Path) -> None:
    reading = _Reading(fasta)
    digest = hashlib.sha256()
    contigs: list[Contig] = []
    with (folder / BASES).open("wb") as bases, (folder / UNKNOWN).open("wb") as unknown:
        runs = _Runs(unknown)
        for name, letters, ambiguous in iterate_chunks(fasta, reading):
            if not contigs or name != contigs[-1].name:
                runs.close()
                contigs.append(Contig(name, bases.tell(), 0, 0))
            runs.add(letters, bases.tell())
            digest.update(letters)
            bases.write(letters)
            at = contigs[-1]
            contigs[-1] = dataclasses.replace(
                at, length=at.length + len(letters), ambiguous=at.ambiguous + ambiguous
            )
        runs.close()
        for file in (bases, unknown):
            file.flush()
            os.fsync(file.fileno())
    index = {
        "format": FORMAT,
        "version": VERSION,
        "source": dataclasses.asdict(reading.source()),
        "sha256": content_digest(digest, contigs),
        "runs_of_unknown": runs.count,
        "contigs": [dataclasses.asdict(contig) for contig in contigs],
    }
    with (folder / INDEX).open("w") as file:
        json.dump(index, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


class _Reading:
    """Sees the bytes of the source file pass: its digest, and how much has been read."""

    def __init__(self, path: pathlib.Path):
        # Before it is read: a file that changes meanwhile is not taken for this one later.
        before = path.stat() if path.is_file() else None
        self.name = path.name if before else "a pipe"
        self.mtime_ns = before.st_mtime_ns if before else time.time_ns()
        self.digest, self.megabytes, self.bytes = hashlib.sha256(), 0, 0
        total = -(-before.st_size // _MEGABYTE) if before else 0
        self.bar = track(range(total), total=total, what=f"reading {self.name}", unit="MB")

    def __call__(self, read: bytes) -> None:
        self.digest.update(read)
        self.bytes += len(read)
        while self.megabytes < self.bytes // _MEGABYTE:
            self.megabytes += 1
            next(self.bar, None)

    def source(self) -> Source:
        """Returns what is recorded of the file."""
        for _ in self.bar:  # the last megabyte, and the end of the bar
            pass
        return Source(self.name, self.bytes, self.digest.hexdigest(), self.mtime_ns)


class _Runs:
    """Writes runs of N; the last one stays open, because the next piece may continue it."""

    def __init__(self, file: BinaryIO):
        self.file, self.count = file, 0
        self.last = np.empty((0, 2), RUNS)

    def add(self, letters: bytes, offset: int) -> None:
        """Adds the runs of N in a piece of a contig."""
        unknown = np.zeros(len(letters) + 2, bool)
        unknown[1:-1] = (np.frombuffer(letters, np.uint8) | 0x20) == ord("n")
        runs = np.flatnonzero(unknown[1:] != unknown[:-1]).astype(RUNS, copy=False).reshape(-1, 2)
        runs += offset
        if len(runs) and len(self.last) and runs[0, 0] == self.last[0, 1]:
            runs[0, 0] = self.last[0, 0]
            self.last = self.last[:0]  # it goes on
        if len(runs):
            self.close()
            self._write(runs[:-1])
            self.last = runs[-1:].copy()

    def close(self) -> None:
        """Ends the last run, which nothing continues."""
        self._write(self.last)
        self.last = self.last[:0]

    def _write(self, runs: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(runs).data)
        self.count += len(runs)
