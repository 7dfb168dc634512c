"""What the TPU kernels agree on: the shape of a register, and what is fixed for a scan."""

from typing import Any, NamedTuple

# A vector register holds 8 sublanes x 128 lanes.
LANES, SUBLANES = 128, 8
# What the compiler's schedule is best with (python -m caduceus_jax.kernels.ahead_of_time.tpu).
_LARGEST_BLOCK, _CHUNK = 512, 256


class Plan(NamedTuple):
    """What is fixed when the call is traced."""

    block: int  # channels of a program
    chunk: int  # tokens of a chunk
    length: int  # tokens of a sequence; the last chunk may reach beyond it
    delta_softplus: bool
    reverse: bool
    interpret: Any


def default_block(channels: int) -> int:
    """Returns the largest block that divides the channels, themselves a multiple of 128."""
    return next(n for n in range(_LARGEST_BLOCK, 0, -LANES) if channels % n == 0)


def default_chunk(length: int) -> int:
    """Returns the tokens of a chunk; of a short sequence the whole, rounded up to whole lanes."""
    return min(_CHUNK, -(-length // LANES) * LANES)
