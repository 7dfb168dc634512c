"""Gradients of the causal convolution in Triton: one pass over memory.

Forward, XLA makes one loop of the convolution, which reads x and writes y once. Backward it makes
several, and keeps the gradient before SiLU in memory between them; the kernel keeps it in
registers.
"""

import dataclasses

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
    reverse: bool
    silu: bool
    has_bias: bool
    interpret: bool
    has_segments: bool = False
    warps: int = 1

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
    grad: jax.Array,
    *,
    reach: jax.Array | None = None,
    reverse: bool,
    silu: bool,
    interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients of `causal_conv1d`.

    Args:
        x: (batch, length, channels).
        weight: (groups, width, channels).
        bias: (groups, channels).
        grad: cotangent of the result, (batch, length, channels).
        reach: number of tokens before each one that are of its segment and met by the filter,
            (batch, length) int32; None where sequences are not packed.
        reverse: the convolution walks right to left.
        silu: the convolution ends with SiLU.
        interpret: run in Triton's interpreter instead of compiling for a GPU.

    Returns:
        Gradients of x (batch, length, channels) in its dtype, and in float32 of weight (batch,
        width, channels) and of bias (batch, channels), for each sequence.
    """
    batch, length, channels = x.shape
    groups, width, _ = weight.shape
    program = Program(
        batch=batch,
        length=length,
        channels=channels,
        groups=groups,
        width=width,
        tokens=_TOKENS,
        block=min(max(1 << (channels - 1).bit_length(), _SMALLEST_BLOCK), _LARGEST_BLOCK),
        unroll=_UNROLL,
        reverse=reverse,
        silu=silu,
        has_bias=bias is not None,
        has_segments=reach is not None,
        interpret=interpret,
    )
    reads = {"x": x, "weight": weight, "bias": bias, "grad": grad, "reach": reach}
    sums = (batch, program.parts, width, channels)
    writes = {
        "grad_x": jax.ShapeDtypeStruct(x.shape, x.dtype),
        "grad_weight": jax.ShapeDtypeStruct(sums, jnp.float32),
        "grad_bias": jax.ShapeDtypeStruct((batch, program.parts, channels), jnp.float32),
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
