"""The arrays of a selective scan, and what every implementation does with them."""

import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.meshes import vary_alike, zeros

# float16 is not offered: it overflows.
_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float64)

# Added to an exponent, it makes the power 0 in float32 and float64.
_FORGET = -1e30
# What `jax.checkpoint` may keep of a scan, by its policy. Of the first, which is small, a GPU needs
# one of the two passes of its forward kernels; of both, no kernel runs forward again.
BETWEEN_CHUNKS = "selective_scan_between_chunks"
RESIDUALS = "selective_scan_residuals"
# The inputs that have a row for each group instead of each sequence.
PER_GROUP = ("a", "d_skip", "delta_bias")


class ScanInputs(NamedTuple):
    """Arguments of `selective_scan`; the last five may be None."""

    u: jax.Array  # (batch, length, channels)
    delta: jax.Array  # (batch, length, channels)
    a: jax.Array  # (groups, channels, state)
    b: jax.Array  # (batch, length, state)
    c: jax.Array  # (batch, length, state)
    d_skip: jax.Array | None  # (groups, channels)
    z: jax.Array | None  # (batch, length, channels)
    delta_bias: jax.Array | None  # (groups, channels)
    initial_state: jax.Array | None  # (batch, channels, state)
    # (batch, length), added to the exponent of a token's decay: 0, or so little that the state
    # before the token is forgotten.
    restart: jax.Array | None = None

    @property
    def groups(self) -> int:
        """Sets of per-channel parameters; sequence i of the batch is read with i % groups."""
        return self.a.shape[0]

    @property
    def compute_dtype(self) -> jnp.dtype:
        """Dtype of the recurrence: at least float32."""
        return widened(self.u.dtype)

    @property
    def restarts(self) -> jax.Array:
        """Tells where the state before a token is forgotten, (batch, length) bool."""
        assert self.restart is not None
        return self.restart < 0

    def zeros(self, *shape: Any) -> jax.Array:
        """Returns zeros in the recurrence's dtype, which vary over the mesh as the inputs do."""
        return zeros(shape, self.compute_dtype, self.u)

    def each_row(self, x: jax.Array) -> jax.Array:
        """Gives each sequence its parameters in compute dtype: (groups, ...) -> (batch, ...)."""
        copies = self.u.shape[0] // self.groups
        return jnp.tile(x.astype(self.compute_dtype), (copies, *(1 for _ in x.shape[1:])))

    def cotangents(self, gradients: Mapping[str, Any]) -> "ScanInputs":
        """Returns gradients, given by name, in the dtypes of the inputs; None where there are none.

        Gradients of inputs that this scan does not have are left out, and `restart` has none.
        """
        found: dict[str, Any] = {
            name: None if x is None or name not in gradients else gradients[name].astype(x.dtype)
            for name, x in self._asdict().items()
        }
        return ScanInputs(**found)


# The dimension of the channels of each array.
CHANNEL_AXES = ScanInputs(
    u=2, delta=2, a=1, b=-1, c=-1, d_skip=1, z=2, delta_bias=1, initial_state=1, restart=-1
)


def check(
    u, delta, A, B, C, D, z, delta_bias, initial_state, segment_ids=None, reverse: bool = False
) -> ScanInputs:
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
    if is_known(length) and length < 1:
        raise ValueError("u has length 0; a scan needs at least one token")
    if A.ndim not in (2, 3) or A.shape[-2] != channels:
        raise ValueError(
            f"A has shape {A.shape}; it is (channels, state) with u's {channels} channels, "
            "or (groups, channels, state)"
        )
    *groups, _, state = A.shape
    if groups and (groups[0] < 1 or (is_known(batch) and batch % groups[0])):
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
    if segment_ids is not None:
        starts = segment_starts(segment_ids, (batch, length), reverse)
        arrays["restart"] = jnp.where(starts, _FORGET, 0.0).astype(jnp.float32)
    arrays = vary_alike(arrays)
    return ScanInputs(*(arrays.get(name) for name in (*given, "restart")))


def segment_starts(segment_ids: Any, shape: tuple[Any, Any], reverse: bool) -> jax.Array:
    """Returns where a walk over a sequence enters another segment, (batch, length) bool.

    The first token walked over does not count: what comes before it is the caller's to say.

    Args:
        segment_ids: (batch, length) integers, as `selective_scan` describes them.
        shape: (batch, length).
        reverse: the walk is from the last token to the first.

    Raises:
        ValueError: segment_ids are not an array of integers, or have another shape.
    """
    segment_ids = _array("segment_ids", segment_ids)
    if not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise ValueError(f"segment_ids has dtype {segment_ids.dtype}; it must be integers")
    if segment_ids.shape != shape:
        raise ValueError(
            f"segment_ids has shape {segment_ids.shape}; it is (batch, length), {shape}"
        )
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.pad(changes, ((0, 0), (0, 1) if reverse else (1, 0)))


def checked_array(name: str, x: Any) -> jax.Array:
    """Returns an argument as an array.

    Raises:
        ValueError: the argument is not an array of real floating-point numbers in a dtype of those
            offered.
    """
    x = _array(name, x)
    if x.dtype not in _DTYPES:
        raise ValueError(f"{name} has dtype {x.dtype}; it must be float32, bfloat16 or float64")
    return x


def _array(name: str, x: Any) -> jax.Array:
    """Returns an argument as an array; a list of rows of several lengths is none either."""
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {type(x).__name__}; it must be an array") from error


def widened(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which numbers of a dtype are computed with: at least float32."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def is_known(size: Any) -> bool:
    """Returns whether a size is a number, and not a symbol of `jax.export`."""
    return isinstance(size, numbers.Integral)


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
