"""Small training states, to be saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from caduceus_jax.train.step import init_state


def init(columns=3):
    """A state of two parameters."""
    params = {"a": jnp.arange(4.0), "w": jnp.arange(2.0 * columns).reshape(2, columns)}
    return init_state(params, optax.adam(1e-3))


def at(step):
    """The state, with every number raised by the step."""
    leaves, form = jax.tree.flatten(init())
    return jax.tree.unflatten(form, [leaf + jnp.asarray(step, leaf.dtype) for leaf in leaves])


def check_equal(state, expected):
    """Compares values and types of two states."""
    for stored, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(stored, leaf)
        assert stored.dtype == leaf.dtype
