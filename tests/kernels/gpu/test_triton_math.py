"""What Triton's compiler is told; `test_triton_scan.py` has the values of its functions."""

import types

import pytest

triton = pytest.importorskip("triton")


def test_every_field_of_a_program_is_a_constant_to_the_compiler():
    from caduceus_jax.kernels.gpu.triton_math import Constants

    constants = Constants(types.SimpleNamespace(interpret=True, exp2_share=4))
    assert isinstance(constants.interpret, triton.language.constexpr)
    assert (constants.interpret.value, constants.exp2_share.value) == (True, 4)
    with pytest.raises(AttributeError):
        _ = constants.nothing
