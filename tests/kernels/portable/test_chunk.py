"""The decay of a chunk's tokens."""

import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.portable.chunk import by_group, decay
from tests.tolerances import SCAN_FP32


def test_decay_of_rows_that_share_parameters_by_group():
    rng = np.random.default_rng(0)
    delta, a = rng.uniform(0, 1, (3, 4, 5)), -rng.uniform(1, 4, (2, 6, 5))
    restart = np.zeros((3, 4))
    restart[1, 2] = -1e30
    found = decay(*(jnp.asarray(x, jnp.float32) for x in (delta, a, restart)))
    expected = np.exp(delta[:, :, None] * a[[0, 1, 0, 1]])
    expected[1, 2] = 0
    assert np.abs(found - expected).max() < SCAN_FP32


def test_rows_by_group():
    x = jnp.arange(4).reshape(1, 4)
    assert by_group(jnp.zeros((2, 1, 1)), x).tolist() == [[[0, 1], [2, 3]]]
