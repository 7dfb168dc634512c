"""The Triton kernels: what the one scan suite does not ask, and what is refused.

The suite itself runs for them in Triton's interpreter, which needs torch, triton and

    TRITON_INTERPRET=1 pytest -m triton -n 2
"""

import importlib.util
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import PallasTriton, Triton, selective_scan
from caduceus_jax.kernels.gpu import layout
from tests.kernels.scan_cases import (
    KERNELS,
    assert_close,
    cast,
    example,
    in_float64,
    shapes,
    value_and_gradients,
)
from tests.tolerances import SCAN_BF16, SCAN_FP32

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")


def installed(*packages):
    return all(importlib.util.find_spec(package) is not None for package in packages)


@interpreted
@pytest.mark.triton
@pytest.mark.parametrize("state", [1, 8, 32])
def test_numbers_of_states(state):
    arguments = example(18, batch=1, state=state)
    found = value_and_gradients(cast(arguments), Triton(8), reverse=True)
    assert_close(found, in_float64(arguments, reverse=True), SCAN_FP32)


@interpreted
@pytest.mark.triton
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_single_chunk(reverse):
    arguments = example(37, channels=5)
    found = value_and_gradients(cast(arguments), Triton(40), reverse=reverse)
    assert_close(found, in_float64(arguments, reverse=reverse), SCAN_FP32)


@interpreted
@pytest.mark.triton
@pytest.mark.parametrize("chunk", [4, 12, 64])
def test_the_chunk_length_changes_nothing(chunk):
    arguments = cast(example(37, batch=1, channels=5))
    found, expected = (
        selective_scan(**arguments, reverse=True, implementation=Triton(length))
        for length in (chunk, 40)
    )
    assert jnp.abs(found - expected).max() < 1e-5 * jnp.abs(expected).max()


@interpreted
@pytest.mark.triton
def test_several_blocks_of_channels():
    """More channels than a program has, in the last block fewer; groups; bfloat16."""
    arguments = example(6, channels=133, groups=2, initial_state=None)
    rounded = {name: np.asarray(x, np.float64) for name, x in cast(arguments, jnp.bfloat16).items()}
    found = value_and_gradients(cast(arguments, jnp.bfloat16), Triton(4))
    assert_close(found, in_float64(rounded), SCAN_BF16)


@interpreted
@pytest.mark.triton
def test_both_lowerings_agree():
    arguments = cast(example(45, state=16))
    triton, pallas = (
        value_and_gradients(arguments, option) for option in (Triton(12), PallasTriton(12))
    )
    assert_close(triton, pallas, SCAN_FP32)


@interpreted
@pytest.mark.triton
def test_tiny_time_steps_are_exact():
    """Softplus of a very negative number, where a float32 1 + e has lost it."""
    arguments = example(16, batch=1)
    arguments["delta"] -= 12
    found = value_and_gradients(cast(arguments), Triton(8))
    assert_close(found, in_float64(arguments), SCAN_FP32)


