"""What a chunk of the convolution has beside it; values are tested in `test_conv`."""

import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels.tpu import conv_kernels
from caduceus_jax.kernels.tpu.conv_kernels import HALO, Plan
from caduceus_jax.kernels.tpu.plan import LANES


def plan(**changed):
    sizes = {"batch": 1, "length": 300, "channels": 128, "groups": 1, "width": 4, "block": 128}
    how = {"chunk": 128, "reverse": False, "silu": True, "interpret": True}
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


@pytest.mark.parametrize("low", [True, False])
def test_tokens_closer_to_the_neighbour_are_rows_beside(low):
    tile = conv_kernels._Tile(Memory(64 + HALO), low=low)
    tokens = jnp.arange(1.0, 65)[:, None] * jnp.ones((1, LANES))
    tile.put(0, tokens)
    np.testing.assert_array_equal(
        tile.get(32 if low else 0, 3)[:, 0], np.arange(32) + (30 if low else 4)
    )
    tile.move_on()
    edge = tile.get(0, 8)[:8] if low else tile.get(32, 8)[-8:]
    np.testing.assert_array_equal(edge[:, 0], np.arange(8) + (57 if low else 1))


def test_tokens_of_another_segment_are_not_met():
    x = jnp.ones((3, 2 * LANES))
    reach = jnp.broadcast_to(jnp.asarray([0.0, 1.0, 2.0])[:, None], (3, LANES))
    for j, expected in ((0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0, 1]), (3, [0, 0, 0])):
        found = conv_kernels._within(x, j, reach)
        np.testing.assert_array_equal(
            found, np.asarray(expected)[:, None] * np.ones((1, 2 * LANES))
        )
    assert conv_kernels._within(x, 3, None) is x
