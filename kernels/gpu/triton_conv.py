"""Gradients of the causal convolution in Triton: one pass over memory.

Forward, XLA makes one loop of the convolution, which reads x and writes y once. Backward it makes
several, and keeps the gradient before SiLU in memory between them; the kernel keeps it in
registers, that of both directions where they read the same x.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.gpu import triton_call

_TOKENS = 128  # of a program
_UNROLL = 4
_SMALLEST_BLOCK, _LARGEST_BLOCK = 16, 128


@dataclasses.dataclass(frozen=True)
class Program:
    """Holds what the kernel is compiled for.

    A program walks over a part of one sequence for a block of channels.
    """

    batch: int
    length: int
    channels: int
    groups: int
    width: int
    tokens: int  # of a part
    block: int  # channels of a program, a power of two
    unroll: int  # tokens per round of the loop
    reverse: bool  # where it walks over one direction, from left to right
    both: bool
    silu: bool
    has_bias: bool
    interpret: bool
    has_segments: bool = False
    warps: int = 1

    @property
    def directions(self) -> int:
        """Reading directions of the convolution."""
        return 1 + self.both

    @property
    def parts(self) -> int:
        """Parts of a sequence."""
        return -(-self.length // self.tokens)

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // self.block)

    @property
    def programs(self) -> int:
        """Programs of the grid."""
        return self.batch * self.parts * self.blocks


def gradients(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    grads: Sequence[jax.Array],
    *,
    reach: Sequence[jax.Array] | None,
    reverse: Sequence[bool],
    silu: bool,
    interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of `causal_conv1d` or `bidirectional_conv1d`.

    Args:
        x: (batch, length, channels).
        weight: (groups, directions, width, channels).
        bias: (groups, directions, channels).
        grads: cotangent of the result of each direction, (batch, length, channels).
        reach: number of tokens before each one that are of its segment and met by the filter,
            (batch, length) int32 for each direction; None where sequences are not packed.
        reverse: whether each direction is right to left: of two, the second.
        silu: the convolution ends with SiLU.
        interpret: run in Triton's interpreter instead of compiling for a GPU.

    Returns:
        Gradients of x (batch, length, channels) in its dtype, and in float32 of weight (batch,
        directions, width, channels) and of bias (batch, directions, channels), for each sequence.
    """
    batch, length, channels = x.shape
    groups, directions, width, _ = weight.shape
    # Of both directions and segments, windows of more channels do not fit into registers.
    largest = _LARGEST_BLOCK if directions == 1 or reach is None else _LARGEST_BLOCK // 2
    program = Program(
        batch=batch,
        length=length,
        channels=channels,
        groups=groups,
        width=width,
        tokens=_TOKENS,
        block=min(max(1 << (channels - 1).bit_length(), _SMALLEST_BLOCK), largest),
        unroll=_UNROLL,
        reverse=reverse[0],
        both=directions == 2,
        silu=silu,
        has_bias=bias is not None,
        has_segments=reach is not None,
        interpret=interpret,
    )
    # Two tokens are of one segment if the later one reaches as far as the earlier: the other
    # direction needs no numbers of its own.
    reads = {"x": x, "weight": weight, "bias": bias, "reach": None if reach is None else reach[0]}
    reads |= dict(zip(("grad", "other_grad"), grads, strict=False))
    sums = (batch, program.parts, directions, width, channels)
    writes = {
        "grad_x": jax.ShapeDtypeStruct(x.shape, x.dtype),
        "grad_weight": jax.ShapeDtypeStruct(sums, jnp.float32),
        "grad_bias": jax.ShapeDtypeStruct((*sums[:3], channels), jnp.float32),
    }
    found = triton_call.call(
        "gpu.triton_conv_kernel",
        "causal_conv_gradients",
        program,
        {name: array for name, array in reads.items() if array is not None},
        writes,
    )
    grad_weight, grad_bias = (jnp.sum(found[f"grad_{n}"], axis=1) for n in ("weight", "bias"))
    return found["grad_x"], grad_weight, grad_bias
