"""The transformations of JAX, of every operation in every implementation.

Each is compared with what the reference gives in float64. What an implementation does not have it
refuses in one sentence.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from caduceus_jax.kernels import (
    Chunked,
    MosaicTPU,
    PallasTriton,
    Reference,
    bidirectional_conv1d,
    causal_conv1d,
    selective_scan,
    selective_scan_with_state,
)
from tests.kernels.scan_cases import cast, example
from tests.tolerances import SCAN_FP32, relative_error


def scan(implementation):
    """The operation as a function of its arguments, whose results are a tuple; and those."""
    arguments = example(6, batch=2, channels=2, state=2, groups=2)
    return (lambda a: selective_scan_with_state(**a, implementation=implementation)), arguments


def convolution(implementation):
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6, 3), "weight": (2, 4, 3), "bias": (2, 3)}
    arguments = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return (lambda a: (causal_conv1d(**a, implementation=implementation),)), arguments


def both_ways(implementation):
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 6, 3), "weight": (2, 2, 4, 3), "bias": (2, 2, 3)}
    arguments = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return (lambda a: bidirectional_conv1d(**a, implementation=implementation)), arguments


PORTABLE = {
    "reference": (scan, Reference()),
    "chunked": (scan, Chunked(4)),
    "associative": (scan, Chunked(4, "associative")),
    "convolution": (convolution, "chunked"),
    "both ways": (both_ways, "chunked"),
}
FUSED = {
    "pallas-triton": (scan, PallasTriton(4)),
    "mosaic-tpu convolution": (convolution, MosaicTPU()),
    "mosaic-tpu both ways": (both_ways, MosaicTPU()),
}
EVERY = PORTABLE | FUSED
EXACT = {scan: Reference(), convolution: "chunked", both_ways: "chunked"}
LAST = {scan: "D", convolution: "bias", both_ways: "bias"}  # a small argument
LENGTHY = {"u", "delta", "B", "C", "z", "x"}


def named(operations, *others):
    """Parameters: the operations' names, each with each of the others."""
    # To interpret Pallas' Triton kernels takes long; the others are further cases.
    slow = ("pallas-triton", "reference", "associative", "mosaic-tpu both ways")
    cases = itertools.product(operations, *others)
    return [
        pytest.param(*case, marks=pytest.mark.slow if case[0] in slow else ()) for case in cases
    ]


def loss(run):
    return lambda a: sum(jnp.sum(jnp.sin(x)) for x in run(a))


def tangents(arguments):
    return {
        k: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for k, x in arguments.items()
    }


def along(gradient, tangent):
    return sum(jnp.vdot(gradient[name], tangent[name]) for name in gradient)


def layers(run):
    """The operation three times, in `lax.scan` as a model's blocks are."""

    def layer(hidden, arguments):
        first = "u" if "u" in arguments else "x"
        return run(arguments | {first: hidden})[0], None

    def total(arguments):
        first = "u" if "u" in arguments else "x"
        stacked = jax.tree.map(lambda x: jnp.stack([x] * 3), arguments)
        return jnp.sum(jax.lax.scan(layer, arguments[first], stacked)[0] ** 2)

    return total


def of_one(function, name):
    """`function` of one argument alone."""
    return lambda a: lambda x: function(a | {name: x})


