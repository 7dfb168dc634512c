import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import Chunked, MosaicTPU, PallasTriton, Reference, self_check
from tests.tolerances import SCAN_FP64, relative_error


@pytest.mark.parametrize("case", self_check._CASES, ids=lambda case: case.dtype)
def test_the_expected_values_are_those_of_the_reference(case):
    arrays = {name: np.asarray(x, np.float64) for name, x in self_check._draw(case).items()}
    with jax.enable_x64(True):
        run = jax.jit(lambda arrays: self_check._run(case, Reference(), arrays))
        found = jax.device_get(run(arrays))
    expected = dict(self_check._expected(case, arrays))
    assert expected.keys() == found.keys()
    assert len(expected) == (19 if case.gate else 18)
    for name, value in expected.items():
        assert relative_error(found[name], value) < SCAN_FP64, name


def replaced(monkeypatch, name=None, factor=1.0, dtype="bfloat16"):
    """Lets the check find what it should, but for one array in one dtype."""

    def run(case, options, arrays):
        exact = {n: np.asarray(x, np.float64) for n, x in self_check._draw(case).items()}
        found = dict(self_check._expected(case, exact))
        if case.dtype == dtype and name is not None:
            found[name] = found[name] * factor
        return {n: jnp.asarray(x, jnp.float32) for n, x in found.items()}

    monkeypatch.setattr(self_check, "_run", run)


def test_what_is_right_passes(monkeypatch):
    replaced(monkeypatch)
    self_check.check(Chunked())


@pytest.mark.parametrize(
    ("name", "factor", "dtype"),
    [
        ("y", 1.1, "bfloat16"),
        ("gradient of A", 1.001, "float32"),
        ("gradient of weight", 0.0, "bfloat16"),
        ("gradient of x", 0.9, "float32"),
        ("gradient of x in one direction", 0.9, "bfloat16"),
        ("convolution", np.nan, "float32"),
    ],
)
def test_what_is_wrong_is_named(monkeypatch, name, factor, dtype):
    replaced(monkeypatch, name, factor, dtype)
    direction = {"float32": "left to right", "bfloat16": "right to left"}[dtype]
    with pytest.raises(self_check.CheckFailed, match=f"{name} in {dtype}, {direction}, is off by"):
        self_check.check(Chunked())


def test_the_portable_scan_passes():
    self_check.check(Chunked())


# A minute of compilation each: what stands in for a GPU's and a TPU's kernels, interpreted.
@pytest.mark.slow
@pytest.mark.parametrize("options", [PallasTriton(), MosaicTPU()], ids=["gpu", "tpu"])
def test_interpreted_kernels_pass(options):
    self_check.check(options)


def test_what_does_not_compile_raises():
    with pytest.raises(ValueError, match="interpret mode"):
        self_check.check(PallasTriton(interpret=False))
