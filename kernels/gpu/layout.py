"""Shared parts of the GPU kernels of every lowering: sizes, tiles, and where their arrays lie."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.scan_inputs import ScanInputs

# Tokens from one state that is kept for the backward pass to the next.
KEPT_EVERY = 4
LOG2_E = math.log2(math.e)
# With more states than this, several warps share a tile.
STATES_A_WARP = 16
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 128

_TOKENS = ("u", "delta", "z", "y", "ungated", "grad_y", "grad_u", "grad_delta", "grad_z")
_MAPS = ("b", "c")
_PARTIAL_MAPS = ("grad_b", "grad_c")
_CHANNEL_PARAMETERS = ("d_skip", "delta_bias")
_STATES = ("initial_states", "adjoint", "states", "grad_a", "grad_initial_states")
_CHUNK_CHANNELS = ("steps", "grad_d_skip", "grad_delta_bias")


@dataclasses.dataclass(frozen=True)
class ChunkLayout:
    """Sizes of one kernel: its arrays are those of `chunk_parallel`, cut into tiles.

    A program walks over one chunk of one sequence for a block of channels.
    """

    batch: int
    length: int
    channels: int
    state: int
    groups: int
    chunk: int  # tokens
    block: int  # channels of a program, a power of two

    @property
    def chunks(self) -> int:
        """Chunks of a sequence."""
        return -(-self.length // self.chunk)

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // self.block)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array, by the name it has in the kernels."""
        shapes = {
            _TOKENS: (self.batch, self.length, self.channels),
            _MAPS: (self.batch, self.length, self.state),
            _PARTIAL_MAPS: (self.blocks, self.batch, self.length, self.state),
            ("a",): (self.groups, self.state, self.channels),
            _CHANNEL_PARAMETERS: (self.groups, self.channels),
            _STATES: (self.batch, self.chunks, self.state, self.channels),
            _CHUNK_CHANNELS: (self.batch, self.chunks, self.channels),
            ("checkpointed_states",): (
                self.batch,
                self.chunks,
                self.chunk // KEPT_EVERY,
                self.state,
                self.channels,
            ),
        }
        return next(shape for names, shape in shapes.items() if name in names)


def layout(inputs: ScanInputs, chunk: int, elements: int) -> ChunkLayout:
    """Returns the layout of a scan with `chunk` tokens per chunk.

    A program has as many channels as make `elements` states with all states of each: as many as
    its registers hold.
    """
    batch, length, channels = inputs.u.shape
    groups, _, state = inputs.a.shape
    needed = max(1 << (channels - 1).bit_length(), _SMALLEST_BLOCK)
    block = min(max(elements // state, 1), needed, _LARGEST_BLOCK)
    return ChunkLayout(batch, length, channels, state, groups, chunk, block)


def arrays(inputs: ScanInputs, **extra: jax.Array | None) -> dict[str, jax.Array]:
    """Returns the arrays that are present, by name, in the layout that kernels expect.

    A is transposed: a thread's columns are loaded side by side. B and C are small, and in float32
    they are not unpacked again by every block of channels.
    """
    every = inputs._asdict() | {
        "a": jnp.swapaxes(inputs.a, 1, 2).astype(jnp.float32),
        "b": inputs.b.astype(jnp.float32),
        "c": inputs.c.astype(jnp.float32),
    }
    return {name: x for name, x in (every | extra).items() if x is not None}


def dtype(name: str, inputs: ScanInputs) -> jnp.dtype:
    """Returns the dtype of an array that a kernel writes."""
    like = {"y": inputs.u, "ungated": inputs.u, "grad_u": inputs.u, "grad_delta": inputs.delta}
    # Kept states in bfloat16 err by 2^-9 for a few tokens only: each is a fresh start.
    like |= {"grad_z": inputs.z, "checkpointed_states": inputs.u}
    array = like.get(name)
    return jnp.dtype(jnp.float32) if array is None else array.dtype
