"""A small check that an implementation computes here what it should.

Compilers and drivers differ from machine to machine, and a wrong kernel trains a wrong model
without a word. So before fused kernels are taken by default they are run once on a few numbers:
the scan and the convolution, in float32 and in bfloat16, in either direction, the convolution in
both at once too, with and without a gate, their values and all their gradients, against the
equations in float64.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caduceus_jax.kernels.causal_conv import bidirectional_conv1d, causal_conv1d
from caduceus_jax.kernels.options import Options
from caduceus_jax.kernels.selective_scan import selective_scan_with_state

Arrays = Mapping[str, np.ndarray]

# Two chunks, of which the second is ragged; channels that fill no block; a group per sequence.
_BATCH, _LENGTH, _CHUNK, _CHANNELS, _STATE, _WIDTH = 2, 160, 128, 40, 16, 4
# Of the largest magnitude of an array. Kernels are closer to float64 by an order of magnitude.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2}


class _Case(NamedTuple):
    """One way to run both operations; each compiles kernels of its own."""

    dtype: str
    reverse: bool
    gate: bool


_CASES = (_Case("float32", False, True), _Case("bfloat16", True, False))


class CheckFailed(Exception):
    """An implementation computes something else than it should."""


def check(options: Options) -> None:
    """Runs an implementation on JAX's default device and compares it with the equations.

    Args:
        options: the implementation's options.

    Raises:
        CheckFailed: an array is off; the message names it.
        Exception: the implementation cannot be compiled or run here.
    """
    if getattr(options, "chunk_length", _CHUNK) is None:
        options = dataclasses.replace(options, chunk_length=_CHUNK)
    drawn = [_draw(case) for case in _CASES]

    def run(arrays) -> list[Any]:
        """Runs every case."""
        return [_run(case, options, x) for case, x in zip(_CASES, arrays, strict=True)]

    found = jax.device_get(jax.jit(run)(drawn))
    for case, arrays, results in zip(_CASES, drawn, found, strict=True):
        exact = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
        for name, expected in _expected(case, exact):
            error = np.max(np.abs(np.asarray(results[name], np.float64) - expected))
            error /= np.max(np.abs(expected))
            if not error <= _TOLERANCES[case.dtype]:
                direction = "right to left" if case.reverse else "left to right"
                raise CheckFailed(f"{name} in {case.dtype}, {direction}, is off by {error:.1e}")


def _draw(case: _Case) -> dict[str, np.ndarray]:
    """Draws arguments like a trained model's, and cotangents of the results."""
    rng = np.random.default_rng(0)
    tokens, maps = (_BATCH, _LENGTH, _CHANNELS), (_BATCH, _LENGTH, _STATE)
    shapes = {name: tokens for name in ("u", "delta", "grad_y", "x")}
    shapes["grad_conv"] = (2, *tokens)
    shapes |= {"B": maps, "C": maps} | ({"z": tokens} if case.gate else {})
    drawn = {name: rng.normal(size=shape).astype(case.dtype) for name, shape in shapes.items()}
    channels, states = (_BATCH, _CHANNELS), (_BATCH, _CHANNELS, _STATE)
    wide = {
        "A": -np.exp(rng.uniform(-1, 2.5, size=states)),
        "D": rng.normal(size=channels),
        "delta_bias": rng.normal(size=channels) - 2,
        "initial_state": rng.normal(size=states),
        "grad_state": rng.normal(size=states),
        "weight": rng.normal(size=(2, _BATCH, _WIDTH, _CHANNELS)),
        "bias": rng.normal(size=(2, *channels)),
    }
    return drawn | {name: x.astype(np.float32) for name, x in wide.items()}


_SCANNED = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
_CONVOLVED = ("x", "weight", "bias")


