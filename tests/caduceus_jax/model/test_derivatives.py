"""Models under the transformations that reach into the kernels: second derivatives, exports with a
symbolic batch, shard_map with its default checks, strict promotion."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests.models import (
    KINDS,
    SMALL,
    kinds,
    language_model,
    random_ids,
)
from tests.tolerances import SCAN_FP32, relative_error

IDS = jnp.asarray(random_ids(8))
# A derivative of a model takes long to compile: one kind by default, and all of them with --slow.
COSTLY = [pytest.param(k, marks=() if k == "ps" else pytest.mark.slow) for k in KINDS]
BOTH = ("b, 8", "b, 4*l")
EXPORTED = {"ps": BOTH, "ph": BOTH[:1], "classifier": BOTH[1:], "tracks": BOTH[1:]}


def loss(model, ids=IDS):
    return jnp.sum(jnp.tanh(model(ids).logits))


def along(model, direction, step):
    return jax.tree.map(lambda p, d: p + step * d, model, direction)


@pytest.mark.parametrize("kind", COSTLY)
def test_second_derivatives(kind):
    """Hessian-vector products, reverse over reverse and forward over reverse."""
    model = kinds()[kind]
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size)).reshape(p.shape), model)
    slope = jax.grad(loss)

    @jax.jit
    def products(model):
        dot = lambda m: sum(map(jnp.vdot, *map(jax.tree.leaves, (slope(m), direction))))  # noqa: E731
        return jax.grad(dot)(model), jax.jvp(slope, (model,), (direction,))[1]

    backward, forward_ = products(model)
    for one, other in zip(*map(jax.tree.leaves, (backward, forward_)), strict=True):
        assert relative_error(one, other) < 1e-4
    if kind != "ps":
        return
    step, gradient = 1e-3, jax.jit(slope)
    ahead, behind = (gradient(along(model, direction, sign * step)) for sign in (1, -1))
    difference = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    flat = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (backward, difference)
    ]
    assert relative_error(*flat) < 2e-2


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        pytest.param(kind, sizes, marks=() if sizes in EXPORTED[kind] else pytest.mark.slow)
        for kind in KINDS
        for sizes in BOTH
    ],
)
def test_export_with_symbolic_sizes_is_serialised_and_read_back(kind, sizes):
    """The length is a multiple of the tracks' bin."""
    pytest.importorskip("flatbuffers", reason="jax.export serialises with it")
    model = kinds()[kind]
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape(sizes), jnp.int32)
    written = jax.export.export(jax.jit(lambda ids: model(ids)))(shape).serialize(vjp_order=0)
    out = jax.export.deserialize(written).call(IDS[:1])
    assert type(out) is type(model(IDS[:1]))
    assert relative_error(out.logits, model(IDS[:1]).logits) < SCAN_FP32


@pytest.mark.parametrize("kind", COSTLY)
def test_shard_map_as_jax_ships_it(kind):
    """With check_vma, its default: values, and gradients of parameters."""
    model = kinds()[kind]
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))

    def local(model, ids):
        return jax.lax.psum(loss(model, ids), "d"), model(ids).logits

    sharded = jax.shard_map(local, mesh=mesh, in_specs=(P(), P("d")), out_specs=(P(), P("d")))

    def run(f):
        return jax.jit(jax.value_and_grad(f, has_aux=True))(model, IDS)

    (value, logits), gradient = run(sharded)
    (expected, whole), single = run(lambda m, ids: (loss(m, ids), m(ids).logits))
    assert relative_error(logits, whole) < SCAN_FP32
    assert relative_error(value, expected) < SCAN_FP32
    for one, other in zip(*map(jax.tree.leaves, (gradient, single)), strict=True):
        assert relative_error(one, other) < 1e-4


@pytest.mark.parametrize("rcps", [True, False])
def test_strict_promotion_in_bfloat16(rcps):
    model = language_model(dtype=jnp.bfloat16, **SMALL, rcps=rcps)
    run = jax.jit(jax.value_and_grad(loss))
    expected, _ = run(model)
    with jax.numpy_dtype_promotion("strict"):
        value, gradient = run(model)
    assert value == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
