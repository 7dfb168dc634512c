"""Chunks that are walked over at once: how long they are, and how they are composed."""

import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import PallasTriton, scan_inputs, selective_scan
from caduceus_jax.kernels.gpu import chunk_parallel
from tests.kernels.scan_cases import cast, example


def test_chunks_are_the_longest_that_fill_a_gpu():
    assert chunk_parallel.chunk_length(1, 131_072, 512) == 256
    assert chunk_parallel.chunk_length(64, 131_072, 512) == 2048
    assert chunk_parallel.chunk_length(1, 1_024, 128) == 128
    assert chunk_parallel.chunk_length(1, 37, 128) == 40  # all of a short sequence


@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_are_composed_in_walking_order(reverse):
    rng = np.random.default_rng(0)
    decay, local = rng.uniform(0, 1, (2, 5, 3, 4)), rng.normal(size=(2, 5, 3, 4))
    state = first = rng.normal(size=(2, 3, 4))
    expected = np.zeros_like(local)
    for k in range(5)[:: -1 if reverse else 1]:
        expected[:, k] = state
        state = decay[:, k] * state + local[:, k]
    given = map(jnp.asarray, (decay, local, first))
    found = chunk_parallel._compose_chunks(*given, reverse=reverse)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_chunk_within_which_a_segment_begins_passes_nothing_on():
    arguments = cast(example(18, batch=2, channels=3, state=2))
    given = [arguments[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    ids = jnp.asarray([[0] * 8 + [1] * 10, [0] * 17 + [1]])
    steps = jnp.ones((2, 3, 3))
    inputs = scan_inputs.check(*given, None, ids)
    found = chunk_parallel._chunk_decay(inputs, steps, 8)
    plain = chunk_parallel._chunk_decay(inputs._replace(restart=None), steps, 8)
    np.testing.assert_array_equal(plain[0, 0], jnp.exp(arguments["A"].T))
    forgets = np.asarray([[False, True, False], [False, False, True]])
    np.testing.assert_array_equal(found, np.where(forgets[..., None, None], 0, plain))


@pytest.mark.parametrize("state", [3, 256])
def test_numbers_of_states_without_a_kernel_are_refused(state):
    arguments = cast(example(8, channels=4, state=state))
    with pytest.raises(
        NotImplementedError, match=f"{state} states; supported: powers of two up to"
    ):
        selective_scan(**arguments, implementation=PallasTriton(4))
