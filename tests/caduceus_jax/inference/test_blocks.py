"""Work in blocks: the same results from a journal, in any division that the input gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.inference import blocks
from caduceus_jax.inference.batches import Batch
from caduceus_jax.inference.blocks import Block, Counts, cut, meter, run_blocks, shard


def double(model, rows, extra):
    return model * rows + extra


class Journal:
    def __init__(self, kept=()):
        self.kept, self.appended = list(kept), []

    def next(self, count=None):
        return self.kept.pop(0) if self.kept else None

    def append(self, values):
        self.appended.append(np.array(values).ravel().tolist())


def block(first: int, *sizes: int) -> Block:
    """Batches of these sizes; row i of the block gives 2 (first + i) + 1."""
    starts = np.cumsum([0, *sizes[:-1]]) if sizes else []
    batches = [
        Batch(np.arange(n, n + size), size, 1) for n, size in zip(starts, sizes, strict=True)
    ]

    def inputs(batch):
        rows = (first + batch.rows).astype(np.float32)
        return rows, np.ones(len(rows), np.float32)

    def finish(found):
        return [float(v) for _, values in found for v in values]

    return Block(sum(sizes) or 1, batches, inputs, lambda batch: (), finish)


def compute(*blocks, **options):
    return list(run_blocks(double, jnp.float32(2), iter(blocks), **options))


BLOCKS = (block(0, 2, 1), block(3), block(3, 2), block(5, 1))
EXPECTED = [[1, 3, 5], [], [7, 9], [11]]
FLAT = [[1, 3], [5], [7, 9], [11]]


def test_results_come_block_by_block():
    done = []
    journal = Journal()
    assert compute(*BLOCKS, journal=journal, advance=done.append) == EXPECTED
    assert journal.appended == FLAT
    assert sum(done) == 3 + 1 + 2 + 1 and min(done) >= 0


@pytest.mark.parametrize("kept", range(5))
def test_what_a_journal_has_is_not_computed(kept, monkeypatch):
    before = [np.array(values, np.float32) for values in FLAT[:kept]]
    journal = Journal(before)
    assert compute(*BLOCKS, journal=journal) == EXPECTED
    assert journal.appended == FLAT[kept:]


def test_no_block_no_result():
    assert compute() == []
    assert compute(block(0)) == [[]]
    assert compute(block(0), journal=Journal()) == [[]]


def test_rows_are_cut_by_work():
    work = np.full(320, 10)
    parts = cut(work, smallest=1, largest=10**6)
    assert len(parts) == 32 and {len(part) for part in parts} == {10}
    assert [part.start for part in parts] == list(range(0, 320, 10))
    assert [len(part) for part in cut(work, smallest=1_000, largest=10**6)] == [100, 100, 100, 20]
    assert max(len(part) for part in cut(work, smallest=1, largest=30)) == 3
    assert cut(np.zeros(0, np.int64), 1, 1) == []
    assert cut(np.zeros(5, np.int64), 1, 1) == [range(5)]
    # A row that is larger than a block is not divided; rows without work go with others.
    assert cut(np.array([0, 100, 0, 1, 1]), 10, 10) == [range(2), range(2, 5)]


def test_no_group_is_divided():
    work, record = np.ones(12, np.int64), np.repeat([0, 1, 2, 3], 3)
    parts = cut(work, smallest=4, largest=4, keep=record)
    assert parts == [range(0, 3), range(3, 6), range(6, 12)]


def test_a_bar_counts_rows(capsys):
    advance = meter(True, 5, "embedding", "sequences")
    for rows in (2, 0, 3):
        advance(rows)
    assert "embedding: 5/5 sequences" in capsys.readouterr().err
    meter(False, 5, "embedding", "sequences")(5)
    meter(True, 0, "embedding", "sequences")(0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_are_all_blocks_once_and_in_order(count):
    weights = np.random.default_rng(0).integers(1, 100, 25).tolist()
    shards = [shard(weights, index, count) for index in range(1, count + 1)]
    assert [block for part in shards for block in part] == list(range(25))


def test_shards_have_about_the_same_work():
    weights = [1] * 90 + [10] * 1
    work = [sum(weights[i] for i in shard(weights, index, 4)) for index in (1, 2, 3, 4)]
    assert work == [25, 25, 25, 25]


def test_without_work_every_shard_is_empty_but_one():
    assert [len(shard([], index, 3)) for index in (1, 2, 3)] == [0, 0, 0]
    assert sum(len(shard([0, 0], index, 3)) for index in (1, 2, 3)) == 2


def test_counts_are_counted_when_they_are_asked_for():
    asked = []

    def count(number):
        asked.append(number)
        return 10 * number

    counts = Counts(count, 4)
    assert asked == [] and len(counts) == 4
    assert counts[2] == 20 and counts[1:3] == [10, 20] and list(counts) == [0, 10, 20, 30]
    assert sorted(asked) == [0, 1, 2, 3]


def test_many_rows_are_counted_by_thousands(monkeypatch, capsys):
    monkeypatch.setattr(blocks, "_MOST_COUNTED", 2_000)
    advance = meter(True, 2_500, "scoring", "bases")
    for rows in (1, 998, 0, 1_400, 101):
        advance(rows)
    assert capsys.readouterr().err.startswith("scoring: 3/3 thousand bases, elapsed")
