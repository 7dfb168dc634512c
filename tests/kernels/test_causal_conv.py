import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caduceus_jax.kernels import bidirectional_conv1d, causal_conv1d
from tests.tolerances import SCAN_BF16, SCAN_FP32, relative_error


def numpy_conv(x, weight, bias, *, reverse, silu=True):
    batch, length, channels = x.shape
    groups, width, _ = weight.shape
    y = np.zeros_like(x)
    for i in range(batch):
        for t in range(length):
            y[i, t] = bias[i % groups]
            for k in range(width):
                source = t + k if reverse else t - k
                if 0 <= source < length:
                    y[i, t] += weight[i % groups, width - 1 - k] * x[i, source]
    return y / (1 + np.exp(-y)) if silu else y


def test_by_hand():
    x = jnp.asarray([[[1.0], [10.0], [100.0]]])
    weight = jnp.asarray([[2.0], [3.0]])  # previous token, current token
    y = causal_conv1d(x, weight, jnp.asarray([0.5]), silu=False)
    np.testing.assert_array_equal(y[0, :, 0], [3.5, 32.5, 320.5])
    y = causal_conv1d(x, weight, jnp.asarray([0.5]), silu=False, reverse=True)
    np.testing.assert_array_equal(y[0, :, 0], [23.5, 230.5, 300.5])


@settings(max_examples=10, deadline=None)
@given(
    length=st.integers(1, 9),
    width=st.integers(1, 5),
    groups=st.sampled_from([1, 2]),
    reverse=st.booleans(),
)
def test_values(length, width, groups, reverse):
    rng = np.random.default_rng(length)
    x, weight, bias = (
        rng.normal(size=shape) for shape in ((4, length, 3), (groups, width, 3), (groups, 3))
    )
    expected = numpy_conv(x, weight, bias, reverse=reverse)
    found = causal_conv1d(jnp.asarray(x), jnp.asarray(weight), jnp.asarray(bias), reverse=reverse)
    assert relative_error(found, expected) < SCAN_FP32


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("silu", [False, True])
def test_gradients_are_those_of_the_sum_written_out(silu, reverse):
    rng = np.random.default_rng(0)
    x, weight, bias, cotangent = (
        jnp.asarray(rng.normal(size=s)) for s in ((4, 11, 3), (2, 4, 3), (2, 3), (4, 11, 3))
    )

    def written_out(x, weight, bias):
        rows = []
        for i in range(4):
            sequence = x[i][::-1] if reverse else x[i]
            padded = jnp.concatenate([jnp.zeros((3, 3)), sequence])
            y = jnp.stack([(padded[t : t + 4] * weight[i % 2]).sum(0) for t in range(11)])
            y = y + bias[i % 2][None]
            y = jax.nn.silu(y) if silu else y
            rows.append(y[::-1] if reverse else y)
        return jnp.stack(rows)

    ours = lambda *a: causal_conv1d(*a, reverse=reverse, silu=silu)  # noqa: E731
    _, expected = jax.vjp(written_out, x, weight, bias)
    _, found = jax.vjp(ours, x, weight, bias)
    for one, other in zip(found(cotangent), expected(cotangent), strict=True):
        assert relative_error(one, other) < SCAN_FP32


FUSED = ["mosaic_tpu"]
if os.environ.get("TRITON_INTERPRET") == "1":
    FUSED.append(pytest.param("triton", marks=pytest.mark.triton))


@pytest.mark.parametrize("implementation", FUSED)
@pytest.mark.parametrize(
    ("length", "width", "reverse", "silu", "dtype"),
    [
        (300, 4, False, True, jnp.float32),
        (256, 4, True, True, jnp.float32),
        (5, 3, True, False, jnp.float32),
        (9, 1, False, True, jnp.float32),
        (530, 4, True, True, jnp.bfloat16),
    ],
)
def test_the_kernels_compute_the_same(length, width, reverse, silu, dtype, implementation):
    rng = np.random.default_rng(length)
    shapes = ((4, length, 20), (2, width, 20), (2, 20), (4, length, 20))
    x, weight, bias, cotangent = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    x, cotangent = x.astype(dtype), cotangent.astype(dtype)

    def value_and_gradients(implementation, cotangent):
        options = {"reverse": reverse, "silu": silu, "implementation": implementation}
        y, pull_back = jax.vjp(lambda *a: causal_conv1d(*a, **options), x, weight, bias)
        return y, *pull_back(cotangent)

    found = jax.jit(lambda g: value_and_gradients(implementation, g))(cotangent)
    expected = value_and_gradients("chunked", cotangent)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        bound = SCAN_BF16 if one.dtype == jnp.bfloat16 else SCAN_FP32
        assert relative_error(one, other) < bound


