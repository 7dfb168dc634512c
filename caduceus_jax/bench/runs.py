"""The functions that are timed, scan and mixer with and without gradients, and their arguments."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from caduceus_jax.costs import Shape
from caduceus_jax.kernels import selective_scan
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.mamba import CONVOLUTION


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draw(shape: Shape, dtype: Any, seed: int = 0) -> dict[str, jax.Array]:
    """Draws arguments of a scan, of magnitudes as in a trained model."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    batch, length, channels, state = shape

    def normal(*shape: int, dtype: Any = dtype) -> jax.Array:
        """Draws from the standard normal distribution."""
        return jax.random.normal(next(keys), shape, dtype)

    return {
        "u": normal(batch, length, channels),
        "delta": normal(batch, length, channels),
        "A": -jnp.exp(normal(channels, state, dtype=jnp.float32)),
        "B": normal(batch, length, state),
        "C": normal(batch, length, state),
        "D": normal(channels, dtype=jnp.float32),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels, dtype=jnp.float32) - 4,
    }


def scan_forward(implementation: Any) -> Callable[..., Any]:
    """Returns the scan, as a function of the arguments from `draw`."""
    return lambda inputs: selective_scan(**inputs, implementation=implementation)


def scan_gradient(implementation: Any) -> Callable[..., Any]:
    """Returns a function to the output and the gradients of every input; the cotangent is y."""

    def run(inputs: dict[str, jax.Array]) -> Any:
        """Runs the function that is timed."""
        y, pull_back = jax.vjp(scan_forward(implementation), inputs)
        return y, pull_back(y)

    return run


def mixer_config(shape: Shape) -> CaduceusConfig:
    """Returns the smallest model whose mixer scans as many channels and states."""
    return CaduceusConfig(d_model=shape.channels // 2, n_layer=1, d_state=shape.state)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draw_mixer(shape: Shape, dtype: Any, seed: int = 0) -> tuple[Any, jax.Array]:
    """Draws a BiMamba mixer and a hidden state (batch, strand=1, length, d_model) for it."""
    config = mixer_config(shape)
    model = CaduceusForMaskedLM(config, dtype=dtype, rngs=nnx.Rngs(seed))
    mixer = jax.tree.map(lambda stacked: stacked[0], model.caduceus.layers.mixer)
    size = (shape.batch, 1, shape.length, config.d_model)
    return mixer, jax.random.normal(jax.random.key(seed), size, dtype)


def mixer_forward(implementation: Any) -> Callable[..., jax.Array]:
    """Returns the mixer as a function, with this scan and the convolution that goes with it."""

    def run(mixer: Any, hidden: jax.Array) -> Any:
        """Runs the function that is timed."""
        mixer.scan = functools.partial(selective_scan, implementation=implementation)
        mixer.conv = CONVOLUTION.bind(implementation=implementation)
        return mixer(hidden)

    return run


def mixer_gradient(implementation: Any) -> Callable[..., Any]:
    """Returns a function to the output and the gradients of parameters and hidden state."""

    def run(mixer: Any, hidden: jax.Array) -> Any:
        """Runs the function that is timed."""
        y, pull_back = jax.vjp(mixer_forward(implementation), mixer, hidden)
        return y, pull_back(y)

    return run


SCAN = {"forward": scan_forward, "forward_backward": scan_gradient}
MIXER = {"forward": mixer_forward, "forward_backward": mixer_gradient}
