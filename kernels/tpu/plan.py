"""The plan of the TPU kernels: the shape of a register, and what is fixed for a scan."""

from typing import Any, NamedTuple

from caduceus_jax.kernels.tpu import target

# A vector register holds 8 sublanes x 128 lanes.
LANES, SUBLANES = 128, 8
# What the compiler's schedule is best with (python -m caduceus_jax.kernels.ahead_of_time.tpu).
_LARGEST_BLOCK, _CHUNK = 512, 256
# A v4 has 16 MiB of fast memory, of which the states of a chunk take the most.
_SMALL, _BLOCK_OF_SMALL, _STATES_OF_SMALL = "TPU v4", 256, 16


class Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    block: int  # channels of a program
    chunk: int  # tokens of a chunk
    length: int  # tokens of a sequence; the last chunk may reach beyond it
    delta_softplus: bool
    reverse: bool
    interpret: Any


def default_block(channels: int) -> int:
    """Returns the largest block that divides the channels, themselves a multiple of 128."""
    largest = _BLOCK_OF_SMALL if target.kind() == _SMALL else _LARGEST_BLOCK
    return next(n for n in range(largest, 0, -LANES) if channels % n == 0)


def default_chunk(length: int, state: int = 16) -> int:
    """Returns the tokens of a chunk; of a short sequence the whole, rounded up to whole lanes.

    Args:
        length: length of the sequence.
        state: states of a channel.
    """
    small = target.kind() == _SMALL and state > _STATES_OF_SMALL
    return min(_CHUNK // 2 if small else _CHUNK, -(-length // LANES) * LANES)