def two_calls(x, weight, bias, **options):
    biases = (None, None) if bias is None else bias
    return tuple(
        causal_conv1d(x, weight[i], biases[i], reverse=bool(i), **options) for i in range(2)
    )


@pytest.mark.parametrize("implementation", ["chunked", *FUSED])
@pytest.mark.parametrize(
    ("length", "width", "channels", "silu", "segments", "dtype"),
    [
        (300, 4, 20, True, False, jnp.float32),
        (256, 4, 20, True, True, jnp.float32),
        (5, 3, 20, False, False, jnp.float32),
        (9, 1, 20, True, True, jnp.float32),
        (254, 4, 140, True, True, jnp.bfloat16),
    ],
)
def test_both_directions_at_once_are_two_calls(
    length, width, channels, silu, segments, dtype, implementation
):
    """Results bit by bit, and gradients as in float64."""
    rng = np.random.default_rng(length)
    tokens, filters = (4, length, channels), (2, 2, width, channels)
    x, one, other = (jnp.asarray(rng.normal(size=tokens), dtype) for _ in range(3))
    weight, bias = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in (filters, (2, 2, channels))
    )
    ids = jnp.asarray(np.cumsum(rng.random(tokens[:2]) < 0.1, axis=1)) if segments else None

    def run(function, implementation, arrays, cotangents):
        how = {"silu": silu, "segment_ids": ids, "implementation": implementation}
        results, pull_back = jax.vjp(lambda a: function(*a, **how), arrays)
        return results, pull_back(cotangents)[0]

    run = jax.jit(run, static_argnums=(0, 1))
    given = (x, weight, bias), (one, other)
    found, gradients = run(bidirectional_conv1d, implementation, *given)
    for y, expected in zip(found, run(two_calls, implementation, *given)[0], strict=True):
        np.testing.assert_array_equal(y, expected)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), given)
        exact = run(two_calls, "chunked", *wide)[1]
    for gradient, like, expected in zip(gradients, given[0], exact, strict=True):
        assert gradient.dtype == like.dtype
        bound = SCAN_BF16 if gradient.dtype == jnp.bfloat16 else SCAN_FP32
        assert relative_error(gradient, expected) < bound


@pytest.mark.usefixtures("shapes_unchecked")
def test_of_two_directions_there_are_two_filters():
    x, weight = jnp.ones((2, 5, 2)), jnp.ones((2, 4, 2))
    with pytest.raises(
        ValueError, match=r"^weight has shape \(4, 2\); its first axis is the 2 dir"
    ):
        bidirectional_conv1d(x, weight[0])
    with pytest.raises(ValueError, match=r"^bias has shape \(1, 2\); its first axis is the 2 dir"):
        bidirectional_conv1d(x, weight, jnp.ones((1, 2)))


@pytest.mark.parametrize("implementation", FUSED)
def test_the_kernels_need_no_bias_and_take_several_blocks_of_channels(implementation):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((1, 40, 260), (4, 260)))

    def gradients(implementation):
        convolve = lambda *a: causal_conv1d(*a, implementation=implementation)  # noqa: E731
        return jax.grad(lambda *a: jnp.sum(jnp.sin(convolve(*a))), (0, 1))(x, weight)

    for one, other in zip(gradients(implementation), gradients("chunked"), strict=True):
        assert relative_error(one, other) < SCAN_FP32


@pytest.mark.parametrize("implementation", FUSED)
def test_second_derivatives_are_those_of_the_portable_convolution(implementation):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 2)), jnp.float32)

    def slope(x, implementation):
        convolve = lambda x: causal_conv1d(x, jnp.ones((4, 2)), implementation=implementation)  # noqa: E731
        return jnp.sum(jax.grad(lambda x: jnp.sum(convolve(x) ** 2))(x))

    found, expected = (jax.grad(slope)(x, name) for name in (implementation, "chunked"))
    assert relative_error(found, expected) < SCAN_FP32


