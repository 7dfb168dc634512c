"""Counts the Pallas kernels of a traced program."""

import collections

import jax
from jax.extend import core


def kernels_of(jaxpr: core.Jaxpr) -> collections.Counter[str]:
    """Returns how often each kernel is run by a traced program and by what it calls."""
    found = collections.Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            found[str(equation.params["name"])] += 1
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(inner, core.Jaxpr | core.ClosedJaxpr):
                found += kernels_of(getattr(inner, "jaxpr", inner))
    return found
