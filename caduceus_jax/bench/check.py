"""Checks an implementation of the scan: values and gradients against float64."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.costs import Shape
from caduceus_jax.kernels import causal_conv1d, selective_scan_with_state

# Largest difference over the largest magnitude; tests/tolerances.py derives them.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}

_SEQUENCES = ("u", "delta", "B", "C", "z", "conv_x")
_CONVOLUTION = ("conv_x", "conv_weight", "conv_bias")


class Problem(NamedTuple):
    """Inputs, cotangents of y and the final state, and the expected results from float64."""

    shape: Shape
    dtype: str
    reverse: bool
    inputs: dict[str, np.ndarray]
    cotangents: tuple[np.ndarray, np.ndarray]
    expected: dict[str, np.ndarray]


Arrays = tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]


def draw(shape: Shape, dtype: str, seed: int) -> Arrays:
    """Draws inputs of scan and convolution, optional arrays included, and cotangents.

    The cotangents are those of y, used for the convolution's result too, and of the final state.
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
    """Lowers an implementation; its compiled form is what `errors` takes."""
    options = {"reverse": reverse, "implementation": implementation}
    return _values_and_gradients.lower(*draw(shape, dtype, seed), **options)


def errors(problem: Problem, compiled: Callable[..., dict[str, jax.Array]]) -> dict[str, float]:
    """Returns the largest difference over the largest magnitude of every result and gradient."""
    found = compiled(*jax.tree.map(jnp.asarray, (problem.inputs, problem.cotangents)))
    return {
        name: float(
            np.abs(np.asarray(found[name], np.float64) - expected).max() / np.abs(expected).max()
        )
        for name, expected in problem.expected.items()
    }


def passes(errors: dict[str, float], dtype: str) -> bool:
    """Tells whether every error is within the tolerance; NaN is not."""
    return all(error <= TOLERANCES[dtype] for error in errors.values())


@functools.partial(jax.jit, static_argnames=("reverse", "implementation"))
def _values_and_gradients(
    inputs: dict[str, Any], cotangents: tuple[Any, Any], *, reverse: bool, implementation: Any
) -> dict[str, jax.Array]:
    options = {"reverse": reverse, "implementation": implementation}

    def run(inputs: dict[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Runs scan and convolution."""
        of_scan = {name: x for name, x in inputs.items() if name not in _CONVOLUTION}
        y, final = selective_scan_with_state(**of_scan, **options)
        return y, final, causal_conv1d(*(inputs[name] for name in _CONVOLUTION), **options)

    (y, final, conv), pull_back = jax.vjp(run, inputs)
    of_y, of_final = (x.astype(like.dtype) for x, like in zip(cotangents, (y, final), strict=True))
    (gradients,) = pull_back((of_y, of_final, of_y))
    results = {"y": y, "final_state": final, "conv": conv}
    return results | {f"d_{name}": x for name, x in gradients.items()}


def _cpu() -> Any:
    """Returns a CPU, where float64 is cheap, or the default device if JAX may use no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]