@interpreted
@pytest.mark.triton
def test_offsets_are_64_bits_wide():
    import torch

    from caduceus_jax.kernels import scan_inputs
    from caduceus_jax.kernels.gpu import chunk_parallel, triton_scan
    from tests.kernels.offsets_kernel import offsets

    length, channels, state = 2**27, 64, 16
    arguments = shapes(1, length, channels, state, jnp.float32)
    scan = jax.eval_shape(lambda a: scan_inputs.check(**a, initial_state=None), arguments)
    plan = chunk_parallel.Plan(triton_scan, length, True, False, True)
    program = triton_scan.program_of("outputs", plan, scan, keep_ungated=False)
    out = torch.zeros(3, dtype=torch.int64)
    offsets[(1,)](out, length - 1, p=program)
    assert out.tolist() == [
        length * channels - 1,
        length * state - 1,
        length * state * channels - 1,
    ]


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")
@pytest.mark.skipif(
    not installed("triton", "jax_triton", "jax_cuda13_plugin"), reason="needs jax-triton and plugin"
)
@pytest.mark.parametrize("segments", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "without"),
    [
        ((1, 4096, 256, 16), ()),
        ((4, 1000, 96, 8, 2), ()),  # ragged length and channels, groups
        ((2, 512, 64, 32), ("D", "z", "delta_bias")),
        ((1, 64, 16, 4), ("z",)),
    ],
    ids=["plain", "ragged", "bare", "small"],
)
def test_every_kernel_compiles_for_cuda(size, without, dtype, segments):
    *size, groups = size if len(size) == 5 else (*size, None)
    arguments = shapes(*size, dtype, groups)
    arguments = {name: x for name, x in arguments.items() if name not in without}
    options = Triton(chunk_length=32, interpret=False)
    ids = jax.ShapeDtypeStruct(arguments["u"].shape[:2], jnp.int32) if segments else None

    def both(arguments, ids):
        how = {"reverse": True, "segment_ids": ids, "implementation": options}
        y, pull_back = jax.vjp(lambda a: selective_scan(**a, **how), arguments)
        return pull_back(y)

    lowered = jax.jit(both).trace(arguments, ids).lower(lowering_platforms=("cuda",))
    # The assembly is in there too, but compressed.
    text = lowered.as_text(debug_info=True)
    for kernel in KERNELS:
        assert re.search(rf"selective_scan_{kernel}\)*/triton_kernel_call", text), kernel


def test_the_package_does_not_need_triton():
    blocked = "import sys; sys.modules['triton'] = sys.modules['torch'] = None; "
    code = "import caduceus_jax.kernels.gpu.triton_scan, caduceus_jax.kernels as k; k.Triton()"
    subprocess.run([sys.executable, "-c", blocked + code], check=True)


@pytest.mark.parametrize(
    ("interpret", "missing", "message"),
    [
        (True, "triton", "needs triton and torch: pip install triton torch"),
        (False, "triton", r"needs jax-triton and JAX's CUDA plugin: pip install caduceus-jax\[gpu"),
        (False, "jax_triton", "needs jax-triton and JAX's CUDA plugin"),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, interpret, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=message):
        selective_scan(**cast(example(8)), implementation=Triton(interpret=interpret))


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET is set")
@pytest.mark.skipif(not installed("triton", "torch"), reason="needs triton and torch")
def test_the_environment_has_to_ask_for_the_interpreter():
    with pytest.raises(ValueError, match="set TRITON_INTERPRET=1 in the environment before"):
        selective_scan(**cast(example(8)), implementation="triton")


@interpreted
@pytest.mark.triton
def test_interpreted_kernels_are_not_compiled(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax_triton", types.ModuleType("jax_triton"))
    with pytest.raises(ValueError, match="TRITON_INTERPRET is set .* unset it to compile"):
        selective_scan(**cast(example(8)), implementation=Triton(interpret=False))


def test_one_layout_for_every_array():
    from caduceus_jax.kernels.scan_inputs import check

    inputs = check(**cast(example(21, channels=133, groups=2), jnp.bfloat16))
    sizes = layout.layout(inputs, 8, 128)
    assert (sizes.chunks, sizes.blocks, sizes.block) == (3, 5, 32)
    assert sizes.shape("grad_u") == (2, 21, 133)
    assert sizes.shape("checkpointed_states") == (2, 3, 2, 4, 133)
    assert sizes.shape("grad_b") == (5, 2, 21, 4)
    assert sizes.shape("a") == (2, 4, 133) == layout.arrays(inputs)["a"].shape
    assert layout.dtype("checkpointed_states", inputs) == jnp.bfloat16
    assert layout.dtype("states", inputs) == jnp.float32
    # A narrow model has one block, of no fewer channels than a warp's loads.
    assert layout.layout(check(**cast(example(5, channels=3))), 8, 512).block == 16
    # A program of 2,048 states: 128 channels of 16, 64 of 32.
    for state, block in ((8, 128), (16, 128), (32, 64)):
        inputs = check(**cast(example(5, channels=200, state=state)))
        assert layout.layout(inputs, 8, 2048).block == block