# Name -> function of (the operation, its arguments, tangents, the name of a small argument).
DERIVATIVES = {
    "gradient": lambda f, a, t, _: jax.grad(loss(f))(a),
    "jvp": lambda f, a, t, _: jax.jvp(f, (a,), (t,)),
    "jvp of one": lambda f, a, t, n: jax.jvp(of_one(f, n)(a), (a[n],), (t[n],)),
    "jacfwd": lambda f, a, t, n: jax.jacfwd(of_one(f, n)(a))(a[n]),
    "linearize": lambda f, a, t, _: jax.linearize(f, a)[1](t),
    "forward over reverse": lambda f, a, t, _: jax.jvp(jax.grad(loss(f)), (a,), (t,))[1],
    "reverse over reverse": lambda f, a, t, _: jax.grad(lambda a: along(jax.grad(loss(f))(a), t))(
        a
    ),
    "reverse over forward": lambda f, a, t, _: jax.grad(lambda a: jax.jvp(loss(f), (a,), (t,))[1])(
        a
    ),
    "hessian": lambda f, a, t, n: jax.hessian(of_one(loss(f), n)(a))(a[n]),
    "gradient of layers": lambda f, a, t, _: jax.grad(layers(f))(a),
    "forward over reverse of layers": lambda f, a, t, _: jax.jvp(jax.grad(layers(f)), (a,), (t,))[
        1
    ],
    "reverse over reverse of layers": lambda f, a, t, _: jax.grad(
        lambda a: along(jax.grad(layers(f))(a), t)
    )(a),
    "gradient of layers, recomputed": lambda f, a, t, _: jax.grad(jax.checkpoint(layers(f)))(a),
}


def derive(derivative, make, implementation, dtype):
    run, arguments = make(implementation)
    arguments = cast(arguments, dtype)
    function = jax.jit(DERIVATIVES[derivative], static_argnums=(0, 3))
    return function(run, arguments, tangents(arguments), LAST[make])


@functools.cache
def in_float64(derivative, make):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, derive(derivative, make, EXACT[make], jnp.float64))


# Interpreted kernels take long to compile: those derivatives that contain the others. The rules of
# derivatives are one code for all: of the other portable operations, the others with --slow.
FEW = ("jvp", "forward over reverse", "reverse over reverse of layers")
OTHERS = [
    pytest.param(operation, x, marks=() if x in FEW else pytest.mark.slow)
    for operation in ("associative", "convolution")
    for x in DERIVATIVES
]


@pytest.mark.parametrize(
    ("operation", "derivative"),
    [("chunked", x) for x in DERIVATIVES] + OTHERS + named(FUSED, FEW),
)
def test_derivatives(operation, derivative):
    make, implementation = EVERY[operation]
    results = derive(derivative, make, implementation, jnp.float32)
    expected = in_float64(derivative, make)
    # Sums of sums: what several paths add up to cancels.
    tolerance = 10 * SCAN_FP32
    for one, other in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        assert one.dtype == jnp.float32
        assert relative_error(one, other) < tolerance


def test_second_derivatives_of_the_tpu_kernels():
    """They go through the portable scan."""
    run, arguments = scan(MosaicTPU())
    arguments = cast(arguments)
    both = {
        name: jax.jit(lambda a, f=f: jax.jvp(jax.grad(loss(f)), (a,), (tangents(a),)))(arguments)
        for name, f in (("fused", run), ("reference", scan(Reference())[0]))
    }
    for one, other in zip(*map(jax.tree.leaves, both.values()), strict=True):
        assert relative_error(one, other) < 2 * SCAN_FP32


def several(arguments, names):
    """Three examples of some arguments, along a new first axis."""
    scales = jnp.asarray([1.0, 0.9, 1.1])
    return {
        k: jnp.stack([x * s for s in scales]) if k in names else x for k, x in arguments.items()
    }


@functools.cache
def exact(make):
    """The reference's loss and its gradient, compiled once."""
    return jax.jit(jax.value_and_grad(loss(make(EXACT[make])[0])))


