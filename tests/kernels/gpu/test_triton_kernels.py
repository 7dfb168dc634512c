"""The Triton kernels' arrays are those of the layout; `test_triton_scan.py` has their values."""

import pytest

from caduceus_jax.kernels.gpu import layout

pytest.importorskip("triton")

KERNELS = ("summaries", "outputs", "adjoints", "gradients")
SIZES = layout.ChunkLayout(2, 100, 48, 16, groups=1, chunk=32, block=32)


def arguments(kernel):
    from caduceus_jax.kernels.gpu import triton_kernels

    return getattr(triton_kernels, f"selective_scan_{kernel}").arg_names


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_array_of_a_kernel_has_a_place(kernel):
    *arrays, program = arguments(kernel)
    assert program == "p"
    for name in arrays:
        assert len(SIZES.shape(name)) in (2, 3, 4, 5), name


def test_gradients_are_written_for_every_input():
    names = arguments("gradients")
    inputs = ("u", "delta", "z", "b", "c", "d_skip", "delta_bias")
    assert [f"grad_{name}" for name in inputs if f"grad_{name}" not in names] == []
    assert SIZES.shape("grad_a") == SIZES.shape("grad_initial_states") == (2, 4, 16, 48)
