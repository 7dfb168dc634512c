"""`caduceus-jax bench data`: tokens per second from a genome on disk to batches of the model."""

import dataclasses
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from caduceus_jax.bench import measure
from caduceus_jax.bench.report import Report, title
from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.store import Store
from caduceus_jax.markdown import table
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.data.batches import Batch, train_batches
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.prepare import write_store
from caduceus_jax.train.data.splits import Block
from caduceus_jax.train.data.windows import Windows

# Tokens of a window, and how many of them a step has: 2^20 tokens, as the recipes.
_SIZES = {1024: 1024, 131_072: 8}
_REPEATS = 5
_MEGABASES = 64  # of the random genome
_LINE = 60  # bases, of the FASTA file that is written where none is given


def data(
    *,
    genome: pathlib.Path | None = None,
    out: pathlib.Path = pathlib.Path("runs/bench"),
    megabases: int | None = None,
    seconds: float = 5.0,
    cores: int | None = None,
) -> None:
    """Times what feeds a training: reading, tokenizing, masking, batches of 2^20 tokens.

    For windows of 1,024 and of 131,072 tokens, each in three ways: everything in this one thread;
    in threads (data.threads) and in processes (data.workers), as many as there are cores. Written
    are data.json and data.md, after each case: tokens per second, the median of five stretches,
    minimum and maximum; and tokens per second that a core spent on them, which other work on the
    machine changes little.

    Without --genome a random one is written and prepared first, and that is timed too.

    examples:
      caduceus-jax bench data
      caduceus-jax bench data --genome genomes/hg38 --out runs/loader

    Args:
        genome: FASTA file, or folder made by caduceus-jax prepare.
        out: folder for the results.
        megabases: size of the random genome; 64 by default, and not read with `genome`.
        seconds: time for which each case is timed.
        cores: threads and processes; by default the cores that there are.

    Raises:
        UserError: a size below 1, or a genome that is shorter than a step.
    """
    cores = cores or os.cpu_count() or 1
    if genome is not None and megabases is not None:
        raise UserError("`megabases` is not read with `genome`, which has a size of its own")
    megabases = _MEGABASES if megabases is None else megabases
    if min(megabases, cores) < 1 or not seconds > 0:
        raise UserError("megabases and cores are at least 1, and seconds above 0")
    with tempfile.TemporaryDirectory() as folder:
        report = Report(
            out / "data", {"title": "The data", "cores": cores, **measure.machine()}, page
        )
        store = _store(genome, pathlib.Path(folder), megabases, report)
        blocks = [Block(0, contig.name, 0, contig.length) for contig in store.contigs.values()]
        for length, rows in _SIZES.items():
            windows = Windows([store], blocks, length=length, stride=length)
            if not len(windows):
                raise UserError(f"{store.path} has no sequence")
            for how, config in _ways(cores).items():
                about = {"length": length, "windows": rows, "how": how}
                row = about | _timed(windows, config, rows, seconds)
                report.add("cases", row, _line(row))
    report.results["finished"] = True
    report.write()
    print(f"wrote {report.path}.json and .md")


def _ways(cores: int) -> dict[str, DataConfig]:
    one = DataConfig(threads=1)
    return {
        "one thread": one,
        f"{cores} threads": dataclasses.replace(one, threads=cores),
        f"{cores} processes": dataclasses.replace(one, workers=cores),
    }


def _store(
    genome: pathlib.Path | None, folder: pathlib.Path, megabases: int, report: Report
) -> Store:
    path = resolve_data(str(genome)) if genome else folder / "random.fa"
    if path.is_dir():
        return Store(path)
    if genome is None:
        letters = np.frombuffer(b"ACGTacgt", np.uint8)
        chosen = np.random.default_rng(0).integers(8, size=(megabases * 1_000_000) // _LINE * _LINE)
        lines = np.full((len(chosen) // _LINE, _LINE + 1), ord("\n"), np.uint8)
        lines[:, :-1] = letters[chosen].reshape(-1, _LINE)
        path.write_bytes(b">random\n" + lines.tobytes())
    begun = time.perf_counter()
    store = write_store(path, folder / "store")
    taken = time.perf_counter() - begun
    row = {"bases": len(store.bases), "seconds": taken}
    report.add("prepared", row, f"prepared {len(store.bases):,} bases in {taken:.2f} s")
    return store


def _timed(windows: Windows, config: DataConfig, rows: int, seconds: float) -> dict[str, float]:
    """Measures tokens per second, after enough batches to fill all buffers."""
    batches = train_batches(windows, config, Tokenizer(), seed=0, batch_size=rows)
    tokens = rows * windows.length
    for _ in range(2 + 4 * config.threads + 2 * config.workers):
        next(batches)
    found = [_rates(batches, tokens, seconds / _REPEATS) for _ in range(_REPEATS)]
    rates, of_a_core = zip(*found, strict=True)
    times = {
        "tokens_per_s": statistics.median(rates),
        "min_tokens_per_s": min(rates),
        "max_tokens_per_s": max(rates),
    }
    # What workers take is not this process's.
    return times if config.workers else times | {"tokens_per_core_s": statistics.median(of_a_core)}


def _rates(batches: Iterator[Batch], tokens: int, seconds: float) -> tuple[float, float]:
    """Returns the tokens per second of wall-clock time, and of the time that cores spent."""
    begun, spent = time.perf_counter(), time.process_time()
    for count in itertools.count(1):
        next(batches)
        taken = time.perf_counter() - begun
        if taken > seconds:
            return count * tokens / taken, count * tokens / (time.process_time() - spent)
    raise AssertionError  # batches never end


def _line(row: dict[str, Any]) -> str:
    rate, low, high = (1e-6 * row[f"{end}tokens_per_s"] for end in ("", "min_", "max_"))
    return (
        f"{row['windows']:,} windows of {row['length']:,}, {row['how']}: {rate:.1f} million tokens "
        f"per second ({low:.1f} - {high:.1f})"
        + (
            f", {1e-6 * row['tokens_per_core_s']:.1f} per second and core"
            if "tokens_per_core_s" in row
            else ""
        )
    )


def page(results: dict[str, Any]) -> str:
    """Writes the results as Markdown."""
    lines = title(results)
    for row in results.get("prepared", []):
        lines += [f"Preparing {row['bases']:,} bases took {row['seconds']:.2f} s.", ""]
    cells = [
        [
            f"{row['windows']:,} x {row['length']:,}",
            row["how"],
            f"{1e-6 * row['tokens_per_s']:.1f} "
            f"({1e-6 * row['min_tokens_per_s']:.1f} - {1e-6 * row['max_tokens_per_s']:.1f})",
            f"{1e-6 * row['tokens_per_core_s']:.1f}" if "tokens_per_core_s" in row else "",
        ]
        for row in results["cases"]
    ]
    head = ["step", "made in", "million tokens per second", "per core"]
    return "\n".join([*lines, *table(head, cells), ""])
