"""One suite for every implementation of the selective scan: values and all gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caduceus_jax.kernels import Chunked, Reference, selective_scan, selective_scan_with_state
from tests.kernels.scan_cases import (
    DISTINCT,
    EVERY,
    FLOAT64,
    IMPLEMENTATIONS,
    assert_close,
    cast,
    compiled,
    example,
    in_float64,
    numpy_scan,
    value_and_gradients,
)
from tests.tolerances import SCAN_BF16, SCAN_FP32, SCAN_FP64, relative_error

SLOW = pytest.mark.slow


@pytest.mark.parametrize("reverse", [False, True])
def test_the_reference_is_the_equation(reverse):
    arguments = example(23)
    y, state, _ = in_float64(arguments, reverse=reverse)
    expected_y, expected_state = numpy_scan(arguments, reverse=reverse)
    np.testing.assert_allclose(y, expected_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state, expected_state, rtol=1e-12, atol=1e-12)


def test_the_references_gradients_are_finite_differences():
    arguments = example(6, batch=1, channels=3, state=2)
    rng = np.random.default_rng(7)  # the cotangents of value_and_gradients
    weight_y, weight_state = rng.normal(size=(1, 6, 3)), rng.normal(size=(1, 3, 2))

    def loss(arguments):
        y, state = numpy_scan(arguments)
        return (y * weight_y).sum() + (state * weight_state).sum()

    _, _, gradients = in_float64(arguments)
    for name, value in arguments.items():
        for index in [(0,) * value.ndim, tuple(np.array(value.shape) - 1)]:
            step = np.zeros_like(value)
            step[index] = 1e-6
            slope = loss(arguments | {name: value + step}) - loss(arguments | {name: value - step})
            np.testing.assert_allclose(gradients[name][index], slope / 2e-6, rtol=1e-6, atol=1e-8)


def test_by_hand():
    # One channel, one state, no softplus: h = exp(-1) h + u, twice; y = 2 h + u.
    one = jnp.ones((1, 2, 1))
    y, state = selective_scan_with_state(
        jnp.asarray([[[1.0], [10.0]]]),
        one,
        -jnp.ones((1, 1)),
        one,
        2 * one,
        jnp.ones(1),
        delta_softplus=False,
    )
    np.testing.assert_allclose(y[0, :, 0], [3.0, 2 * (np.exp(-1) + 10) + 10], rtol=1e-6)
    np.testing.assert_allclose(state[0, 0, 0], np.exp(-1) + 10, rtol=1e-6)


# Each compiles anew: by default one token, whole tiles and many with a ragged last one, each in one
# direction; both directions, and less than a tile, with --slow.
LENGTHS = [
    pytest.param(
        length,
        reverse,
        marks=() if (length, reverse) in ((1, False), (64, False), (130, True)) else SLOW,
        id=f"{length}-{('forward', 'reverse')[reverse]}",
    )
    for length in (1, 7, 64, 130)
    for reverse in (False, True)
]


@pytest.mark.parametrize(("length", "reverse"), LENGTHS)
@pytest.mark.parametrize("implementation", EVERY)
def test_values_and_gradients_float32(implementation, length, reverse):
    arguments = example(length, seed=length)
    found = value_and_gradients(cast(arguments), IMPLEMENTATIONS[implementation], reverse=reverse)
    assert_close(found, in_float64(arguments, reverse=reverse), SCAN_FP32)


@pytest.mark.parametrize("implementation", DISTINCT)
def test_a_thousand_tokens(implementation):
    arguments = example(1000, batch=1, state=16)
    found = value_and_gradients(cast(arguments), IMPLEMENTATIONS[implementation])
    assert_close(found, in_float64(arguments), SCAN_FP32)


@pytest.mark.parametrize("implementation", FLOAT64)
def test_float64_is_exact(implementation):
    arguments = example(37)
    with jax.enable_x64(True):
        found = value_and_gradients(cast(arguments, jnp.float64), IMPLEMENTATIONS[implementation])
    assert_close(found, in_float64(arguments), SCAN_FP64)


@pytest.mark.parametrize(
    "reverse",
    [
        pytest.param(False, id="forward", marks=SLOW),
        pytest.param(True, id="reverse"),
    ],
)
@pytest.mark.parametrize("implementation", DISTINCT)
def test_bfloat16(implementation, reverse):
    arguments = example(130, initial_state=None)
    # What the kernel sees is rounded already: the expected value starts from the same numbers.
    rounded = {name: np.asarray(x, np.float64) for name, x in cast(arguments, jnp.bfloat16).items()}
    found = value_and_gradients(
        cast(arguments, jnp.bfloat16), IMPLEMENTATIONS[implementation], reverse=reverse
    )
    assert found[0].dtype == jnp.bfloat16 and found[1].dtype == jnp.float32
    assert_close(found, in_float64(rounded, reverse=reverse), SCAN_BF16)


@pytest.mark.parametrize(
    "without",
    [
        ("D", "initial_state"),
        ("z", "delta_bias"),
        *(pytest.param((x,), marks=SLOW) for x in ("D", "z", "delta_bias", "initial_state")),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("implementation", DISTINCT)
def test_optional_arguments(implementation, without):
    arguments = example(19, **dict.fromkeys(without))
    found = value_and_gradients(cast(arguments), IMPLEMENTATIONS[implementation])
    assert_close(found, in_float64(arguments), SCAN_FP32)


@pytest.mark.parametrize("implementation", DISTINCT)
def test_without_softplus(implementation):
    arguments = example(19)
    arguments["delta"] = np.abs(arguments["delta"]) * 0.1
    arguments["delta_bias"] = np.abs(arguments["delta_bias"]) * 0.1
    options = {"delta_softplus": False}
    found = value_and_gradients(cast(arguments), IMPLEMENTATIONS[implementation], **options)
    assert_close(found, in_float64(arguments, **options), SCAN_FP32)


@pytest.mark.parametrize("implementation", ["reference", *DISTINCT])
def test_groups_are_separate_scans(implementation):
    arguments = example(21, batch=6, groups=3)
    y, state = numpy_scan(arguments)
    found_y, found_state, gradients = value_and_gradients(
        cast(arguments), IMPLEMENTATIONS[implementation]
    )
    assert relative_error(found_y, y) < SCAN_FP32
    assert relative_error(found_state, state) < SCAN_FP32
    expected = in_float64(arguments)[2]
    for name in gradients:
        assert relative_error(gradients[name], expected[name]) < SCAN_FP32, name


def test_many_rows_run_in_blocks():
    """More rows x channels than a core walks over side by side."""
    arguments = example(9, batch=8, channels=512, state=2, groups=2)
    found = value_and_gradients(cast(arguments), Chunked(inner="sequential"), reverse=True)
    assert_close(found, in_float64(arguments, reverse=True), SCAN_FP32)


@pytest.mark.parametrize("implementation", DISTINCT)
def test_a_scan_in_two_halves(implementation):
    arguments = cast(example(50))
    option = IMPLEMENTATIONS[implementation]
    whole, final = selective_scan_with_state(**arguments, implementation=option)
    sequences = ("u", "delta", "B", "C", "z")

    def half(part, state):
        cut = {k: v[:, part] if k in sequences else v for k, v in arguments.items()}
        cut["initial_state"] = state
        return selective_scan_with_state(**cut, implementation=option)

    left, state = half(slice(0, 23), arguments["initial_state"])
    right, state = half(slice(23, 50), state)
    assert relative_error(jnp.concatenate([left, right], axis=1), whole) < SCAN_FP32
    assert relative_error(state, final) < SCAN_FP32


@pytest.mark.parametrize("implementation", DISTINCT)
def test_reverse_is_flip_scan_flip(implementation):
    arguments = cast(example(40))
    option = IMPLEMENTATIONS[implementation]
    flipped = {
        k: jnp.flip(v, axis=1) if k in ("u", "delta", "B", "C", "z") else v
        for k, v in arguments.items()
    }
    expected = jnp.flip(selective_scan(**flipped, implementation=option), axis=1)
    found = selective_scan(**arguments, reverse=True, implementation=option)
    assert relative_error(found, expected) < SCAN_FP32


@pytest.mark.parametrize("implementation", DISTINCT)
def test_two_runs_are_bitwise_equal(implementation):
    arguments = cast(example(130))
    # Compiled anew for each.
    first, second = (
        compiled.__wrapped__(IMPLEMENTATIONS[implementation])(arguments) for _ in range(2)
    )
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("implementation", ["reference", *DISTINCT])
def test_vmap(implementation):
    several = [example(17, seed=seed) for seed in range(3)]
    stacked = {k: jnp.stack([cast(one)[k] for one in several]) for k in several[0]}
    scan = lambda a: selective_scan(**a, implementation=IMPLEMENTATIONS[implementation])  # noqa: E731
    found = jax.vmap(scan)(stacked)
    for i, one in enumerate(several):
        assert relative_error(found[i], numpy_scan(one)[0]) < SCAN_FP32


def test_the_gradient_of_a_gradient_is_right():
    arguments = cast(example(9, batch=1, channels=3, state=2))

    def slope(implementation):
        def loss(u, delta):
            y = selective_scan(
                **(arguments | {"u": u, "delta": delta}), implementation=implementation
            )
            return jnp.sum(jnp.sin(y))

        grad = jax.grad(loss, argnums=(0, 1))

        def norm(u, delta):
            return sum(jnp.sum(g**2) for g in grad(u, delta))

        return jax.grad(norm, argnums=(0, 1))(arguments["u"], arguments["delta"])

    for found, expected in zip(slope(Chunked(4)), slope(Reference()), strict=True):
        assert relative_error(found, expected) < SCAN_FP32


@settings(max_examples=12, deadline=None)
@given(
    length=st.integers(1, 40),
    chunk=st.integers(1, 48),
    inner=st.sampled_from(["sequential", "associative"]),
    reverse=st.booleans(),
)
def test_the_chunk_length_changes_nothing(length, chunk, inner, reverse):
    arguments = example(length, batch=1, channels=3, state=2, seed=length)
    expected = numpy_scan(arguments, reverse=reverse)
    found = selective_scan_with_state(
        **cast(arguments), reverse=reverse, implementation=Chunked(chunk, inner)
    )
    assert relative_error(found[0], expected[0]) < SCAN_FP32
    assert relative_error(found[1], expected[1]) < SCAN_FP32


@pytest.mark.parametrize("inner", ["sequential", "associative"])
def test_memory_does_not_grow_with_the_states(inner):
    """131,072 tokens x 512 channels x 16 states with gradients; one state tensor is 4 GiB."""
    sequence = jax.ShapeDtypeStruct((1, 131_072, 512), jnp.float32)
    per_state = jax.ShapeDtypeStruct((1, 131_072, 16), jnp.float32)
    per_channel = jax.ShapeDtypeStruct((512,), jnp.float32)
    shapes = {
        "u": sequence,
        "delta": sequence,
        "A": jax.ShapeDtypeStruct((512, 16), jnp.float32),
        "B": per_state,
        "C": per_state,
        "D": per_channel,
        "z": sequence,
        "delta_bias": per_channel,
    }

    def gradients(arguments, cotangent):
        scan = lambda a: selective_scan(**a, implementation=Chunked(inner=inner))  # noqa: E731
        y, pull_back = jax.vjp(scan, arguments)
        return y, pull_back(cotangent)

    compiled = jax.jit(gradients).lower(shapes, sequence).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**30
