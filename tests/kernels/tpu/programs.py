"""A small scan in the form that the TPU kernels take."""

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.scan_inputs import ScanInputs, check
from caduceus_jax.kernels.tpu.plan import Plan
from caduceus_jax.kernels.tpu.scan import _padded
from tests.kernels.scan_cases import cast, example

CHUNK, CHANNELS, STATES = 128, 5, 3


def small(length: int = 200, *, reverse: bool = False) -> tuple[dict, Plan, ScanInputs]:
    """Returns arguments of one sequence, the plan of its kernels, and their inputs."""
    arguments = cast(example(length, batch=1, channels=CHANNELS, state=STATES))
    given = [arguments[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    plan = Plan(128, CHUNK, length, delta_softplus=True, reverse=reverse, interpret=True)
    return arguments, plan, _padded(check(*given, arguments["initial_state"]))


def cut(x: jax.Array) -> jax.Array:
    """Removes the states and channels that fill registers; (..., channels, state)."""
    return jnp.swapaxes(x[..., :STATES, :CHANNELS], -1, -2)
