"""The arrays of a selective scan, and what every implementation does with them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# What the fused kernels read and write; the recurrence is float32 in all of them.
_FUSED_DTYPES = (jnp.float32, jnp.bfloat16)


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

    def each_row(self, x: jax.Array) -> jax.Array:
        """(groups, ...) -> (batch, ...): each sequence's parameters, in the recurrence's dtype."""
        copies = self.u.shape[0] // self.groups
        return jnp.tile(x.astype(self.compute_dtype), (copies, *(1 for _ in x.shape[1:])))

    def cotangents(self, gradients: Mapping[str, Any]) -> "ScanInputs":
        """Returns gradients, given by name, in the dtypes of the inputs; None where there are none.

        Gradients of inputs that this scan does not have are left out.
        """
        found: dict[str, Any] = {
            name: None if x is None else gradients[name].astype(x.dtype)
            for name, x in self._asdict().items()
        }
        return ScanInputs(**found)


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


def check_fused_dtype(name: str, dtype: jnp.dtype) -> None:
    """Refuses a dtype that the fused kernels do not read.

    Raises:
        NotImplementedError: it is neither float32 nor bfloat16.
    """
    if dtype not in _FUSED_DTYPES:
        raise NotImplementedError(f"{name} is {dtype}; supported: float32 and bfloat16")


def sum_groups(x: jax.Array, groups: int, *, chunks: bool = False) -> jax.Array:
    """Sums what was computed with the same parameters: (batch, ...) -> (groups, ...).

    Args:
        x: (batch, ...), or (batch, chunks, ...).
        groups: row i of the batch was read with parameters i % groups.
        chunks: also sum over the second axis.
    """
    return jnp.sum(x.reshape(-1, groups, *x.shape[1:]), axis=(0, 2) if chunks else 0)


def once_differentiable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of (plan, *arrays) refuse to be differentiated.

    Fused kernels have a derivative, but their derivative has none.

    Returns:
        The function; its derivative raises NotImplementedError, which names the implementation
        that has second derivatives.
    """
    differentiated = jax.custom_vjp(function, nondiff_argnums=(0,))

    def refuse(plan: Any, *arguments: Any) -> Any:
        raise NotImplementedError(
            "second derivatives of this scan are not implemented: use implementation='chunked'"
        )

    differentiated.defvjp(refuse, refuse)
    return functools.update_wrapper(differentiated, function)
