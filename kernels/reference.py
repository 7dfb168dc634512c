"""The selective scan as the equation states it: slow, plain, and what all else is tested on."""

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.options import Reference
from caduceus_jax.kernels.scan_inputs import ScanInputs


def scan(
    inputs: ScanInputs, options: Reference, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs Gu & Dao 2023, equations 2 to 4, token by token in at least float32.

    Returns:
        y (batch, length, channels) of the dtype of u, and the final state (batch, channels, state).
    """
    dtype = inputs.compute_dtype
    u, delta, a, b, c = (x.astype(dtype) for x in inputs[:5])
    a = inputs.each_row(a)
    if inputs.delta_bias is not None:
        delta = delta + inputs.each_row(inputs.delta_bias)[:, None]
    if delta_softplus:
        delta = jax.nn.softplus(delta)
    state = inputs.zeros(*a.shape)
    if inputs.initial_state is not None:
        state = inputs.initial_state.astype(dtype)

    def step(h, token) -> tuple[jax.Array, jax.Array]:
        """Takes one token into the state and reads it out: eqs. 2a and 2b."""
        u, delta, b, c, *restart = token  # (batch, channels) twice, (batch, state) twice
        exponent = delta[..., None] * a
        if restart:  # (batch,)
            exponent = exponent + restart[0][:, None, None]
        h = jnp.exp(exponent) * h + (delta * u)[..., None] * b[:, None, :]
        return h, jnp.sum(h * c[:, None, :], axis=-1)

    restart = () if inputs.restart is None else (inputs.restart.astype(dtype),)
    tokens = tuple(jnp.moveaxis(x, 1, 0) for x in (u, delta, b, c, *restart))
    state, y = jax.lax.scan(step, state, tokens, reverse=reverse)
    y = jnp.moveaxis(y, 0, 1)
    if inputs.d_skip is not None:
        y = y + inputs.each_row(inputs.d_skip)[:, None] * u
    if inputs.z is not None:
        y = y * jax.nn.silu(inputs.z.astype(dtype))
    return y.astype(inputs.u.dtype), state