@pytest.mark.parametrize(
    ("operation", "mapped"),
    [
        *(("chunked", x) for x in ("everything", "sequences", "one sequence", "parameters")),
        *(("convolution", x) for x in ("everything", "one sequence", "parameters")),
        *named(FUSED, ("everything", "one sequence")),
    ],
)
def test_vmap(operation, mapped):
    """Gradients of each example, of every argument, whether examples share it or not."""
    make, implementation = EVERY[operation]
    run, arguments = make(implementation)
    arguments = cast(arguments)
    names = {
        "everything": arguments.keys(),
        "sequences": arguments.keys() & (LENGTHY | {"initial_state"}),
        "one sequence": arguments.keys() & {"u", "x"},
        "parameters": arguments.keys() - LENGTHY - {"initial_state"},
    }[mapped]
    examples = several(arguments, names)
    axes = ({k: 0 if k in names else None for k in arguments},)

    @jax.jit
    def both(examples):
        each = jax.vmap(jax.value_and_grad(loss(run)), in_axes=axes)(examples)
        return each, jax.grad(lambda a: jax.vmap(loss(run), in_axes=axes)(a).sum())(examples)

    (values, gradients), summed = both(examples)
    reference = exact(make)
    expected = [
        reference({k: x[i] if k in names else x for k, x in examples.items()}) for i in range(3)
    ]
    for i, (value, gradient) in enumerate(expected):
        assert relative_error(values[i], value) < SCAN_FP32
        for name in arguments:
            assert relative_error(gradients[name][i], gradient[name]) < 2 * SCAN_FP32, name
    for name in arguments:
        total = gradients[name] if name in names else gradients[name].sum(0)
        assert relative_error(summed[name], total) < SCAN_FP32, name


