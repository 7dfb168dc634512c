"""The values are tested with every implementation's, in `tests/kernels/test_causal_conv.py`."""

import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.kernels.gpu import target, triton_conv

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
COMPILERS = all(map(importlib.util.find_spec, ("triton", "jax_triton", "jax_cuda13_plugin")))


def program(**changed):
    sizes = {"batch": 3, "length": 300, "channels": 200, "groups": 1, "width": 4, "tokens": 128}
    sizes |= {
        "block": 128,
        "unroll": 4,
        "reverse": False,
        "both": False,
        "silu": True,
        "has_bias": True,
    }
    return triton_conv.Program(**sizes | {"interpret": True} | changed)


def test_a_program_for_each_part_of_a_sequence_and_block_of_channels():
    assert (program().parts, program().blocks, program().programs) == (3, 2, 18)
    assert program(length=128, channels=128, batch=1).programs == 1


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")
@pytest.mark.skipif(not COMPILERS, reason="needs jax-triton and the plugin")
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("segments", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_compiles_for_cuda(dtype, capability, segments, directions):
    x = jax.ShapeDtypeStruct((2, 1000, 200), dtype)
    weight = jax.ShapeDtypeStruct((1, directions, 4, 200), jnp.float32)

    reach = jax.ShapeDtypeStruct((2, 1000), jnp.int32) if segments else None

    def gradients(x, weight, grad, reach):
        reverse = (True,) if directions == 1 else (False, True)
        how = {"reverse": reverse, "silu": True, "interpret": False}
        how["reach"] = None if reach is None else (reach,) * directions
        return triton_conv.gradients(x, weight, None, (grad,) * directions, **how)

    with target.compiling_for(capability):
        lowered = jax.jit(gradients).trace(x, weight, x, reach).lower(lowering_platforms=("cuda",))
    assert re.search(r"causal_conv_gradients\)*/triton", lowered.as_text(debug_info=True))
