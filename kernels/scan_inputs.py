"""The arrays of a selective scan, named once for every implementation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class ScanInputs(NamedTuple):
    """Arguments of `selective_scan`; the last four may be None."""

    u: jax.Array  # (batch, length, channels)
    delta: jax.Array  # (batch, length, channels)
    a: jax.Array  # (groups, channels, state)
    b: jax.Array  # (batch, length, state)
    c: jax.Array  # (batch, length, state)
    d_skip: jax.Array | None  # (groups, channels)
    z: jax.Array | None  # (batch, length, channels)
    delta_bias: jax.Array | None  # (groups, channels)
    initial_state: jax.Array | None  # (batch, channels, state)

    @property
    def groups(self) -> int:
        """Sets of per-channel parameters; sequence i of the batch is read with i % groups."""
        return self.a.shape[0]

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Dtype of the recurrence: at least float32."""
        return jnp.promote_types(self.u.dtype, jnp.float32)


def check(u, delta, A, B, C, D, z, delta_bias, initial_state) -> ScanInputs:
    """Names the arguments of `selective_scan`, with an axis of groups where there was none.

    Raises:
        ValueError: a shape does not fit the others; the message names the argument.
    """
    if u.ndim != 3:
        raise ValueError(f"u has shape {u.shape}; it is (batch, length, channels)")
    batch, length, channels = u.shape
    if length < 1:
        raise ValueError("u has length 0; a scan needs at least one token")
    if A.ndim not in (2, 3) or A.shape[-2] != channels:
        raise ValueError(
            f"A has shape {A.shape}; it is (channels, state) with u's {channels} channels, "
            "or (groups, channels, state)"
        )
    *groups, _, state = A.shape
    if groups and batch % groups[0]:
        raise ValueError(f"A has {groups[0]} groups, which do not divide the batch of {batch}")
    expected = {
        "delta": (delta, (batch, length, channels)),
        "B": (B, (batch, length, state)),
        "C": (C, (batch, length, state)),
        "D": (D, (*groups, channels)),
        "z": (z, (batch, length, channels)),
        "delta_bias": (delta_bias, (*groups, channels)),
        "initial_state": (initial_state, (batch, channels, state)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; with this u and A it is {shape}")
    if not groups:
        A = A[None]
        D, delta_bias = (None if x is None else x[None] for x in (D, delta_bias))
    return ScanInputs(u, delta, A, B, C, D, z, delta_bias, initial_state)