def test_the_fused_gradients_refuse_float64():
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match="float64; .* float32 and"):
        causal_conv1d(jnp.ones((2, 5, 2)), jnp.ones((4, 2)), implementation="mosaic_tpu")


def test_bfloat16_is_summed_in_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 20, 3)), jnp.bfloat16)
    weight, bias = rng.normal(size=(1, 4, 3)), rng.normal(size=(1, 3))
    found = causal_conv1d(x, jnp.asarray(weight[0]), jnp.asarray(bias[0]))
    assert found.dtype == jnp.bfloat16
    expected = numpy_conv(np.asarray(x, np.float64), weight, bias, reverse=False)
    assert relative_error(found, expected) < SCAN_BF16


def test_no_bias():
    x, weight = jnp.ones((1, 3, 2)), jnp.ones((4, 2))
    np.testing.assert_array_equal(causal_conv1d(x, weight, silu=False)[0, :, 0], [1, 2, 3])
    gradient = jax.grad(lambda w: causal_conv1d(x, w, silu=False).sum())(weight)
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 2, 3])


def test_channels_and_groups_must_fit():
    with pytest.raises(ValueError, match=r"weight has shape \(3, 4, 2\), which does not fit x"):
        causal_conv1d(jnp.ones((2, 5, 2)), jnp.ones((3, 4, 2)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (5, 2), r"^x has shape \(5, 2\); it is \(batch, length, channels\)$"),
        ("weight", (2,), r"^weight has shape \(2,\), which does not fit x .* \(width, channels\)"),
        ("weight", (1, 1, 4, 2), r"^weight has shape \(1, 1, 4, 2\), which does not fit x"),
        (
            "weight",
            (4, 3),
            r"^weight has shape \(4, 3\), .* \(width, channels\) with x's 2 channels",
        ),
        ("weight", (0, 2), r"^weight has shape \(0, 2\), which does not fit x"),
        (
            "weight",
            (0, 4, 2),
            "which does not fit x .*: its 0 groups do not divide the batch of 2$",
        ),
        ("bias", (1,), r"^bias has shape \(1,\); with this weight it is \(2,\)$"),
        ("bias", (5, 2), r"^bias has shape \(5, 2\); with this weight it is \(2,\)$"),
        ("bias", (), r"^bias has shape \(\); with this weight it is \(2,\)$"),
    ],
)
@pytest.mark.usefixtures("shapes_unchecked")
def test_shapes_that_do_not_fit_are_named(name, shape, message):
    arguments = {"x": jnp.ones((2, 5, 2)), "weight": jnp.ones((4, 2)), "bias": jnp.ones(2)}
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**arguments | {name: jnp.ones(shape)})


@pytest.mark.usefixtures("shapes_unchecked")
def test_a_bias_for_each_filter():
    x, weight = jnp.ones((2, 5, 2)), jnp.ones((2, 4, 2))
    with pytest.raises(
        ValueError, match=r"^bias has shape \(2,\); with this weight it is \(2, 2\)"
    ):
        causal_conv1d(x, weight, jnp.ones(2))
    assert causal_conv1d(x, weight, jnp.ones((2, 2))).shape == x.shape


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.int32, jnp.bool_, jnp.float16])
@pytest.mark.parametrize("name", ["x", "weight", "bias"])
@pytest.mark.usefixtures("shapes_unchecked")
def test_other_numbers_are_refused(name, dtype):
    arguments = {"x": jnp.ones((2, 5, 2)), "weight": jnp.ones((4, 2)), "bias": jnp.ones(2)}
    message = f"^{name} has dtype {jnp.dtype(dtype)}; it must be float32, bfloat16 or float64$"
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**arguments | {name: jnp.ones(arguments[name].shape, dtype)})


@pytest.mark.parametrize("shape", [(0, 5, 2), (2, 0, 2), (2, 5, 0)])
@pytest.mark.parametrize("implementation", [None, "pallas_triton"])
def test_convolutions_of_nothing(implementation, shape):
    arguments = jnp.ones(shape), jnp.ones((2, 4, shape[-1])), jnp.ones((2, shape[-1]))

    def convolve(*arguments):
        return causal_conv1d(*arguments, implementation=implementation)

    y, pull = jax.vjp(convolve, *arguments)
    assert y.shape == shape
    for gradient, x in zip(pull(y), arguments, strict=True):
        assert gradient.shape == x.shape and not np.any(gradient)
