"""The types of arrays inside `jax.shard_map`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from caduceus_jax.kernels import meshes


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
