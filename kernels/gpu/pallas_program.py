"""A program of a GPU kernel in Pallas: where its arrays lie, and how it walks over its chunk.

Interpreted on any machine, or lowered through Triton: the simple twins of the kernels in
`triton_kernels`, without what only saves instructions. Pallas' Triton backend is deprecated since
jax 0.11: this file is the only one that knows it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from caduceus_jax.kernels.gpu import layout, polynomials, ptx, target
from caduceus_jax.kernels.gpu.chunk_parallel import Plan
from caduceus_jax.kernels.gpu.layout import KEPT_EVERY, LOG2_E, STATES_A_WARP, ChunkLayout
from caduceus_jax.kernels.meshes import shape_like
from caduceus_jax.kernels.scan_inputs import ScanInputs

_ALL = slice(None)
_SMALLEST_CAPABILITY = 80


def launch(
    kernel: Callable, arrays: list[jax.Array], *, interpret: bool, warps: int = 1, **options: Any
) -> Any:
    """Runs `pallas_call`, lowered through Triton.

    Raises:
        NotImplementedError: Pallas does not lower for the GPU.
    """
    capability = target.compute_capability()
    if not interpret and capability < _SMALLEST_CAPABILITY:
        raise NotImplementedError(
            f"compute capability {capability / 10}; supported: {_SMALLEST_CAPABILITY / 10} and "
            "above, or implementation='triton'"
        )
    parameters = plgpu.CompilerParams(num_warps=warps, num_stages=1)
    options |= {"compiler_params": parameters, "interpret": interpret}
    return pl.pallas_call(kernel, **options)(*arrays)


def load(at, mask: jax.Array | None) -> jax.Array:
    """Loads a part of a reference as float32; 0 where the mask is False."""
    other = None if mask is None else 0.0
    return plgpu.load(at, mask=mask, other=other).astype(jnp.float32)


def store(at, value: jax.Array, mask: jax.Array | None, dtype: jnp.dtype) -> None:
    """Writes a part of a reference of that dtype, where there is a mask."""
    plgpu.store(at, value.astype(dtype), mask=mask)


class KernelCall:
    """Runs kernels on every (sequence, chunk) and block of at most so many channels."""

    def __init__(self, plan: Plan, inputs: ScanInputs, block: int, **extra: jax.Array | None):
        self.plan, self.inputs = plan, inputs
        self.sizes = layout.layout(inputs, plan.chunk, block * inputs.a.shape[-1])
        self.arrays = layout.arrays(inputs, **extra)

    def __call__(
        self,
        kernel: Callable,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
    ):
        """Runs one kernel.

        Args:
            kernel: called with a `TokenLoop` and the arrays by name.
            reads: names of what it reads; those that this scan does not have are left out.
            writes: names of what it writes.

        Returns:
            The arrays written, in the order of `writes`.
        """
        reads = tuple(name for name in reads if name in self.arrays)
        sizes = self.sizes

        def body(*refs) -> None:
            """Gives the kernel its references by name."""
            kernel(self._loop(), dict(zip((*reads, *writes), refs, strict=True)))

        return launch(
            body,
            [self.arrays[name] for name in reads],
            name=f"selective_scan{kernel.__name__}",
            grid=(sizes.batch * sizes.chunks, sizes.blocks),
            in_specs=[_part(name, sizes) for name in reads],
            out_specs=[_part(name, sizes) for name in writes],
            out_shape=[self._written(name) for name in writes],
            warps=max(1, sizes.state // STATES_A_WARP),
            interpret=self.plan.interpret,
        )

    def _loop(self) -> "TokenLoop":
        """Returns the loop over tokens of this program, within a kernel."""
        sizes = self.sizes
        tokens = channels = None
        if sizes.length % sizes.chunk:
            tokens = sizes.length - pl.program_id(0) % sizes.chunks * sizes.chunk
        if sizes.channels % sizes.block:
            channels = sizes.channels - pl.program_id(1) * sizes.block
        bits = 8 * self.inputs.u.dtype.itemsize
        return TokenLoop(
            chunk=sizes.chunk,
            tokens=tokens,
            block=sizes.block,
            channels=channels,
            delta_softplus=self.plan.delta_softplus,
            reverse=self.plan.reverse,
            log1p=polynomials.log1p(bits),
            math=EXACT if self.plan.interpret else FAST,
        )

    def _written(self, name: str) -> jax.ShapeDtypeStruct:
        # Kept states are float32 here whatever u is: bfloat16 ones are loaded eight channels a
        # thread, and the whole tile follows in a layout that spills.
        dtype = jnp.float32 if name == "checkpointed_states" else layout.dtype(name, self.inputs)
        return shape_like(self.sizes.shape(name), dtype, self.inputs.u)


def _part(name: str, sizes: ChunkLayout) -> pl.BlockSpec:
    """Returns what belongs to program (p, i) of an array: row p of chunks, block i of channels."""
    chunk, block, state = sizes.chunk, sizes.block, sizes.state
    unrolled = chunk // KEPT_EVERY

    def at(p) -> tuple[Any, Any]:
        return p // sizes.chunks, p % sizes.chunks

    def group(p) -> Any:
        return p // sizes.chunks % sizes.groups

    match name:
        case "restart":
            return pl.BlockSpec((None, chunk), lambda p, i: at(p))
        case "b" | "c":
            return pl.BlockSpec((None, chunk, state), lambda p, i: (*at(p), 0))
        case "grad_b" | "grad_c":
            return pl.BlockSpec((None, None, chunk, state), lambda p, i: (i, *at(p), 0))
        case "a":
            return pl.BlockSpec((None, state, block), lambda p, i: (group(p), 0, i))
        case "d_skip" | "delta_bias":
            return pl.BlockSpec((None, block), lambda p, i: (group(p), i))
        case "initial_states" | "adjoint" | "states" | "grad_a" | "grad_initial_states":
            return pl.BlockSpec((None, None, state, block), lambda p, i: (*at(p), 0, i))
        case "steps" | "grad_d_skip" | "grad_delta_bias":
            return pl.BlockSpec((None, None, block), lambda p, i: (*at(p), i))
        case "checkpointed_states":
            return pl.BlockSpec(
                (None, None, unrolled, state, block), lambda p, i: (*at(p), 0, 0, i)
            )
        case _:  # tokens x channels
            return pl.BlockSpec((None, chunk, block), lambda p, i: (*at(p), i))


class Math(NamedTuple):
    """Elementary functions on float32 tiles."""

    exp2: Callable[[jax.Array], jax.Array]
    reciprocal: Callable[[jax.Array], jax.Array]
    multiply_add: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def sigmoid(self, x: jax.Array) -> jax.Array:
        """Returns 1 / (1 + e^-x)."""
        return self.reciprocal(1 + self.exp2(x * -LOG2_E))


def _assembly(text: str, *arguments: jax.Array) -> jax.Array:
    """Runs PTX on every element."""
    shape = jnp.broadcast_shapes(*(x.shape for x in arguments))
    (result,) = plgpu.elementwise_inline_asm(
        text,
        args=[jnp.broadcast_to(x, shape) for x in arguments],
        constraints=",".join(["=f"] + ["f"] * len(arguments)),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, jnp.float32)],
    )
    return result


EXACT = Math(jnp.exp2, lambda x: 1 / x, lambda x, y, z: x * y + z)
# Plain operations keep fix-ups for denormals around the hardware's functions, and never contract
# a product and a sum: half as many instructions again (docs/kernels.md).
FAST = Math(
    functools.partial(_assembly, ptx.EXP2),
    functools.partial(_assembly, ptx.RECIPROCAL),
    functools.partial(_assembly, ptx.MULTIPLY_ADD),
)


class TokenLoop(NamedTuple):
    """Walks a program over its chunk."""

    chunk: int
    tokens: jax.Array | None  # of the sequence from the chunk's start on; None if all exist
    block: int
    channels: jax.Array | None  # from the block's start on; None if all exist
    delta_softplus: bool
    reverse: bool
    log1p: tuple[float, ...]  # polynomial of log(1 + x)
    math: Math

    def token(self, k):
        """Returns the index in the chunk of the k-th token visited."""
        return self.chunk - 1 - k if self.reverse else k

    def real(self, t):
        """Tells whether token t of this chunk exists; None where all do."""
        return None if self.tokens is None else t < self.tokens

    def _mask(self, t=None):
        """Tells where channels exist, at token t or in the whole chunk; None if everywhere."""
        real = None if t is None else self.real(t)
        mask = None if real is None else jnp.full((self.block,), real)
        if self.channels is not None:
            inside = jnp.arange(self.block) < self.channels
            mask = inside if mask is None else mask & inside
        return mask

    def channels_at(self, ref, t) -> jax.Array:
        """Loads (channels,) float32 of token t; 0 where there is none."""
        return load(ref.at[t, :], self._mask(t))

    def channels_of(self, ref) -> jax.Array:
        """Loads (channels,) float32 of the whole chunk."""
        return load(ref.at[:], self._mask())

    def states_at(self, ref, t) -> jax.Array:
        """Loads (state,) float32 of token t; 0 where there is none."""
        return load(ref.at[t, :], self._states_mask(ref, t))

    def tile(self, ref, *index) -> jax.Array:
        """Loads (state, channels) float32."""
        return load(ref.at[(*index, _ALL, _ALL)], self._tile_mask(ref))

    def put_channels_at(self, ref, t, value) -> None:
        """Writes (channels,) at token t."""
        store(ref.at[t, :], value, self._mask(t), ref.dtype)

    def put_channels_of(self, ref, value) -> None:
        """Writes (channels,) of the whole chunk."""
        store(ref.at[:], value, self._mask(), ref.dtype)

    def put_states_at(self, ref, t, value) -> None:
        """Writes (state,) at token t."""
        store(ref.at[t, :], value, self._states_mask(ref, t), ref.dtype)

    def put_tile(self, ref, value, *index) -> None:
        """Writes (state, channels)."""
        store(ref.at[(*index, _ALL, _ALL)], value, self._tile_mask(ref), ref.dtype)

    def _states_mask(self, ref, t) -> jax.Array | None:
        real = self.real(t)
        return None if real is None else jnp.full(ref.shape[-1:], real)

    def _tile_mask(self, ref) -> jax.Array | None:
        mask = self._mask()
        return None if mask is None else jnp.broadcast_to(mask[None], ref.shape[-2:])

    def step(self, refs, t) -> tuple[jax.Array, jax.Array | None]:
        """Returns the time step of token t (channels,), 0 past the last, and its slope in delta.

        The slope is None where it is 1.
        """
        delta = self.channels_at(refs["delta"], t)
        if "delta_bias" in refs:
            delta = delta + self.channels_of(refs["delta_bias"])
        slope = None
        if self.delta_softplus:
            delta, slope = self.softplus(delta)
        real = self.real(t)
        return (delta if real is None else jnp.where(real, delta, 0.0)), slope

    def softplus(self, x) -> tuple[jax.Array, jax.Array]:
        """Returns log(1 + e^x), accurate in float32 where it is small too, and its slope."""
        e = self.math.exp2(jnp.abs(x) * -LOG2_E)
        power = jnp.full_like(e, self.log1p[-1])
        for coefficient in reversed(self.log1p[:-1]):
            power = self.math.multiply_add(power, e, jnp.float32(coefficient))
        value = self.math.multiply_add(power, e, jnp.maximum(x, 0.0))
        inverse = self.math.reciprocal(1 + e)
        return value, jnp.where(x < 0, e * inverse, inverse)

    def zeros(self) -> jax.Array:
        """Returns zeros, (channels,) float32."""
        return jnp.zeros((self.block,), jnp.float32)

    def advance(self, refs, a, h, t):
        """Returns the state after token t, its decay, time step and its slope, and its input."""
        delta, slope = self.step(refs, t)
        u = self.channels_at(refs["u"], t)
        b, restart = self.states_at(refs["b"], t), None
        if "restart" in refs:
            restart = load(refs["restart"].at[t], self.real(t))
        h, decay = self.next_state(a, h, delta, delta * u, b, restart)
        return h, decay, delta, slope, u

    def next_state(self, a, h, delta, scaled, b, restart=None):
        """Returns the state after `h`, with `scaled` = delta u, and its decay.

        `restart` is what `ScanInputs.restart` has for the token, where there are segments.
        """
        if restart is None:
            decay = self.math.exp2(delta[None, :] * a)
        else:
            decay = self.math.exp2(self.math.multiply_add(delta[None, :], a, restart))
        return self.math.multiply_add(decay, h, b[:, None] * scaled[None, :]), decay
