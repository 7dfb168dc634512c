"""The forward kernel, and the states that it keeps for the backward pass."""

import numpy as np
import pytest

from caduceus_jax.kernels import selective_scan_with_state
from caduceus_jax.kernels.tpu.forward import forward
from tests.kernels.tpu.programs import CHANNELS, CHUNK, cut, small
from tests.tolerances import SCAN_FP32


@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_the_states_that_enter_the_chunks(reverse):
    arguments, plan, inputs = small(reverse=reverse)
    (y, final), entering = forward(plan, inputs, keep=True)

    def reference(part):
        cut_ = {
            n: x[:, part] if n in ("u", "delta", "B", "C", "z") else x for n, x in arguments.items()
        }
        return selective_scan_with_state(**cut_, reverse=reverse, implementation="reference")

    expected_y, expected_final = reference(slice(None))
    # Chunk 0 is the left one; the state enters it first, or, in reverse, after all others.
    first, second = (1, 0) if reverse else (0, 1)
    _, between = reference(slice(CHUNK, None) if reverse else slice(None, CHUNK))
    for found, expected in [
        (y[..., :CHANNELS], expected_y),
        (cut(final), expected_final),
        (cut(entering[:, first]), arguments["initial_state"]),
        (cut(entering[:, second]), between),
    ]:
        assert np.abs(found - expected).max() < SCAN_FP32 * np.abs(expected).max()


def test_without_a_backward_pass_no_state_is_kept():
    _, plan, inputs = small(130)
    assert forward(plan, inputs, keep=False)[1] is None
