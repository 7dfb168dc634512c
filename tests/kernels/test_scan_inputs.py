"""What a scan is given: refused in one sentence that names the argument, or computed right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caduceus_jax.kernels import (
    Chunked,
    MosaicTPU,
    PallasTriton,
    Reference,
    selective_scan,
    selective_scan_with_state,
)
from caduceus_jax.kernels.scan_inputs import check, sum_groups
from tests.kernels.scan_cases import assert_close, cast, example, in_float64, value_and_gradients
from tests.tolerances import SCAN_BF16, SCAN_FP32, relative_error

NAMES = [*example(1)]
# One of each implementation; the fused kernels are interpreted.
FOUR = [pytest.param(x(), id=x.__name__) for x in (Reference, Chunked, PallasTriton, MosaicTPU)]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("u", (2, 5), r"u has shape \(2, 5\); it is \(batch, length, channels\)"),
        ("u", (2, 0, 12), "u has length 0; a scan needs at least one token"),
        ("A", (11, 4), r"A has shape \(11, 4\); it is \(channels, state\) with u's 12 channels"),
        ("A", (4,), r"A has shape \(4,\); it is \(channels, state\) with u's 12 channels"),
        ("A", (3, 12, 4), "A has 3 groups, which do not divide the batch of 2"),
        ("A", (0, 12, 4), "A has 0 groups, which do not divide the batch of 2"),
        ("B", (2, 5, 3), r"B has shape \(2, 5, 3\); with this u and A it is \(2, 5, 4\)"),
        ("D", (4,), r"D has shape \(4,\); with this u and A it is \(12,\)"),
        ("initial_state", (2, 4, 12), r"initial_state has shape \(2, 4, 12\)"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_shapes_that_do_not_fit_are_named(name, shape, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**cast(example(5)) | {name: jnp.zeros(shape)})


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.int32, jnp.bool_, jnp.float16, jnp.uint8])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("shapes_unchecked")
def test_other_numbers_are_refused(name, dtype):
    arguments = cast(example(5))
    arguments[name] = arguments[name].astype(dtype)
    message = f"^{name} has dtype {jnp.dtype(dtype)}; it must be float32, bfloat16 or float64"
    with pytest.raises(ValueError, match=message):
        selective_scan(**arguments)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda a: selective_scan(**a, implementation="pallas_triton"), arguments)


@pytest.mark.usefixtures("shapes_unchecked")
def test_what_is_not_an_array_is_refused():
    with pytest.raises(ValueError, match="^delta is str; it must be an array$"):
        selective_scan(**cast(example(5)) | {"delta": "softplus"})


@pytest.mark.usefixtures("shapes_unchecked")
def test_numpy_arrays_and_lists_are_arrays():
    arguments = example(5)
    expected = selective_scan(**cast(arguments))
    np.testing.assert_array_equal(selective_scan(**arguments), expected)
    arguments["D"] = arguments["D"].tolist()
    np.testing.assert_array_equal(selective_scan(**arguments), expected)


@pytest.mark.parametrize(
    "sizes", [{"batch": 0}, {"channels": 0}, {"state": 0}, {"batch": 0, "groups": 2}], ids=str
)
@pytest.mark.parametrize("implementation", FOUR)
def test_scans_of_nothing(implementation, sizes):
    """No sequences, no channels, or no states: zeros of the right shapes, or what is left."""
    arguments = cast(example(5, **sizes), jnp.bfloat16)
    y, state, gradients = value_and_gradients(arguments, implementation)
    assert (y.shape, y.dtype) == (arguments["u"].shape, jnp.bfloat16)
    assert (state.shape, state.dtype) == (arguments["initial_state"].shape, jnp.float32)
    for name, x in arguments.items():
        assert (gradients[name].shape, gradients[name].dtype) == (x.shape, x.dtype), name
    if "state" in sizes:  # y is the skip connection and the gate
        expected = arguments["D"][None, None] * arguments["u"] * jax.nn.silu(arguments["z"])
        assert relative_error(y, expected) < SCAN_BF16
        assert np.abs(gradients["u"]).max() > 0
    else:
        assert not any(np.any(x) for x in gradients.values())


@pytest.mark.parametrize(
    "odd", ["u", *(pytest.param(x, marks=pytest.mark.slow) for x in ("z", "delta"))]
)
@pytest.mark.parametrize("implementation", FOUR)
def test_sequences_of_several_dtypes(implementation, odd):
    """All in bfloat16 but one: it, and its gradient, are float32."""
    arguments = cast(example(9), jnp.bfloat16)
    arguments[odd] = arguments[odd].astype(jnp.float32)
    found = value_and_gradients(arguments, implementation)
    assert found[0].dtype == arguments["u"].dtype
    assert {name: x.dtype for name, x in found[2].items()} == {
        name: x.dtype for name, x in arguments.items()
    }
    rounded = {name: np.asarray(x, np.float64) for name, x in arguments.items()}
    assert_close(found, in_float64(rounded), SCAN_BF16)


@pytest.mark.parametrize("implementation", FOUR)
def test_float32_while_float64_is_enabled(implementation):
    arguments = example(9)
    with jax.enable_x64(True):
        found = value_and_gradients(cast(arguments), implementation)
        assert found[0].dtype == found[1].dtype == jnp.float32
        assert {x.dtype.name for x in found[2].values()} == {"float32"}
    assert_close(found, in_float64(arguments), SCAN_FP32)


@pytest.mark.parametrize("implementation", ["pallas_triton", "mosaic_tpu"])
@pytest.mark.parametrize("name", ["u", "delta", "z"])
def test_fused_kernels_refuse_float64_sequences(implementation, name):
    with jax.enable_x64(True):
        arguments = cast(example(5))
        arguments[name] = arguments[name].astype(jnp.float64)
        with pytest.raises(NotImplementedError, match=f"^{name} in float64; supported: float32 "):
            selective_scan_with_state(**arguments, implementation=implementation)


def test_rows_are_read_with_their_groups_parameters():
    inputs = check(**cast(example(3, batch=6, groups=2)))
    rows = inputs.each_row(inputs.d_skip)
    assert rows.shape == (6, 12)
    for i in range(6):
        np.testing.assert_array_equal(rows[i], inputs.d_skip[i % 2])


def test_sums_of_groups():
    x = jnp.arange(24.0).reshape(6, 2, 2)  # row i starts at 4 i
    np.testing.assert_array_equal(sum_groups(x, 2), [[[24, 27], [30, 33]], [[36, 39], [42, 45]]])
    np.testing.assert_array_equal(sum_groups(x, 3, chunks=True), [[28, 32], [44, 48], [60, 64]])
    assert sum_groups(jnp.zeros((0, 5)), 3).shape == (3, 5)


def test_cotangents_have_the_inputs_dtypes():
    inputs = check(**cast(example(3, z=None), jnp.bfloat16) | {"z": None})
    gradients = {name: jnp.ones((), jnp.float32) for name in inputs._fields}
    found = inputs.cotangents(gradients)
    assert found.z is None and found.u.dtype == jnp.bfloat16 and found.a.dtype == jnp.float32
