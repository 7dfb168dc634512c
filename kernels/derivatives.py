"""Derivatives of our own, in both modes.

`jax.custom_vjp` takes a backward pass and gives up forward mode. Here an operation has both: its
tangents are a linear map of the inputs' tangents, evaluated as JAX would in forward mode, and
transposed by our backward pass in reverse mode. The map is a primitive, because JAX offers no
function whose transpose can be given that also works under `jax.vmap`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from caduceus_jax.kernels.scan_inputs import RESIDUALS

Plan = TypeVar("Plan")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
# (plan, inputs, keep residuals) -> outputs, residuals
Forward = Callable[[Plan, Inputs, bool], tuple[Outputs, Any]]
# (plan, inputs, residuals, cotangents of the outputs) -> cotangents of the inputs
Backward = Callable[[Plan, Inputs, Any, Outputs], Inputs]


def differentiable(
    forward: Forward, backward: Backward, portable: Callable[[Plan, Inputs], Outputs] | None = None
) -> Callable[[Plan, Inputs], Outputs]:
    """Returns an operation on a tree of arrays with a backward pass of its own.

    Args:
        forward: called with what is fixed when the call is traced, the inputs, and whether to
            return residuals for `backward` beside the outputs; otherwise None stands for them.
        backward: returns a tree like the inputs: None where an input is None or has no gradient,
            and elsewhere a gradient of the input's shape and dtype.
        portable: computes the same outputs by operations that JAX can differentiate any number of
            times. Forward mode and second derivatives go through it. By default `forward` and
            `backward` themselves.
    """
    plain = portable or (lambda plan, inputs: forward(plan, inputs, False)[0])
    with_residuals, pull_back = functools.partial(_kept, forward), backward
    if portable is not None:
        with_residuals, pull_back = _differentiated(forward, backward, portable)

    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def operation(plan, inputs):
        return forward(plan, inputs, False)[0]

    def rule(plan, primals, tangents):
        (inputs,), (moved,) = primals, tangents
        outputs, residuals = with_residuals(plan, inputs)
        residuals = checkpoint_name(residuals, RESIDUALS)
        return outputs, _tangents(pull_back, plain, plan, inputs, residuals, outputs, moved)

    operation.defjvp(rule, symbolic_zeros=True)
    return operation


def _kept(forward, plan, inputs):
    return forward(plan, inputs, True)


def _differentiated(forward, backward, portable):
    """Makes `forward` with residuals, and `backward`, differentiable through `portable`.

    Residuals count as constants in both: how they depend on the inputs is in the derivative of
    `backward` with respect to the inputs. Primitives again: inside `lax.scan` a custom rule that
    another one calls is forgotten.
    """

    def with_residuals(plan, inputs):
        def rule(primals, tangents):
            (inputs,), (moved,) = primals, tangents
            outputs, residuals = with_residuals(plan, inputs)
            moved = _tangents(pull_back, portable, plan, inputs, residuals, outputs, moved)
            return (outputs, residuals), (moved, jax.tree.map(jnp.zeros_like, residuals))

        return with_tangents(functools.partial(_kept, forward, plan), rule, inputs)

    def pull_back(plan, inputs, residuals, cotangents):
        def again(inputs, cotangents):
            return jax.vjp(functools.partial(portable, plan), inputs)[1](cotangents)[0]

        def rule(primals, tangents):
            inputs, residuals, cotangents = primals
            moved, _, grown = jax.tree.map(_instantiated, tangents, is_leaf=_is_zero)
            _, change = jax.jvp(again, (inputs, cotangents), (moved, grown))
            found = pull_back(plan, inputs, residuals, cotangents)
            # Without what has no gradient.
            change = jax.tree.map(
                lambda x, y: None if x is None else y, found, change, is_leaf=lambda x: x is None
            )
            return found, change

        run = functools.partial(backward, plan)
        return with_tangents(run, rule, inputs, residuals, cotangents)

    return with_residuals, pull_back


def _tangents(backward, plain, plan, inputs, residuals, outputs, moved):
    """Returns the tangents of the outputs, given those of the inputs, some of them zero."""
    leaves, tree = _flatten(inputs)
    tangents = jax.tree.leaves(moved, is_leaf=lambda x: x is None or _is_zero(x))
    live = [i for i, x in enumerate(tangents) if x is not None and not _is_zero(x)]
    kept, kept_tree = jax.tree.flatten((inputs, residuals))
    outputs, outputs_tree = jax.tree.flatten(outputs)

    def push_forward(kept, tangents):
        leaves, _ = _flatten(kept_tree.unflatten(kept)[0])

        def run(*moving):
            given = dict(zip(live, moving, strict=True))
            whole = tree.unflatten([given.get(i, x) for i, x in enumerate(leaves)])
            return tuple(jax.tree.leaves(plain(plan, whole)))

        return jax.jvp(run, tuple(leaves[i] for i in live), tuple(tangents))[1]

    def pull_back(kept, cotangents):
        inputs, residuals = kept_tree.unflatten(kept)
        grads = backward(plan, inputs, residuals, outputs_tree.unflatten(cotangents))
        grads, _ = _flatten(grads)
        return tuple(grads[i] for i in live)

    if not live:
        return outputs_tree.unflatten(jnp.zeros_like(x) for x in outputs)
    types = tuple(jax.typeof(x) for x in outputs)
    found = linear_map(push_forward, pull_back, kept, [tangents[i] for i in live], types)
    return outputs_tree.unflatten(found)


def _flatten(tree: Any) -> tuple[list[Any], Any]:
    """Flattens as `jax.tree.flatten` does, with None as a leaf."""
    return jax.tree.flatten(tree, is_leaf=lambda x: x is None)


def _is_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero | ad.Zero)


def _instantiated(x: Any) -> jax.Array:
    return jnp.zeros(x.aval.shape, x.aval.dtype) if _is_zero(x) else x


def linear_map(
    function: Callable[..., tuple[jax.Array, ...]],
    transpose: Callable[..., tuple[jax.Array, ...]],
    constants: Sequence[jax.Array],
    arguments: Sequence[jax.Array],
    types: tuple[Any, ...],
) -> list[jax.Array]:
    """Returns `function(constants, arguments)`, linear in the arguments, with a given transpose.

    Args:
        function: called with two lists of arrays; returns a tuple of arrays.
        transpose: called with the constants and a cotangent for each result; returns a tuple of
            cotangents of the arguments.
        constants: values that both may depend on in any way.
        arguments: values that the result is linear in.
        types: types of the results, as `jax.typeof` gives them.
    """
    how = {"function": function, "transpose": transpose, "count": len(constants), "types": types}
    return _linear_map.bind(*constants, *arguments, **how)


_linear_map = core.Primitive("linear_map")
_linear_map.multiple_results = True


@_linear_map.def_impl
def _run(*operands, function, transpose, count, types):
    return list(function(list(operands[:count]), list(operands[count:])))


@_linear_map.def_abstract_eval
def _types(*_, types, **__):
    return list(types)


def _jvp(primals, tangents, *, function, count, **how):
    how |= {"function": function, "count": count}
    results = _linear_map.bind(*primals, **how)
    constants, arguments = list(primals[:count]), list(primals[count:])
    terms = []
    if not all(map(_is_zero, tangents[count:])):
        moved = map(ad.instantiate_zeros, tangents[count:])
        terms.append(_linear_map.bind(*constants, *moved, **how))
    live = [i for i, x in enumerate(tangents[:count]) if not _is_zero(x)]
    if live:

        def run(*moving):
            given = dict(zip(live, moving, strict=True))
            return function([given.get(i, x) for i, x in enumerate(constants)], arguments)

        moved = tuple(tangents[i] for i in live)
        terms.append(jax.jvp(run, tuple(constants[i] for i in live), moved)[1])
    return results, [functools.reduce(jnp.add, parts) for parts in zip(*terms, strict=True)]


def _transpose(cotangents, *operands, transpose, count, **_):
    cotangents = [ad.instantiate_zeros(x) for x in cotangents]
    found = transpose(list(operands[:count]), cotangents)
    wanted = map(ad.is_undefined_primal, operands[count:])
    return [None] * count + [x if y else None for x, y in zip(found, wanted, strict=True)]


def _batch(operands, axes, *, function, transpose, count, types):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    arguments = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands[count:], axes[count:], strict=True)
    ]
    how = {"in_axes": (list(axes[:count]), 0), "out_axes": 0, "axis_size": size}
    found = linear_map(
        jax.vmap(function, **how),
        jax.vmap(transpose, **how),
        operands[:count],
        arguments,
        tuple(core.unmapped_aval(size, 0, x) for x in types),
    )
    return found, [0] * len(types)


ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
mlir.register_lowering(_linear_map, mlir.lower_fun(_run, multiple_results=True))


def with_tangents(function: Callable[..., Any], rule: Callable[..., Any], *arguments: Any) -> Any:
    """Returns `function(*arguments)`, with tangents by a rule.

    Args:
        function: takes trees of arrays.
        rule: called with the arguments and with their tangents, some of them symbolic zeros;
            returns the results and their tangents.
        arguments: trees of arrays.
    """
    leaves, tree = jax.tree.flatten(arguments)

    def run(*leaves):
        return function(*tree.unflatten(leaves))

    traced, shapes = jax.make_jaxpr(run, return_shape=True)(*leaves)

    def flat_rule(primals, tangents):
        results = rule(tree.unflatten(primals), tree.unflatten(tangents))
        return [jax.tree.leaves(x) for x in results]

    results = _with_tangents.bind(*leaves, traced=traced, rule=flat_rule)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


_with_tangents = core.Primitive("with_tangents")
_with_tangents.multiple_results = True


@_with_tangents.def_impl
def _run_traced(*operands, traced, rule):
    return core.jaxpr_as_fun(traced)(*operands)


@_with_tangents.def_effectful_abstract_eval
def _traced_types(*_, traced, rule):
    # Pallas' interpreter for TPUs has effects, which keep its programs in order.
    return list(traced.out_avals), traced.effects


def _traced_jvp(primals, tangents, *, traced, rule):
    return rule(list(primals), list(tangents))


def _traced_batch(operands, axes, *, traced, rule):
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    how = {"out_axes": 0, "axis_size": size}
    mapped = tuple(axes)

    def batched_rule(primals, tangents):
        tangents = [_instantiated(x) for x in tangents]
        both = jax.vmap(rule, in_axes=(list(axes), list(axes)), **how)
        return both(list(primals), tangents)

    run = jax.vmap(core.jaxpr_as_fun(traced), in_axes=mapped, **how)
    results = _with_tangents.bind(
        *operands, traced=jax.make_jaxpr(run)(*operands), rule=batched_rule
    )
    return results, [0] * len(results)


ad.primitive_jvps[_with_tangents] = _traced_jvp
batching.primitive_batchers[_with_tangents] = _traced_batch
mlir.register_lowering(_with_tangents, mlir.lower_fun(_run_traced, multiple_results=True))
