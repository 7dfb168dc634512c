"""Whether an implementation computes what it should: values and gradients against float64."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.costs import Shape
from caduceus_jax.kernels import causal_conv1d, selective_scan_with_state

# Largest difference over the largest magnitude; why so much: tests/tolerances.py.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}

_SEQUENCES = ("u", "delta", "B", "C", "z", "conv_x")
_CONVOLUTION = ("conv_x", "conv_weight", "conv_bias")


class Problem(NamedTuple):
    """Inputs, cotangents of y and final state, and what float64 makes of them."""

    shape: Shape
    dtype: str
    reverse: bool
    inputs: dict[str, np.ndarray]
    cotangents: tuple[np.ndarray, np.ndarray]
    expected: dict[str, np.ndarray]


Arrays = tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]


def draw(shape: Shape, dtype: str, seed: int) -> Arrays:
    """Inputs of scan and convolution with every optional array, and cotangents.

    The latter are of y, which serves the convolution too, and of the final state.
    """
    rng = np.random.default_rng(seed)
    batch, length, channels, state = shape
    exact = {
        "u": rng.normal(size=(batch, length, channels)),
        "delta": rng.normal(size=(batch, length, channels)),
        "A": -np.exp(rng.uniform(-1, 2.5, size=(channels, state))),
        "B": rng.normal(size=(batch, length, state)),
        "C": rng.normal(size=(batch, length, state)),
        "D": rng.normal(size=(channels,)),
        "z": rng.normal(size=(batch, length, channels)),
        "delta_bias": rng.normal(size=(channels,)) - 2,
        "initial_state": rng.normal(size=(batch, channels, state)),
        "conv_x": rng.normal(size=(batch, length, channels)),
        "conv_weight": rng.normal(size=(4, channels)),
        "conv_bias": rng.normal(size=(channels,)),
    }
    inputs = {
        name: value.astype(jnp.dtype(dtype if name in _SEQUENCES else "float32"))
        for name, value in exact.items()
    }
    cotangents = (
        rng.normal(size=exact["u"].shape).astype(jnp.dtype(dtype)),
        rng.normal(size=exact["initial_state"].shape).astype(np.float32),
    )
    return inputs, cotangents


def problem(shape: Shape, dtype: str, reverse: bool, seed: int) -> Problem:
    """Computes the reference in float64 on the CPU, from the same rounded numbers."""
    inputs, cotangents = draw(shape, dtype, seed)
    with jax.enable_x64(True), jax.default_device(_cpu()):
        wide = jax.tree.map(lambda x: x.astype(np.float64), (inputs, cotangents))
        expected = _values_and_gradients(*wide, reverse=reverse, implementation="reference")
        expected = {name: np.asarray(value) for name, value in expected.items()}
    return Problem(shape, dtype, reverse, inputs, cotangents, expected)


def lower(
    shape: Shape, dtype: str, reverse: bool, seed: int, implementation: Any
) -> jax.stages.Lowered:
    """An implementation, ready to be compiled for `errors`."""
    options = {"reverse": reverse, "implementation": implementation}
    return _values_and_gradients.lower(*draw(shape, dtype, seed), **options)


def errors(problem: Problem, compiled: Callable[..., dict[str, jax.Array]]) -> dict[str, float]:
    """Of every result and every gradient: largest difference over largest magnitude."""
    found = compiled(*jax.tree.map(jnp.asarray, (problem.inputs, problem.cotangents)))
    return {
        name: float(
            np.abs(np.asarray(found[name], np.float64) - expected).max() / np.abs(expected).max()
        )
        for name, expected in problem.expected.items()
    }


def passes(errors: dict[str, float], dtype: str) -> bool:
    """Every error is within the tolerance; not a number is not."""
    return all(error <= TOLERANCES[dtype] for error in errors.values())


@functools.partial(jax.jit, static_argnames=("reverse", "implementation"))
def _values_and_gradients(inputs, cotangents, *, reverse: bool, implementation: Any):
    options = {"reverse": reverse, "implementation": implementation}

    def run(inputs):
        of_scan = {name: x for name, x in inputs.items() if name not in _CONVOLUTION}
        y, final = selective_scan_with_state(**of_scan, **options)
        return y, final, causal_conv1d(*(inputs[name] for name in _CONVOLUTION), **options)

    (y, final, conv), pull_back = jax.vjp(run, inputs)
    of_y, of_final = (x.astype(like.dtype) for x, like in zip(cotangents, (y, final), strict=True))
    (gradients,) = pull_back((of_y, of_final, of_y))
    results = {"y": y, "final_state": final, "conv": conv}
    return results | {f"d_{name}": x for name, x in gradients.items()}


def _cpu() -> Any:
    """Where float64 costs little; the default device where JAX was told to look at no other."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
