"""What a chunk of the convolution has beside it; values are tested in `test_conv`."""

import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels.tpu import conv_kernels
from caduceus_jax.kernels.tpu.conv_kernels import HALO, Plan
from caduceus_jax.kernels.tpu.plan import LANES


def plan(**changed):
    sizes = {"batch": 1, "length": 300, "channels": 128, "groups": 1, "width": 4, "block": 128}
    how = {"chunk": 128, "reverse": False, "both": False, "silu": True, "interpret": True}
    return Plan(**sizes | how | changed)


def test_chunks_are_walked_over_in_reading_order_and_against_it():
    assert plan().chunks == 3
    for reverse in (False, True):
        for backwards in (False, True):
            at = conv_kernels.walking(plan(reverse=reverse), backwards=backwards)
            assert [at(k) for k in range(3)] == [[0, 1, 2], [2, 1, 0]][reverse != backwards]


class Memory:
    """Stands for a reference to fast memory."""

    def __init__(self, rows):
        self.array = np.zeros((rows, LANES), np.float32)
        self.shape = self.array.shape

    def __getitem__(self, index):
        return jnp.asarray(self.array[self._rows(index)])

    def __setitem__(self, index, value):
        self.array[self._rows(index)] = value

    def _rows(self, index):
        return slice(index[0].start, index[0].start + index[0].size)


@pytest.mark.parametrize("reverse", [False, True])
def test_tokens_before_and_after_are_rows_beside(reverse):
    tile = conv_kernels._Tile(Memory(HALO + 64 + HALO), reverse)
    tokens = jnp.arange(1.0, 65)[:, None] * jnp.ones((1, LANES))
    tile.put(0, tokens)
    sign = -1 if reverse else 1
    for before in (3, -3):
        found = tile.get(16, before)[:, 0]
        np.testing.assert_array_equal(found, np.arange(17, 49) - sign * before)
    tile.put_before(tokens[:HALO])
    np.testing.assert_array_equal(
        tile.get(64 if reverse else -HALO, 0, HALO)[:, 0], np.arange(1, 9)
    )


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("chunk", [0, 1])
def test_what_was_walked_over_last_stays_beside(reverse, backwards, chunk, monkeypatch):
    monkeypatch.setattr(conv_kernels.pl, "program_id", lambda axis: chunk)
    monkeypatch.setattr(conv_kernels.pl, "when", lambda condition: lambda f: condition and f())
    tile = conv_kernels._Tile(Memory(HALO + 64 + HALO), reverse)
    tile.put(0, jnp.arange(1.0, 65)[:, None] * jnp.ones((1, LANES)))
    tile.begin(backwards=backwards)
    low = reverse == backwards  # the chunk walked over last is the one to the left
    found = tile.get(-HALO if low else 64, 0, HALO)[:, 0]
    expected = np.arange(57, 65) if low else np.arange(1, 9)
    np.testing.assert_array_equal(found, expected if chunk else np.zeros(HALO))


def test_tokens_of_another_segment_are_not_met():
    x = jnp.ones((3, 2 * LANES))
    reach = jnp.broadcast_to(jnp.asarray([0.0, 1.0, 2.0])[:, None], (3, LANES))
    for j, expected in ((0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0, 1]), (3, [0, 0, 0])):
        found = conv_kernels._within(x, j, reach)
        np.testing.assert_array_equal(
            found, np.asarray(expected)[:, None] * np.ones((1, 2 * LANES))
        )
    assert conv_kernels._within(x, 3, None) is x
