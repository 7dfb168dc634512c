"""Shards of the work: all of it, once, in order, in about equal parts."""

import numpy as np
import pytest

from caduceus_jax.genomics.run import shard


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
