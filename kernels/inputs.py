"""The arrays of a selective scan, named once for every implementation."""

from typing import NamedTuple

import jax


class ScanInputs(NamedTuple):
    """Arguments of `selective_scan`; the last four may be None."""

    u: jax.Array  # (batch, length, channels)
    delta: jax.Array  # (batch, length, channels)
    a: jax.Array  # (channels, state)
    b: jax.Array  # (batch, length, state)
    c: jax.Array  # (batch, length, state)
    d_skip: jax.Array | None  # (channels,)
    z: jax.Array | None  # (batch, length, channels)
    delta_bias: jax.Array | None  # (channels,)
    initial_state: jax.Array | None  # (batch, channels, state)

    def check(self) -> None:
        """Raises ValueError, naming the argument, where a shape does not fit the others."""
        if self.u.ndim != 3:
            raise ValueError(f"u has shape {self.u.shape}; it is (batch, length, channels)")
        batch, length, channels = self.u.shape
        if self.a.ndim != 2 or self.a.shape[0] != channels:
            raise ValueError(
                f"A has shape {self.a.shape}; it is (channels, state) with u's {channels} channels"
            )
        if length < 1:
            raise ValueError("u has length 0; a scan needs at least one token")
        state = self.a.shape[1]
        expected = {
            "delta": (self.delta, (batch, length, channels)),
            "B": (self.b, (batch, length, state)),
            "C": (self.c, (batch, length, state)),
            "D": (self.d_skip, (channels,)),
            "z": (self.z, (batch, length, channels)),
            "delta_bias": (self.delta_bias, (channels,)),
            "initial_state": (self.initial_state, (batch, channels, state)),
        }
        for name, (array, shape) in expected.items():
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; with this u and A it is {shape}")