def launches(jaxpr):
    """The grids of all kernels in a program, by name."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found.append((equation.params["name"], equation.params["grid_mapping"].grid))
        for inner in core.jaxprs_in_params(equation.params):
            found += launches(inner)
    return found


@pytest.mark.parametrize(
    ("implementation", "kernels", "programs"),
    [
        (PallasTriton(8), ("outputs", "adjoints", "gradients"), (5 * 4, 1)),
        (MosaicTPU(), ("forward", "backward"), (5 * 4, 1, 1)),
    ],
    ids=["pallas-triton", "mosaic-tpu"],
)
def test_examples_are_one_launch(implementation, kernels, programs):
    arguments = cast(example(6, batch=4, channels=2, state=2, groups=2))
    names = {"u", "A"}
    axes = ({k: 0 if k in names else None for k in arguments},)
    examples = {k: jnp.stack([x] * 5) if k in names else x for k, x in arguments.items()}
    run = loss(lambda a: selective_scan_with_state(**a, implementation=implementation))

    for function in (
        lambda a: jax.vmap(jax.grad(run), in_axes=axes)(a),
        jax.grad(lambda a: jax.vmap(run, in_axes=axes)(a).sum()),
    ):
        # Lowered, because derivatives are still functions in what is traced.
        found = launches(jax.make_jaxpr(function)(examples).jaxpr)
        found = {name.removeprefix("selective_scan_"): grid for name, grid in found}
        assert found == dict.fromkeys(kernels, programs)


# jax.shard_map as it is by default: the types of arrays say over which axes they vary.
def split(arguments):
    """Which arguments of an operation are split over the mesh along the batch."""
    return {k: P("d") if k in LENGTHY | {"initial_state"} else P() for k in arguments}


def mesh_of(kind):
    return jax.make_mesh((2,), ("d",), axis_types=(kind,), devices=jax.devices()[:2])


FEWER = ("initial_state", "D", "bias")


@pytest.mark.parametrize(
    ("operation", "without"),
    [
        pytest.param(operation, without, id=f"{operation}-{name}", marks=marks)
        for operations, marks in (
            (("chunked", "convolution"), ()),
            (("reference", "associative"), pytest.mark.slow),
        )
        for operation in operations
        for name, without in (("all", ()), ("fewer", FEWER))
    ],
)
def test_shard_map(operation, without):
    make, implementation = PORTABLE[operation]
    run, arguments = make(implementation)
    arguments = {k: x[:, :] for k, x in cast(arguments).items() if k not in without}
    arguments = {k: x[:1] if k not in split(arguments) else x for k, x in arguments.items()}
    # One group: each of two devices has one sequence.
    arguments = {k: x if split(arguments)[k] == P("d") else x[0] for k, x in arguments.items()}
    where, mesh = split(arguments), mesh_of(AxisType.Auto)

    def total(a):
        return jax.lax.psum(loss(run)(a), "d")

    def mapped(function, results):
        return jax.shard_map(function, mesh=mesh, in_specs=(where,), out_specs=results)

    one = {k: jnp.sin(x) for k, x in arguments.items()}

    @jax.jit
    def found(a):
        return {
            "values": mapped(lambda a: run(a)[0], P("d"))(a),
            "gradient outside": jax.grad(lambda a: mapped(total, P())(a))(a),
            "gradient inside": mapped(jax.grad(total), where)(a),
            "jvp": mapped(lambda a: jax.jvp(total, (a,), (a,))[1], P())(a),
        }

    @jax.jit
    def expected(a):
        gradient = jax.grad(loss(run))(a)
        return {
            "values": run(a)[0],
            "gradient outside": gradient,
            "gradient inside": gradient,
            "jvp": jax.jvp(loss(run), (a,), (a,))[1],
        }

    found, expected = found(one), expected(one)
    for name in expected:
        leaves = zip(*map(jax.tree.leaves, (found[name], expected[name])), strict=True)
        for x, y in leaves:
            assert relative_error(x, y) < 2 * SCAN_FP32, name


@pytest.mark.parametrize("operation", named(FUSED))
def test_interpreted_kernels_say_what_shard_map_needs(operation):
    make, implementation = FUSED[operation]
    run, arguments = make(implementation)
    arguments = cast(arguments)
    arguments = {k: x if split(arguments)[k] == P("d") else x[0] for k, x in arguments.items()}

    def mapped(**options):
        where = (split(arguments),)
        return jax.jit(
            jax.shard_map(
                lambda a: run(a)[0],
                mesh=mesh_of(AxisType.Auto),
                in_specs=where,
                out_specs=P("d"),
                **options,
            )
        )(arguments)

    with pytest.raises(NotImplementedError, match="supported: check_vma=False, or .*'chunked'"):
        mapped()
    assert relative_error(mapped(check_vma=False), run(arguments)[0]) < SCAN_FP32


@pytest.mark.parametrize("operation", named(EVERY))
def test_explicit_meshes(operation):
    """Arrays on a mesh as `jax.make_mesh` makes it: results are sharded as u or x is."""
    make, implementation = EVERY[operation]
    run, arguments = make(implementation)
    arguments, mesh = cast(arguments), mesh_of(AxisType.Explicit)
    arguments = {k: x if split(arguments)[k] == P("d") else x[0] for k, x in arguments.items()}
    where = split(arguments)
    placed = {k: jax.device_put(x, NamedSharding(mesh, where[k])) for k, x in arguments.items()}
    with jax.set_mesh(mesh):
        y = jax.jit(run)(placed)[0]
        gradient = jax.jit(jax.grad(loss(run)))(placed)
    assert jax.typeof(y).sharding.spec == P("d", None, None)
    assert relative_error(y, run(arguments)[0]) < SCAN_FP32
    expected = jax.jit(jax.grad(loss(run)))(arguments)
    for name, x in gradient.items():
        assert jax.typeof(x).sharding.spec == jax.typeof(placed[name]).sharding.spec, name
        assert relative_error(x, expected[name]) < SCAN_FP32, name


@pytest.mark.parametrize(
    ("operation", "sizes"),
    [
        *named(PORTABLE, ("batch, length",)),
        *(pytest.param(x, "batch, 6", marks=pytest.mark.slow) for x in ("chunked", "convolution")),
        ("chunked", "batch, 32*length"),
    ],
)
def test_export_with_symbolic_sizes(operation, sizes):
    make, implementation = PORTABLE[operation]
    run, arguments = make(implementation)
    arguments = {k: x if split(arguments)[k] == P("d") else x[0] for k, x in arguments.items()}
    arguments = cast(arguments)
    batch, length = jax.export.symbolic_shape(sizes)

    def symbolic(name, x):
        lead = {0: batch, 1: length} if name in LENGTHY else {}
        lead = {0: batch} if name == "initial_state" else lead
        shape = tuple(lead.get(i, n) for i, n in enumerate(x.shape))
        return jax.ShapeDtypeStruct(shape, x.dtype)

    shapes = {name: symbolic(name, x) for name, x in arguments.items()}
    if "32" in sizes:
        arguments = {
            k: jnp.concatenate([x] * 16, axis=1)[:, :64] if k in LENGTHY else x
            for k, x in arguments.items()
        }
    for function in (run, jax.grad(loss(run))):
        exported = jax.export.export(jax.jit(function))(shapes)
        found, expected = exported.call(arguments), jax.jit(function)(arguments)
        for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert relative_error(x, y) < SCAN_FP32


@pytest.mark.parametrize("operation", named(FUSED))
def test_kernels_refuse_symbolic_sizes(operation):
    make, implementation = FUSED[operation]
    run, arguments = make(implementation)
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = {
        k: jax.ShapeDtypeStruct(
            (batch, *x.shape[1:]) if split(arguments)[k] == P("d") else x.shape[1:], jnp.float32
        )
        for k, x in arguments.items()
    }
    with pytest.raises(
        NotImplementedError, match="supported: sizes that are numbers, or .*chunked"
    ):
        jax.export.export(jax.jit(run))(shapes)


@pytest.mark.parametrize("operation", named(EVERY))
def test_strict_dtype_promotion(operation):
    make, implementation = EVERY[operation]
    run, arguments = make(implementation)
    arguments = cast(arguments, jnp.bfloat16)

    def total(a):
        return sum(jnp.sum(jnp.sin(x.astype(jnp.float32))) for x in run(a))

    with jax.numpy_dtype_promotion("strict"):
        strict = jax.jit(jax.value_and_grad(total))(arguments)
    usual = jax.jit(jax.value_and_grad(total))(arguments)
    for x, y in zip(*map(jax.tree.leaves, (strict, usual)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("operation", ["chunked", "convolution"])
def test_other_transformations(operation):
    """`jax.eval_shape`, `jax.lax.cond`, `jax.lax.map`, several cotangents, `jax.disable_jit`."""
    make, implementation = PORTABLE[operation]
    run, arguments = make(implementation)
    arguments = cast(arguments)
    value, gradient = jax.jit(jax.value_and_grad(loss(run)))(arguments)
    shapes = jax.eval_shape(jax.grad(loss(run)), arguments)
    assert {k: x.shape for k, x in shapes.items()} == {k: x.shape for k, x in arguments.items()}

    @jax.jit
    def chosen(a):
        return jax.lax.cond(jnp.sum(a[LAST[make]]) < 1e9, loss(run), lambda a: 0.0, a)

    found = jax.grad(chosen)(arguments)
    examples = jax.tree.map(lambda x: x[None], arguments)
    mapped = jax.lax.map(jax.grad(loss(run)), examples)
    for name in arguments:
        assert relative_error(found[name], gradient[name]) < SCAN_FP32
        assert relative_error(mapped[name][0], gradient[name]) < SCAN_FP32
    _, pull = jax.vjp(loss(run), arguments)
    (pulled,) = jax.jit(jax.vmap(pull))(jnp.asarray([1.0, 2.0]))
    for name in arguments:
        assert relative_error(pulled[name][1], 2 * gradient[name]) < SCAN_FP32
    with jax.disable_jit(True):
        assert relative_error(loss(run)(arguments), value) < SCAN_FP32


def test_forward_mode_of_a_linear_argument():
    """In every implementation; the fused kernels go through the portable scan."""
    arguments = cast(example(6, batch=1, channels=2, state=2))
    for implementation in ("chunked", "pallas_triton", "reference"):

        def run(u, implementation=implementation):
            return selective_scan(**arguments | {"u": u}, implementation=implementation)

        _, moved = jax.jit(lambda u, run=run: jax.jvp(run, (u,), (jnp.ones_like(u),)))(
            arguments["u"]
        )
        # y is linear in u, apart from what the initial state adds.
        nothing = run(jnp.zeros_like(arguments["u"]))
        whole = run(jnp.ones_like(arguments["u"]))
        assert relative_error(moved, whole - nothing) < 2 * SCAN_FP32