def _run(case: _Case, options: Options, arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the results and gradients of both operations, by name."""
    how = {"reverse": case.reverse, "implementation": options}
    given = {name: arrays[name] for name in _SCANNED if name in arrays}
    (y, state), pull_back = jax.vjp(lambda x: selective_scan_with_state(**x, **how), given)
    (gradients,) = pull_back((arrays["grad_y"], arrays["grad_state"]))
    given = {name: arrays[name] for name in _CONVOLVED}
    both, pull_back = jax.vjp(lambda x: bidirectional_conv1d(**x, implementation=options), given)
    gradients |= pull_back(tuple(arrays["grad_conv"]))[0]
    this = int(case.reverse)
    given |= {name: given[name][this] for name in ("weight", "bias")}
    one, pull_back = jax.vjp(lambda x: causal_conv1d(**x, **how), given)
    alone = pull_back(arrays["grad_conv"][this])[0]
    gradients |= {f"{name} in one direction": x for name, x in alone.items()}
    results = {"y": y, "final state": state, "convolution": jnp.stack(both)}
    results["convolution in one direction"] = one
    return results | {f"gradient of {name}": x for name, x in gradients.items()}


def _expected(case: _Case, arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Computes what `_run` should find, in float64."""
    sequences = ("u", "delta", "B", "C", "z", "grad_y")
    # Right to left is left to right of what is flipped.
    flipped = {n: x[:, ::-1] if n in sequences else x for n, x in arrays.items()}
    results, gradients = _scan(flipped if case.reverse else arrays)
    for name, x in results.items():
        yield name, x[:, ::-1] if case.reverse and name != "final state" else x
    for name, x in gradients.items():
        yield f"gradient of {name}", x[:, ::-1] if case.reverse and name in sequences else x
    given = [arrays[name] for name in ("weight", "bias", "grad_conv")]
    left, right = (_convolution(arrays["x"], *(x[i] for x in given), bool(i)) for i in (0, 1))
    for name, x in (right if case.reverse else left).items():
        yield f"{name} in one direction", x
    for name, x in left.items():
        both = np.stack([x, right[name]])
        yield name, both.sum(0) if name == "gradient of x" else both


def _scan(x: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Computes the scan and its gradients, token by token; sequences share no parameters."""
    u, b, c, a, skip = x["u"], x["B"], x["C"], x["A"], x["D"][:, None]
    before = x["delta"] + x["delta_bias"][:, None]
    step, slope = np.logaddexp(0, before), _sigmoid(before)
    states = [x["initial_state"]]
    for t in range(_LENGTH):
        drive = (step * u)[:, t, :, None] * b[:, t, None]
        states.append(np.exp(step[:, t, :, None] * a) * states[-1] + drive)
    h = np.stack(states, 1)
    y, grad, gradients = np.einsum("btdn,btn->btd", h[:, 1:], c) + skip * u, x["grad_y"], {}
    if "z" in x:
        sigmoid = _sigmoid(x["z"])
        gradients["z"] = grad * y * sigmoid * (1 + x["z"] * (1 - sigmoid))
        y, grad = y * x["z"] * sigmoid, grad * x["z"] * sigmoid
    # adjoint is the gradient with respect to the state, along every path through later states.
    adjoint, adjoints, through_delta, grad_a = x["grad_state"], [], [], np.zeros_like(a)
    for t in reversed(range(_LENGTH)):
        adjoint = adjoint + grad[:, t, :, None] * c[:, t, None]
        adjoints.append(adjoint)
        adjoint = np.exp(step[:, t, :, None] * a) * adjoint
        through_decay = adjoint * h[:, t]
        grad_a += through_decay * step[:, t, :, None]
        through_delta.append((through_decay * a).sum(-1))
    g = np.stack(adjoints[::-1], 1)
    drive = np.einsum("btdn,btn->btd", g, b)
    grad_delta = (drive * u + np.stack(through_delta[::-1], 1)) * slope
    gradients |= {
        "u": drive * step + skip * grad,
        "delta": grad_delta,
        "A": grad_a,
        "B": np.einsum("btdn,btd->btn", g, step * u),
        "C": np.einsum("btdn,btd->btn", h[:, 1:], grad),
        "D": (grad * u).sum(1),
        "delta_bias": grad_delta.sum(1),
        "initial_state": adjoint,
    }
    return {"y": y, "final state": h[:, -1]}, gradients


def _convolution(x, weight, bias, grad, reverse: bool) -> dict[str, np.ndarray]:
    """Computes the convolution with SiLU and its gradients; sequences share no filter."""
    if reverse:
        x, grad = x[:, ::-1], grad[:, ::-1]
    rows, before = weight[:, :, None], ((0, 0), (_WIDTH - 1, 0), (0, 0))
    padded = np.pad(x, before)
    taps = [padded[:, k : k + _LENGTH] for k in range(_WIDTH)]
    y = bias[:, None] + sum(rows[:, k] * tap for k, tap in enumerate(taps))
    sigmoid = _sigmoid(y)
    grad = grad * sigmoid * (1 + y * (1 - sigmoid))
    after = np.pad(grad, (before[0], before[1][::-1], before[2]))
    grad_x = sum(
        rows[:, k] * after[:, _WIDTH - 1 - k : _WIDTH - 1 - k + _LENGTH] for k in range(_WIDTH)
    )
    found = {"convolution": y * sigmoid, "gradient of x": grad_x}
    return {name: array[:, ::-1] if reverse else array for name, array in found.items()} | {
        "gradient of weight": np.stack([(grad * tap).sum(1) for tap in taps], 1),
        "gradient of bias": grad.sum(1),
    }


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
