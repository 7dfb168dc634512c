import importlib.util

import pytest

from caduceus_jax.kernels.ahead_of_time import predict
from caduceus_jax.kernels.ahead_of_time.devices import GPUS
from caduceus_jax.kernels.ahead_of_time.gpu import CONVOLUTION, Size
from caduceus_jax.kernels.ahead_of_time.machine_code import Cost

SIZE = Size(1024, 128, 16)


def cost(name="selective_scan_summaries", **counts):
    zero = dict.fromkeys(Cost._fields[1:], 0)
    return Cost(name, **zero | counts)


def test_bytes_by_hand():
    tokens, states = 1024 * 128, 1024 * 16
    # u, delta, y, z and y before the gate in bfloat16; B and C in float32; 8 chunks of 128 tokens.
    small = 128 * 16 * 4 + 2 * 128 * 4 + 2 * 8 * 128 * 16 * 4
    expected = 5 * tokens * 2 + 2 * states * 4 + small
    assert predict.moved("selective_scan_outputs", SIZE, "bfloat16") == expected
    # x, its gradient, and the gradients of both directions.
    assert predict.moved(CONVOLUTION, SIZE, "float32") == 4 * tokens * 4


def test_the_scarcest_resource_decides():
    gpu, elements = GPUS["h200"], 1024 * 128 * 16
    cycles = 132 * 1.98e9 * 0.96
    issued = predict.seconds(cost(instructions=80.0), gpu, SIZE, "bfloat16")
    assert issued == pytest.approx(elements * 80 / (128 * cycles))
    special = predict.seconds(cost(instructions=80.0, special_functions=11.0), gpu, SIZE, "float32")
    assert special == pytest.approx(elements * 11 / (16 * cycles))
    moved = predict.seconds(cost(), gpu, SIZE, "float32")
    assert moved == predict.moved("selective_scan_summaries", SIZE, "float32") / (0.9 * 4.8e12)


def test_half_as_many_float32_units():
    counted = cost(instructions=80.0, float32=70.0)
    a100 = predict.seconds(counted, GPUS["a100"], SIZE, "bfloat16")
    assert a100 == pytest.approx(1024 * 128 * 16 * 70 / (64 * 108 * 1.41e9 * 0.96))


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_the_arrays_are_those_of_the_kernels():
    from caduceus_jax.kernels.gpu import triton_kernels

    for name, arrays in predict._ARRAYS.items():
        assert arrays.split() == getattr(triton_kernels, name).arg_names[:-1]
