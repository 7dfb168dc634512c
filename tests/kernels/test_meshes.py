"""The types of arrays inside `jax.shard_map`, and channels that devices share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from caduceus_jax.kernels import (
    bidirectional_conv1d,
    causal_conv1d,
    meshes,
    selective_scan_with_state,
)
from tests.kernels.scan_cases import cast, example
from tests.tolerances import SCAN_FP32, relative_error


def shard(function, x, check_vma=True):
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,))
    specs = {"in_specs": PartitionSpec("data"), "out_specs": PartitionSpec("data")}
    return jax.shard_map(function, mesh=mesh, check_vma=check_vma, **specs)(x)


def test_arrays_vary_over_no_axis_outside_of_a_mesh():
    x = jnp.ones(3)
    assert meshes.varying_axes(x) == frozenset()
    assert meshes.vary_over(x, frozenset()) is x


def test_constants_vary_like_the_arrays_beside_them():
    def inside(x):
        constant = jnp.ones(2)
        assert meshes.varying_axes(x) == {"data"} and meshes.varying_axes(constant) == frozenset()
        alike = meshes.vary_alike((x, constant))
        assert [meshes.varying_axes(leaf) for leaf in alike] == [{"data"}] * 2
        shape = meshes.shape_like((4, 5), jnp.float32, x)
        assert (shape.shape, shape.dtype) == ((4, 5), jnp.float32)
        return x * alike[1]

    np.testing.assert_array_equal(shard(inside, jnp.asarray([3.0, 4.0])), [3, 4])


def scan():
    arguments = cast(example(6, batch=2, channels=4, state=2, groups=2))
    return functools.partial(selective_scan_with_state, implementation="chunked"), arguments


def convolution():
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6, 4), "weight": (2, 4, 4), "bias": (2, 4)}
    arguments = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    return (lambda **a: (causal_conv1d(**a),)), arguments


def both_ways():
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6, 4), "weight": (2, 2, 4, 4), "bias": (2, 2, 4)}
    arguments = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    return bidirectional_conv1d, arguments


def mesh_of(count):
    devices = jax.devices()[:count]
    return jax.make_mesh((count,), (meshes.CHANNELS,), (AxisType.Auto,), devices=devices)


def results_and_gradients(operation):
    """A function of the arguments."""

    def total(arguments):
        results = operation(**arguments)
        return sum(jnp.sum(jnp.sin(x)) for x in results), results

    return jax.jit(jax.grad(total, has_aux=True))


@pytest.mark.parametrize("make", [scan, convolution, both_ways])
def test_devices_share_the_channels_of_each_sequence(make):
    operation, arguments = make()
    expected = results_and_gradients(operation)(arguments)
    with jax.set_mesh(mesh_of(2)):
        found = results_and_gradients(operation)(arguments)
    (_, (whole, *_)) = found
    assert whole.sharding.spec == PartitionSpec(None, None, meshes.CHANNELS)
    assert {shard.data.shape[-1] for shard in whole.addressable_shards} == {2}
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert relative_error(one, other) < SCAN_FP32


def test_channels_that_devices_cannot_share_stay_together():
    operation, arguments = convolution()
    three = {name: x[..., :3] for name, x in arguments.items()}
    with jax.set_mesh(mesh_of(2)):
        (found,) = jax.jit(operation)(**three)
    np.testing.assert_allclose(found, operation(**three)[0], rtol=1e-6)
