"""Elementary functions of the TPU kernels, and the memory that they plan."""

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.tpu import program
from tests.kernels.tpu.programs import CHUNK, small


def test_elementary_functions():
    x = jnp.linspace(-15, 15, 8 * 128).reshape(8, 128)
    np.testing.assert_allclose(program.sigmoid(x, True), jax.nn.sigmoid(x), rtol=1e-5)
    np.testing.assert_allclose(program.softplus(x), jax.nn.softplus(x), rtol=1e-5)


def test_decays_are_powers_of_two_and_b_has_a_row_for_each_round_of_tokens():
    _, plan, inputs = small(200)
    call = program.KernelCall(plan, inputs, backwards=False)
    assert (call.chunks, call.blocks, call.state) == (2, 1, 8)
    np.testing.assert_allclose(call.arrays["a"], inputs.a / np.log(2), rtol=1e-6)
    assert call.arrays["b"].shape == (1, 2 * CHUNK // program.ROUND, program.ROUND * 8)
    np.testing.assert_array_equal(call.arrays["b"][0, 0].reshape(8, 8), inputs.b[0, :8])
    np.testing.assert_array_equal(call.arrays["b"][0, 200 // program.ROUND :], 0)


def test_what_is_kept_of_the_state_at_each_token():
    _, plan, inputs = small(200)
    assert "keeps" not in program.KernelCall(plan, inputs, backwards=False).arrays
    restart = jnp.zeros((1, 200)).at[0, 150].set(-1e30)
    call = program.KernelCall(plan, inputs._replace(restart=restart), backwards=False)
    expected = np.ones((1, 2, 1, CHUNK))
    expected[0, 1, 0, 150 - CHUNK] = 0
    np.testing.assert_array_equal(call.arrays["keeps"], expected)


def test_chunks_are_walked_against_the_reading_direction_in_the_backward_pass():
    for reverse in (False, True):
        _, plan, inputs = small(200, reverse=reverse)
        walks = [program.KernelCall(plan, inputs, backwards=b).descending for b in (False, True)]
        assert walks == [reverse, not reverse]


def test_memory_of_a_round_has_a_place_for_each_round_of_a_chunk():
    _, plan, _ = small()
    found = program.memory_per_round(plan, steps=(8, 128))
    places = sum(memory.shape[0] for memory in found.values())
    assert places == CHUNK // program.ROUND
    assert {memory.shape[1:] for memory in found.values()} == {(8, 128)}
