"""How the portable scan cuts rows and channels into blocks that fit in the cache of a CPU core."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.scan_inputs import ScanInputs, is_known

# XLA's option by which a loop over tokens is one function: `caduceus_jax.devices.use_cores` sets
# it. Otherwise each operation of a token is started by itself, and must be worth that.
LOOPS_ARE_FUNCTIONS = "xla_cpu_small_while_loop_byte_threshold"

# Channels of a block, where loops are functions: a token's arrays fit in a core's nearest cache.
_MOST_CHANNELS = 128
_VECTOR = 16  # channels in 512 bits


class Blocks(NamedTuple):
    """Holds the sizes of a batch, and of the blocks that are walked over one after another.

    A block has all rows, or one. Of one row each block has parameters of its own.
    """

    rows: Any  # a number, or a symbol of `jax.export`
    channels: int
    block_rows: Any
    block_channels: int

    def cut(self, x: jax.Array) -> jax.Array:
        """Cuts (rows, ..., channels) into (blocks, rows of a block, ..., channels of a block).

        Where a block has all rows, the first axis may be another one that it has whole.
        """
        first, *rest, channels = x.shape
        kept = first if self.block_rows == self.rows else self.block_rows
        width = self.block_channels
        if width == channels and kept == first:
            return x[None]
        x = x.reshape(first // kept, kept, *rest, channels // width, width)
        return jnp.moveaxis(x, -2, 1).reshape(-1, kept, *rest, width)

    def join(self, x: jax.Array) -> jax.Array:
        """Joins what `cut` cuts."""
        across = self.channels // self.block_channels
        blocks, kept, *rest, width = x.shape
        if blocks == 1:
            return x[0]
        x = jnp.moveaxis(x.reshape(blocks // across, across, kept, *rest, width), 1, -2)
        return x.reshape(-1, *rest, self.channels)

    def parameters(self, inputs: ScanInputs) -> "Block":
        """Returns the parameters of all blocks, with a leading axis of blocks."""
        d_skip, delta_bias = (
            None if x is None else self.cut(inputs.each_row(x))[:, None]
            for x in (inputs.d_skip, inputs.delta_bias)
        )
        a = jnp.swapaxes(inputs.a, 1, 2)
        own = self.block_rows < self.rows
        a = self.cut(inputs.each_row(a) if own else a.astype(inputs.compute_dtype))
        index, across = jnp.arange(a.shape[0]), self.channels // self.block_channels
        row, channel = index // across * self.block_rows, index % across * self.block_channels
        return Block(row, channel, a, d_skip, delta_bias)

    def by_group(self, x: jax.Array, inputs: ScanInputs) -> jax.Array:
        """Joins what blocks found for their parameters, and sums it: (groups, ..., channels)."""
        x = self.join(x)
        return x.reshape(-1, inputs.groups, *x.shape[1:]).sum(0)


class Block(NamedTuple):
    """Where a block begins and the parameters of its rows and channels, in the compute dtype."""

    row: Any
    channel: Any
    a: jax.Array  # (groups, state, channels)
    d_skip: jax.Array | None  # (1, rows, channels)
    delta_bias: jax.Array | None  # (1, rows, channels)


def whole(rows: Any, channels: int) -> Blocks:
    """Returns a single block; rows may be a symbol of `jax.export`."""
    return Blocks(rows, channels, rows, channels)


def cached(rows: Any, channels: int) -> Blocks:
    """Returns blocks that fit in the cache of a core, where small ones are worth it."""
    if LOOPS_ARE_FUNCTIONS not in os.environ.get("XLA_FLAGS", "") or not is_known(rows):
        return whole(rows, channels)
    widths = range(_MOST_CHANNELS // 2, _MOST_CHANNELS + 1, _VECTOR)
    width = max((width for width in widths if channels % width == 0), default=channels)
    return Blocks(rows, channels, 1 if channels >= _MOST_CHANNELS // 2 else rows, width)
