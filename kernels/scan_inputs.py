"""The arrays of a selective scan, and what every implementation does with them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# float16 is not offered: it overflows.
_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float64)
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
        ValueError: a dtype is not a real floating-point one, or a shape does not fit the others;
            the message names the argument.
    """
    given = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z}
    given |= {"delta_bias": delta_bias, "initial_state": initial_state}
    arrays = {name: checked_array(name, x) for name, x in given.items() if x is not None}
    u, A = arrays["u"], arrays["A"]
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
    if groups and (groups[0] < 1 or batch % groups[0]):
        raise ValueError(f"A has {groups[0]} groups, which do not divide the batch of {batch}")
    expected = {
        "delta": (batch, length, channels),
        "B": (batch, length, state),
        "C": (batch, length, state),
        "D": (*groups, channels),
        "z": (batch, length, channels),
        "delta_bias": (*groups, channels),
        "initial_state": (batch, channels, state),
    }
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            raise ValueError(
                f"{name} has shape {arrays[name].shape}; with this u and A it is {shape}"
            )
    if not groups:
        arrays |= {name: arrays[name][None] for name in ("A", "D", "delta_bias") if name in arrays}
    return ScanInputs(*(arrays.get(name) for name in given))


def checked_array(name: str, x: Any) -> jax.Array:
    """Returns an argument as an array.

    Raises:
        ValueError: it is not an array of real floating-point numbers in a dtype of those offered.
    """
    try:
        x = jnp.asarray(x)
    except TypeError as error:
        raise ValueError(f"{name} is {type(x).__name__}; it must be an array") from error
    if x.dtype not in _DTYPES:
        raise ValueError(f"{name} has dtype {x.dtype}; it must be float32, bfloat16 or float64")
    return x


def check_fused_dtypes(**sequences: jax.Array | None) -> None:
    """Refuses sequences, given by name, of a dtype that the fused kernels do not read.

    Raises:
        NotImplementedError: one is neither float32 nor bfloat16.
    """
    for name, x in sequences.items():
        if x is not None and x.dtype not in _FUSED_DTYPES:
            raise NotImplementedError(
                f"{name} in {x.dtype}; supported: float32 and bfloat16, or implementation='chunked'"
            )


def sum_groups(x: jax.Array, groups: int, *, chunks: bool = False) -> jax.Array:
    """Sums what was computed with the same parameters: (batch, ...) -> (groups, ...).

    Args:
        x: (batch, ...), or (batch, chunks, ...).
        groups: row i of the batch was read with parameters i % groups.
        chunks: also sum over the second axis.
    """
    return jnp.sum(
        x.reshape(x.shape[0] // groups, groups, *x.shape[1:]), axis=(0, 2) if chunks else 0
    )


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
