"""Sizes and places of the GPU kernels' arrays."""

import jax.numpy as jnp
import pytest

from caduceus_jax.kernels.gpu import layout
from caduceus_jax.kernels.scan_inputs import ScanInputs


def inputs(batch=2, length=100, channels=48, state=16, dtype=jnp.bfloat16):
    tokens, maps = jnp.zeros((batch, length, channels), dtype), jnp.zeros((batch, length, state))
    a = jnp.arange(channels * state, dtype=jnp.float32).reshape(1, channels, state)
    return ScanInputs(tokens, tokens, a, maps, maps, None, None, None, None)


def test_a_program_has_as_many_channels_as_its_registers_hold():
    sizes = layout.layout(inputs(), chunk=32, elements=2048)
    assert (sizes.chunks, sizes.block, sizes.blocks) == (4, 64, 1)  # 48, rounded to 2^n
    assert layout.layout(inputs(), chunk=32, elements=512).block == 32  # 32 x 16 states
    assert layout.layout(inputs(channels=5), chunk=32, elements=2048).block == 16
    assert layout.layout(inputs(channels=999), chunk=32, elements=1 << 20).block == 128


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("grad_u", (2, 100, 48)),
        ("c", (2, 100, 16)),
        ("grad_b", (2, 2, 100, 16)),  # for each block of channels
        ("a", (1, 16, 48)),
        ("d_skip", (1, 48)),
        ("states", (2, 4, 16, 48)),
        ("steps", (2, 4, 48)),
        ("checkpointed_states", (2, 4, 8, 16, 48)),  # every fourth token of 32
    ],
)
def test_shapes(name, shape):
    assert layout.layout(inputs(), chunk=32, elements=512).shape(name) == shape


def test_arrays_that_are_absent_are_left_out_and_a_is_transposed():
    found = layout.arrays(inputs(), grad_y=jnp.ones(3), ungated=None)
    assert set(found) == {"u", "delta", "a", "b", "c", "grad_y"}
    assert found["a"][0, :2, :2].tolist() == [[0, 16], [1, 17]]


def test_dtypes_follow_the_array_they_belong_to():
    given = inputs()
    assert layout.dtype("grad_u", given) == jnp.bfloat16
    assert layout.dtype("grad_a", given) == layout.dtype("grad_z", given) == jnp.float32
