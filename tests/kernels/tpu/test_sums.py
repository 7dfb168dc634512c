"""Sums over a tile's states and channels, against NumPy's."""

import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.tpu import program, sums
from tests.kernels.tpu.programs import small


def test_states_are_folded_to_sublanes_and_channels_to_one():
    x = np.random.default_rng(0).normal(size=(16, 256)).astype(np.float32)
    np.testing.assert_allclose(sums.fold_states(jnp.asarray(x)), x[:8] + x[8:], rtol=1e-6)
    found = sums.fold_lanes(jnp.asarray(x))
    np.testing.assert_allclose(found, x.sum(1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_sums_have_their_memory_in_every_slot():
    _, plan, _ = small()
    found = sums.sums_of(plan, "y", "drive")
    assert len(found) == 2 * program.slots(plan)
    assert {memory.shape for memory in found.values()} == {(1, 64, 128)}
