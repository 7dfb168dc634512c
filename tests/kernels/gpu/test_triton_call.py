"""How Triton kernels are called through both interfaces of jax-triton."""

import os
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.kernels.gpu import target, triton_call

PROGRAM = types.SimpleNamespace(programs=6, warps=2, interpret=False)
SHAPES = [jax.ShapeDtypeStruct((3,), jnp.float32)]


@pytest.fixture
def called(monkeypatch):
    """Keywords with which a stand-in for `jax_triton.triton_call` was called; made by `offer`."""
    found = {}
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    math = types.ModuleType("caduceus_jax.kernels.gpu.triton_math")
    math.Constants = lambda program: program
    monkeypatch.setitem(sys.modules, math.__name__, math)

    def offer(function):
        module = types.ModuleType("jax_triton")
        module.triton_call = function(found)
        monkeypatch.setitem(sys.modules, "jax_triton", module)
        return found

    return offer


def before_0_4(found):
    def triton_call(*arguments, kernel, out_shape, enable_fp_fusion, compute_capability, **more):
        found.update(out_shape=out_shape, fusion=enable_fp_fusion, capability=compute_capability)
        found.update(more)

    return triton_call


def since_0_4(found):
    def triton_call(*arguments, kernel, out_type, backend_options, compute_capability, **more):
        found.update(out_type=out_type, options=backend_options, capability=compute_capability)
        found.update(more)

    return triton_call


def test_the_interface_before_0_4(called):
    found = called(before_0_4)
    triton_call._compiled("kernel", PROGRAM, (), SHAPES)
    assert found["out_shape"] == SHAPES and found["fusion"] is True
    assert (found["grid"], found["num_warps"], found["num_stages"]) == ((6,), 2, 1)
    assert found["capability"] == 90


@pytest.mark.parametrize(("capability", "version"), [(75, 85), (90, 85), (100, 88), (120, 88)])
def test_the_interface_since_0_4_is_told_which_assembly_to_write(called, capability, version):
    found = called(since_0_4)
    with target.compiling_for(capability):
        triton_call._compiled("kernel", PROGRAM, (), SHAPES)
    assert found["out_type"] == SHAPES and found["capability"] == capability
    assert found["options"] == {"enable_fp_fusion": True, "ptx_version": version}


@pytest.mark.triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1")
def test_arrays_that_are_not_there_and_results_that_are_not_asked_for():
    from caduceus_jax.kernels.gpu import triton_conv

    x = jnp.ones((1, 5, 3))
    grad_x, grad_weight, grad_bias = triton_conv.gradients(
        x,
        jnp.ones((1, 1, 2, 3)),
        None,
        (x,),
        reach=None,
        reverse=(False,),
        silu=False,
        interpret=True,
    )
    assert grad_x[0, :, 0].tolist() == [2, 2, 2, 2, 1]
    assert grad_weight[0, 0, :, 0].tolist() == [4, 5]
    assert grad_bias[0, 0].tolist() == [5, 5, 5]
