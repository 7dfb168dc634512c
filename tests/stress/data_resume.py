"""Resumes the data of a training at every number of processes and workers, and changes the first.

    python tests/stress/data_resume.py 40 8 [GENOME]

40 batches, then 8 more by iterators that begin there, for 1, 2 and 4 processes and 0 and 2 workers,
across the end of an epoch: every array the same bytes as without the break. Then an epoch that
begins with 4 processes and goes on with 2 and 8: every window once. GENOME is a FASTA file or a
prepared folder; by default the yeast mitochondrion that is shipped. Exit status 1 where anything
differs.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import sys
import tempfile
import time

import numpy as np

from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.data.batches import train_batches
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.masking import letter_table
from caduceus_jax.train.data.sources import make_data_position, open_stores
from caduceus_jax.train.data.splits import read_splits
from caduceus_jax.train.data.windows import Windows

LENGTH, SEED = 512, 7
TOKENIZER = Tokenizer()


def digests(windows, config, steps, **options):
    """SHA-256 of each of so many batches."""
    batches = train_batches(windows, config, TOKENIZER, seed=SEED, **options)
    found = []
    for _ in range(steps):
        batch = next(batches)
        parts = (batch[name].tobytes() for name in ("input_ids", "labels", "weights"))
        found.append(hashlib.sha256(b"".join(parts)).hexdigest())
    return found


def resume(windows, config, before, after):
    """T5; how many iterators were broken and resumed, and how many of these differed."""
    # As many windows per step as make an epoch end within the batches before the break and after.
    batch_size = 4 * max(1, len(windows) // (4 * before) + 1)
    resumed = differing = 0
    for processes in (1, 2, 4):
        for process in range(processes):
            share = dict(batch_size=batch_size, process=process, processes=processes)
            expected = digests(windows, config, before + after, **share)
            for workers in (0, 2):
                loading = dataclasses.replace(config, workers=workers)
                begun = digests(windows, loading, before, **share)
                rest = digests(windows, loading, after, first_step=before, **share)
                resumed += 1
                differing += begun + rest != expected
    epoch = len(windows) / batch_size
    print(f"{len(windows)} windows, {batch_size} per step: an epoch ends every {epoch:.1f} steps")
    return resumed, differing


def elastic(windows, config):
    """T6; how often each window was seen in an epoch of 4, then 2, then 8 processes."""
    # Nearly nothing is masked, so that windows are told apart by what they hold.
    bare, table = dataclasses.replace(config, mask_probability=1e-9), letter_table(TOKENIZER)
    originals = collections.Counter(
        windows[number].tobytes().translate(table) for number in range(len(windows))
    )
    seen = collections.Counter()
    steps = len(windows) // 8
    changes = ((0, steps // 3, 4), (steps // 3, 2 * steps // 3, 2), (2 * steps // 3, steps, 8))
    for first, last, processes in changes:
        for process in range(processes):
            share = dict(batch_size=8, process=process, processes=processes)
            batches = train_batches(windows, bare, TOKENIZER, seed=SEED, first_step=first, **share)
            for _ in range(last - first):
                rows = next(batches)["input_ids"].astype(np.uint8)
                seen.update(row.tobytes() for row in rows)
    return seen, originals


def main(before: int, after: int, genome: str) -> bool:
    """Runs both; whether all was as it should be."""
    begun = time.monotonic()
    config = DataConfig(fasta=genome, stride=64)
    with tempfile.TemporaryDirectory() as folder:
        stores = open_stores(config, pathlib.Path(folder))
        splits = read_splits(stores, config, LENGTH)
        windows = Windows(stores, splits.train, length=LENGTH, stride=64)
        resumed, differing = resume(windows, config, before, after)
        place = len(json.dumps(make_data_position(before, stores, len(windows))))
        print(
            f"{before} + {after} batches: {resumed} iterators broken and resumed, {differing} "
            f"differ; the place in the data is {place} bytes"
        )
        seen, originals = elastic(windows, config)
    extra, missing = (seen - originals).total(), (originals - seen).total()
    missing -= len(windows) % 8  # the last windows of the epoch, which fill no step
    print(
        f"4, 2, 8 processes within an epoch of {len(windows)} windows: {seen.total()} rows, "
        f"{extra} repeated or unknown, {missing} missing; "
        f"{time.monotonic() - begun:.0f} s"
    )
    return not differing and not extra and not missing and place < 64 * 1024


if __name__ == "__main__":
    named = sys.argv[3] if len(sys.argv) > 3 else "configs/data/yeast_mitochondrion.fa"
    sys.exit(not main(int(sys.argv[1]), int(sys.argv[2]), named))
