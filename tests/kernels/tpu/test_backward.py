"""The backward kernel, before sums over blocks and sequences are taken."""

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels import selective_scan_with_state
from caduceus_jax.kernels.tpu.backward import backward
from caduceus_jax.kernels.tpu.forward import forward
from tests.kernels.tpu.programs import CHANNELS, STATES, cut, small
from tests.tolerances import SCAN_FP32


def test_gradients_by_name():
    arguments, plan, inputs = small()
    _, entering = forward(plan, inputs, keep=True)
    grad_y, grad_final = jnp.ones_like(inputs.u), jnp.zeros_like(inputs.initial_state)
    found = backward(plan, inputs, entering, grad_y, grad_final)

    def loss(arguments):
        return selective_scan_with_state(**arguments, implementation="reference")[0].sum()

    expected = jax.grad(loss)(arguments)
    for one, other in [
        (found["u"][..., :CHANNELS], expected["u"]),
        (found["delta"][..., :CHANNELS], expected["delta"]),
        (found["z"][..., :CHANNELS], expected["z"]),
        (jnp.swapaxes(found["b"][0, :, :STATES], 1, 2), expected["B"]),
        (jnp.swapaxes(found["c"][0, :, :STATES], 1, 2), expected["C"]),
        (cut(found["a"][0]), expected["A"]),
        (cut(found["initial_state"]), expected["initial_state"]),
        (found["d_skip"][0].sum(0)[:CHANNELS], expected["D"]),
        (found["delta_bias"][0].sum(0)[:CHANNELS], expected["delta_bias"]),
    ]:
        assert np.abs(one - other).max() < SCAN_FP32 * np.abs(other).max()
