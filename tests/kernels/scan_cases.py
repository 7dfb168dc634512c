"""What the tests of several implementations of the scan share: cases, and what is expected."""

import contextlib
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from caduceus_jax.kernels import (
    Chunked,
    MosaicTPU,
    PallasTriton,
    Reference,
    Triton,
    selective_scan_with_state,
)
from tests.tolerances import relative_error

# Tiles of other sizes than the lengths below, in both inner forms.
IMPLEMENTATIONS = {
    "reference": Reference(),
    "chunked": Chunked(),
    "chunked-sequential-5": Chunked(5, "sequential"),
    "chunked-associative-32": Chunked(32, "associative"),
    # Interpreted here; on a GPU or a TPU the same tests run the compiled kernels.
    "pallas-triton": PallasTriton(16),
    "mosaic-tpu": MosaicTPU(chunk_length=128),
}
FLOAT64 = [name for name in IMPLEMENTATIONS if name.startswith("chunked")]
FAST = [*FLOAT64, "pallas-triton", "mosaic-tpu"]
if os.environ.get("TRITON_INTERPRET") == "1":
    IMPLEMENTATIONS["triton"] = Triton(16)
    FAST.append(pytest.param("triton", marks=pytest.mark.triton))
EVERY = ["reference", *FAST]
# Each once: the other chunk lengths and forms of the portable scan are further cases.
DISTINCT = [pytest.param(x, marks=pytest.mark.slow) if x in FLOAT64[1:] else x for x in FAST]


def example(length, *, batch=2, channels=12, state=4, groups=None, seed=0, **without):
    """Float64 arguments like those of a trained model; `name=None` leaves one out."""
    rng = np.random.default_rng(seed)
    lead = () if groups is None else (groups,)
    arguments = {
        "u": rng.normal(size=(batch, length, channels)),
        "delta": rng.normal(size=(batch, length, channels)),
        "A": -np.exp(rng.uniform(-1, 2.5, size=(*lead, channels, state))),
        "B": rng.normal(size=(batch, length, state)),
        "C": rng.normal(size=(batch, length, state)),
        "D": rng.normal(size=(*lead, channels)),
        "z": rng.normal(size=(batch, length, channels)),
        "delta_bias": rng.normal(size=(*lead, channels)) - 2,
        "initial_state": rng.normal(size=(batch, channels, state)),
    }
    return {name: value for name, value in arguments.items() if without.get(name, 0) is not None}


def numpy_scan(arguments, *, reverse=False, delta_softplus=True):
    """The equation in float64 NumPy, one sequence, channel parameters and token at a time."""
    a = arguments["A"]
    batch, length, channels = arguments["u"].shape
    groups = a.shape[0] if a.ndim == 3 else 1
    y = np.zeros((batch, length, channels))
    final = np.zeros((batch, channels, a.shape[-1]))
    for i in range(batch):

        def of_row(name, i=i):
            value = arguments.get(name)
            if value is None or name in ("A", "D", "delta_bias") and a.ndim == 2:
                return value
            return value[i % groups if name in ("A", "D", "delta_bias") else i]

        u, delta, b, c, z = (of_row(name) for name in ("u", "delta", "B", "C", "z"))
        h = np.zeros((channels, a.shape[-1]))
        if "initial_state" in arguments:
            h = arguments["initial_state"][i].copy()
        for t in range(length)[:: -1 if reverse else 1]:
            d = delta[t] + (of_row("delta_bias") if "delta_bias" in arguments else 0)
            d = np.log1p(np.exp(d)) if delta_softplus else d
            h = np.exp(d[:, None] * of_row("A")) * h + (d * u[t])[:, None] * b[t][None]
            y[i, t] = h @ c[t] + (of_row("D") * u[t] if "D" in arguments else 0)
            if z is not None:
                y[i, t] *= z[t] / (1 + np.exp(-z[t]))
        final[i] = h
    return y, final


def cast(arguments, dtype=jnp.float32):
    """As a caller has them: sequences in `dtype`, per-channel parameters and states in float32."""
    sequences = ("u", "delta", "B", "C", "z")
    wide = jnp.promote_types(dtype, jnp.float32)
    return {
        name: jnp.asarray(value, dtype if name in sequences else wide)
        for name, value in arguments.items()
    }


def value_and_gradients(arguments, implementation, **options):
    """y, the final state and the gradient of every argument for fixed random cotangents."""
    return compiled(implementation, **options)(arguments)


@functools.cache
def compiled(implementation, **options):
    """One function for each, so that JAX compiles it once for each shape."""

    def run(arguments):
        return selective_scan_with_state(**arguments, implementation=implementation, **options)

    @jax.jit
    def both(arguments):
        (y, state), pull_back = jax.vjp(run, arguments)
        rng = np.random.default_rng(7)
        cotangents = (
            jnp.asarray(rng.normal(size=y.shape), y.dtype),
            jnp.asarray(rng.normal(size=state.shape), state.dtype),
        )
        return y, state, pull_back(cotangents)[0]

    return both


def assert_close(found, expected, tolerance):
    y, state, gradients = found
    y64, state64, gradients64 = expected
    assert relative_error(y, y64) < tolerance
    assert relative_error(state, state64) < tolerance
    assert gradients.keys() == gradients64.keys()
    for name in gradients:
        error = relative_error(gradients[name], gradients64[name])
        assert error < tolerance, (name, error)


_EXPECTED = {}


def in_float64(arguments, **options):
    """What every implementation has to meet; computed once for all of them."""
    key = (*(value.tobytes() for value in arguments.values()), *options.items())
    if key not in _EXPECTED:
        with jax.enable_x64(True):
            found = value_and_gradients(cast(arguments, jnp.float64), Reference(), **options)
            _EXPECTED[key] = jax.tree.map(np.asarray, found)
    return _EXPECTED[key]


# Kernels of `chunk_parallel`.
KERNELS = ("summaries", "outputs", "adjoints", "gradients")


def abstract_gpu():
    """Since jax 0.11 lowering asks what GPU it is for."""
    try:
        from jax.sharding import AbstractDevice, use_abstract_mesh
    except ImportError:
        return contextlib.nullcontext()
    device = AbstractDevice("NVIDIA H200", 132, "gpu")
    return use_abstract_mesh(
        AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=device)
    )


def shapes(batch, length, channels, state, dtype, groups=None):
    lead = () if groups is None else (groups,)
    sequence = jax.ShapeDtypeStruct((batch, length, channels), dtype)
    per_state = jax.ShapeDtypeStruct((batch, length, state), dtype)
    per_channel = jax.ShapeDtypeStruct((*lead, channels), jnp.float32)
    return {
        "u": sequence,
        "delta": sequence,
        "A": jax.ShapeDtypeStruct((*lead, channels, state), jnp.float32),
        "B": per_state,
        "C": per_state,
        "D": per_channel,
        "z": sequence,
        "delta_bias": per_channel,
    }
