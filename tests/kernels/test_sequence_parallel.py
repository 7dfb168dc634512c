import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from caduceus_jax.kernels import (
    Chunked,
    PallasTriton,
    Reference,
    bidirectional_conv1d,
    selective_scan,
    sequence_parallel,
)
from caduceus_jax.kernels import causal_conv1d as whole_conv
from tests.tolerances import SCAN_FP32, relative_error

LENGTH_AXIS = {"u", "delta", "B", "C", "z", "x"}


def split(function, shards, arrays, **options):
    """`function` on arrays whose length is split over so many devices."""
    devices = jax.devices()[:shards]
    mesh = jax.make_mesh((shards,), ("sequence",), axis_types=(AxisType.Auto,), devices=devices)
    specs = {name: P(None, "sequence") if name in LENGTH_AXIS else P() for name in arrays}
    return jax.shard_map(
        lambda given: function(**given, axis_name="sequence", **options),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=P(None, "sequence"),
        check_vma=False,
    )(arrays)


def value_and_gradients(function, arrays):
    """Of a sum in which every element of the result counts differently."""

    @jax.jit
    def run(arrays):
        y, pull = jax.vjp(function, arrays)
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]

    return run(arrays)


def assert_close(found, expected):
    paths = jax.tree_util.tree_leaves_with_path(expected)
    for (path, one), other in zip(paths, jax.tree.leaves(found), strict=True):
        assert relative_error(other, one) < SCAN_FP32, path


def scan_arrays(length, groups=2, channels=3, state=4, leave_out=()):
    batch, keys = 2, iter(jax.random.split(jax.random.key(0), 9))
    normal = lambda *shape: jax.random.normal(next(keys), shape)  # noqa: E731
    arrays = {
        "u": normal(batch, length, channels),
        # Slow enough that states cross several shards, fast enough that the last one matters.
        "delta": normal(batch, length, channels) - 2,
        "A": -jnp.exp(normal(groups, channels, state)),
        "B": normal(batch, length, state),
        "C": normal(batch, length, state),
        "D": normal(groups, channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(groups, channels),
        "initial_state": normal(batch, channels, state),
    }
    return {name: x for name, x in arrays.items() if name not in leave_out}


@pytest.mark.parametrize(
    ("length", "implementation", "leave_out", "reverse"),
    [
        (44, Chunked(4), (), False),
        (44, Chunked(4), (), True),
        (8, Reference(), ("D", "z", "delta_bias", "initial_state"), False),
        (12, PallasTriton(4), ("initial_state",), True),
        (4 * (sequence_parallel._CHUNK + 5), None, ("z",), True),
    ],
    ids=["chunked", "chunked reverse", "reference", "pallas_triton reverse", "pieces reverse"],
)
def test_a_scan_of_four_shards_is_the_scan(length, implementation, leave_out, reverse):
    """Values and the gradients of every input."""
    arrays = scan_arrays(length, leave_out=leave_out)
    options = {"reverse": reverse, "implementation": implementation}
    found = value_and_gradients(
        lambda arrays: split(sequence_parallel.selective_scan, 4, arrays, **options), arrays
    )
    expected = value_and_gradients(lambda arrays: selective_scan(**arrays, reverse=reverse), arrays)
    assert_close(found, expected)


def test_steps_may_be_given_as_they_are():
    arrays = scan_arrays(8, leave_out=("delta_bias",))
    arrays["delta"] = jnp.exp(arrays["delta"])
    found, expected = (
        value_and_gradients(function, arrays)
        for function in (
            lambda given: split(
                sequence_parallel.selective_scan, 2, given, delta_softplus=False, reverse=True
            ),
            lambda given: selective_scan(**given, delta_softplus=False, reverse=True),
        )
    )
    assert_close(found, expected)


def test_what_enters_a_shard_comes_from_all_before_it():
    """By hand: one channel, one state, decay 1/2 per token, an impulse at the first token."""
    ones = jnp.ones((1, 4, 1))
    arrays = {
        "u": jnp.array([1.0, 0, 0, 0]).reshape(1, 4, 1),
        "delta": ones,
        "A": jnp.full((1, 1), -jnp.log(2.0)),
        "B": ones,
        "C": ones,
    }
    run = functools.partial(split, sequence_parallel.selective_scan, 4, delta_softplus=False)
    np.testing.assert_allclose(run(arrays).ravel(), [1, 0.5, 0.25, 0.125], rtol=1e-6)
    arrays["u"] = arrays["u"][:, ::-1]
    np.testing.assert_allclose(run(arrays, reverse=True).ravel(), [0.125, 0.25, 0.5, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("length", "width", "reverse"), [(12, 4, True), (20, 4, False), (4, 1, False)]
)
def test_a_convolution_of_four_shards_is_the_convolution(length, width, reverse):
    """Shards of exactly the halo, longer ones, and no halo at all."""
    keys = jax.random.split(jax.random.key(1), 3)
    arrays = {
        "x": jax.random.normal(keys[0], (2, length, 3)),
        "weight": jax.random.normal(keys[1], (2, width, 3)),
        "bias": jax.random.normal(keys[2], (2, 3)),
    }
    found = value_and_gradients(
        lambda arrays: split(sequence_parallel.causal_conv1d, 4, arrays, reverse=reverse), arrays
    )
    expected = value_and_gradients(lambda arrays: whole_conv(**arrays, reverse=reverse), arrays)
    assert_close(found, expected)


def test_both_directions_of_four_shards_are_those_of_the_whole():
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = {"x": (2, 20, 3), "weight": (2, 2, 4, 3), "bias": (2, 2, 3)}
    arrays = {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def stacked(function):
        return lambda *a, **options: jnp.concatenate(function(*a, **options), axis=2)

    found = value_and_gradients(
        lambda arrays: split(stacked(sequence_parallel.bidirectional_conv1d), 4, arrays), arrays
    )
    expected = value_and_gradients(lambda a: stacked(bidirectional_conv1d)(**a), arrays)
    assert_close(found, expected)


def test_a_shard_shorter_than_the_halo_is_refused():
    arrays = {"x": jnp.ones((1, 8, 3)), "weight": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match="a shard has 2 tokens; .* width 4 needs at least 3"):
        split(sequence_parallel.causal_conv1d, 4, arrays)
