import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.bench import check
from caduceus_jax.costs import Shape


def test_what_is_not_a_number_is_wrong():
    assert check.passes({"y": 1e-6}, "float32")
    assert not check.passes({"y": 1e-6, "d_u": float("nan")}, "float32")
    assert not check.passes({"y": 1.1e-5}, "float32")
    assert check.passes({"y": 9e-3}, "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_inputs_are_rounded_before_float64_sees_them(dtype):
    problem = check.problem(Shape(1, 5, 3, 2), dtype, False, seed=1)
    assert problem.inputs["u"].dtype == jnp.dtype(dtype)
    assert problem.inputs["A"].dtype == np.float32
    assert all(x.dtype == np.float64 for x in problem.expected.values())
    # y, the final state, the convolution, and a gradient for each of the twelve inputs.
    assert len(problem.expected) == 3 + 12


def test_the_reference_passes_and_a_wrong_result_does_not():
    shape = Shape(1, 5, 3, 2)
    problem = check.problem(shape, "float32", True, seed=1)
    compiled = check.lower(shape, "float32", True, 1, "reference").compile()
    errors = check.errors(problem, compiled)
    assert check.passes(errors, "float32")

    def wrong(*arguments):
        found = dict(compiled(*arguments))
        return found | {"d_B": found["d_B"] * (1 + 1e-3)}

    errors = check.errors(problem, wrong)
    assert errors["d_B"] == pytest.approx(1e-3, rel=0.01)
    assert not check.passes(errors, "float32")
