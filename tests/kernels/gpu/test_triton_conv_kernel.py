"""The Triton kernel of the convolution reads and writes what `triton_conv` hands to it."""

import pytest

pytest.importorskip("triton")


def test_it_reads_the_inputs_and_writes_a_gradient_of_each():
    from caduceus_jax.kernels.gpu import triton_conv_kernel

    names = triton_conv_kernel.causal_conv_gradients.arg_names
    reads = ["x", "weight", "bias", "grad", "other_grad", "reach"]
    assert names == [*reads, "grad_x", "grad_weight", "grad_bias", "p"]
