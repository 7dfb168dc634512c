"""A program of a GPU kernel in Pallas: where its arrays lie, and how it walks over its chunk.

Lowered through Triton. Pallas' Triton backend is deprecated since jax 0.11: this file is the only
one that knows it.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from caduceus_jax.kernels.chunk_parallel import Plan
from caduceus_jax.kernels.inputs import ScanInputs

# Tokens from one state that is kept for the backward pass to the next.
KEPT_EVERY = 4
LOG2_E = math.log2(math.e)
_SMALLEST_BLOCK = 16


class Call:
    """Runs kernels on every (sequence, chunk) and block of channels."""

    def __init__(self, plan: Plan, inputs: ScanInputs, block: int, **extra: jax.Array | None):
        self.plan, self.inputs = plan, inputs
        self.batch, self.length, self.channels = inputs.u.shape
        self.state = inputs.a.shape[-1]
        self.chunks = -(-self.length // plan.chunk)
        power = max(1 << (self.channels - 1).bit_length(), _SMALLEST_BLOCK)
        self.block = min(block, power)
        self.blocks = -(-self.channels // self.block)
        # Transposed, a thread's columns are loaded side by side; B and C are small, and in
        # float32 they are not unpacked again by every block of channels.
        arrays = inputs._asdict() | {
            "a": jnp.swapaxes(inputs.a, 1, 2).astype(jnp.float32),
            "b": inputs.b.astype(jnp.float32),
            "c": inputs.c.astype(jnp.float32),
        }
        self.arrays = {name: x for name, x in (arrays | extra).items() if x is not None}

    def __call__(self, kernel: Callable, reads: tuple[str, ...], writes: tuple[str, ...]):
        """Runs one kernel.

        Args:
            kernel: called with a `Walk` and the arrays by name.
            reads: names of what it reads; those that this scan does not have are left out.
            writes: names of what it writes.

        Returns:
            The arrays written, in the order of `writes`.
        """
        reads = tuple(name for name in reads if name in self.arrays)

        def body(*refs):
            kernel(self._walk(), dict(zip((*reads, *writes), refs, strict=True)))

        return pl.pallas_call(
            body,
            grid=(self.batch * self.chunks, self.blocks),
            in_specs=[self._layout(name)[1] for name in reads],
            out_specs=[self._layout(name)[1] for name in writes],
            out_shape=[self._layout(name)[0] for name in writes],
            compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
            interpret=self.plan.interpret,
            name=f"selective_scan{kernel.__name__}",
        )(*(self.arrays[name] for name in reads))

    def _walk(self) -> "Walk":
        """This program's, within a kernel."""
        chunk, block = self.plan.chunk, self.block
        tokens = channels = None
        if self.length % chunk:
            tokens = self.length - pl.program_id(0) % self.chunks * chunk
        if self.channels % block:
            channels = self.channels - pl.program_id(1) * block
        return Walk(
            chunk=chunk,
            tokens=tokens,
            block=block,
            channels=channels,
            delta_softplus=self.plan.delta_softplus,
            reverse=self.plan.reverse,
            math=_EXACT if self.plan.interpret else _FAST,
        )

    def _layout(self, name: str) -> tuple[jax.ShapeDtypeStruct, pl.BlockSpec]:
        """Shape of an array, and the part of it that belongs to program (p, i)."""
        chunk, block, state, chunks = self.plan.chunk, self.block, self.state, self.chunks
        whole = (self.batch, self.length, self.channels)
        per_chunk = (self.batch, chunks, self.channels)
        states = (self.batch, chunks, state, self.channels)
        groups, unrolled = self.inputs.groups, chunk // KEPT_EVERY

        def at(p):
            return p // chunks, p % chunks

        layouts: dict[tuple[str, ...], tuple[tuple[int, ...], pl.BlockSpec]] = {
            ("u", "delta", "z", "y", "ungated", "grad_y", "grad_u", "grad_delta", "grad_z"): (
                whole,
                pl.BlockSpec((None, chunk, block), lambda p, i: (*at(p), i)),
            ),
            ("b", "c"): (
                (self.batch, self.length, state),
                pl.BlockSpec((None, chunk, state), lambda p, i: (*at(p), 0)),
            ),
            ("grad_b", "grad_c"): (
                (self.blocks, self.batch, self.length, state),
                pl.BlockSpec((None, None, chunk, state), lambda p, i: (i, *at(p), 0)),
            ),
            ("a",): (
                (groups, state, self.channels),
                pl.BlockSpec((None, state, block), lambda p, i: (p // chunks % groups, 0, i)),
            ),
            ("d_skip", "delta_bias"): (
                (groups, self.channels),
                pl.BlockSpec((None, block), lambda p, i: (p // chunks % groups, i)),
            ),
            ("entering", "adjoint", "states", "grad_a", "grad_entering"): (
                states,
                pl.BlockSpec((None, None, state, block), lambda p, i: (*at(p), 0, i)),
            ),
            ("steps", "grad_d_skip", "grad_delta_bias"): (
                per_chunk,
                pl.BlockSpec((None, None, block), lambda p, i: (*at(p), i)),
            ),
            ("kept",): (
                (self.batch, chunks, unrolled, state, self.channels),
                pl.BlockSpec((None, None, unrolled, state, block), lambda p, i: (*at(p), 0, 0, i)),
            ),
        }
        shape, spec = next(found for names, found in layouts.items() if name in names)
        # Kept states in bfloat16 err by 2^-9 for a few tokens only: each is a fresh start.
        like = dict.fromkeys(("y", "ungated", "grad_u"), "u")
        like |= {"grad_delta": "delta", "grad_z": "z"}
        dtype = self.arrays[like[name]].dtype if name in like else jnp.float32
        return jax.ShapeDtypeStruct(shape, dtype), spec


class _Math(NamedTuple):
    """Elementary functions on float32 tiles."""

    exp2: Callable[[jax.Array], jax.Array]
    log2: Callable[[jax.Array], jax.Array]
    reciprocal: Callable[[jax.Array], jax.Array]
    multiply_add: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _assembly(text: str, *arguments: jax.Array) -> jax.Array:
    """One PTX instruction on every element."""
    shape = jnp.broadcast_shapes(*(x.shape for x in arguments))
    (result,) = plgpu.elementwise_inline_asm(
        text,
        args=[jnp.broadcast_to(x, shape) for x in arguments],
        constraints=",".join(["=f"] + ["f"] * len(arguments)),
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct(shape, jnp.float32)],
    )
    return result


_EXACT = _Math(jnp.exp2, jnp.log2, lambda x: 1 / x, lambda x, y, z: x * y + z)
# Plain operations keep fix-ups for denormals around the hardware's functions, and never contract
# a product and a sum: half as many instructions again (docs/kernels.md).
_FAST = _Math(
    functools.partial(_assembly, "ex2.approx.ftz.f32 $0, $1;"),
    functools.partial(_assembly, "lg2.approx.ftz.f32 $0, $1;"),
    functools.partial(_assembly, "rcp.approx.ftz.f32 $0, $1;"),
    functools.partial(_assembly, "fma.rn.f32 $0, $1, $2, $3;"),
)


class Walk(NamedTuple):
    """How a program walks over its chunk."""

    chunk: int
    tokens: jax.Array | None  # of the sequence from the chunk's start on; None if all exist
    block: int
    channels: jax.Array | None  # from the block's start on; None if all exist
    delta_softplus: bool
    reverse: bool
    math: _Math

    def token(self, k):
        """Index in the chunk of the k-th token walked over."""
        return self.chunk - 1 - k if self.reverse else k

    def real(self, t):
        """Whether token t of this chunk exists; None where all do."""
        return None if self.tokens is None else t < self.tokens

    def _mask(self, t=None):
        """Where a vector of channels, at token t or of the whole chunk, exists; None everywhere."""
        real = None if t is None else self.real(t)
        mask = None if real is None else jnp.full((self.block,), real)
        if self.channels is not None:
            inside = jnp.arange(self.block) < self.channels
            mask = inside if mask is None else mask & inside
        return mask

    def channels_at(self, ref, t) -> jax.Array:
        """(channels,) float32 of token t; 0 where there is none."""
        return self._load(ref.at[t, :], self._mask(t))

    def channels_of(self, ref) -> jax.Array:
        """(channels,) float32 of the whole chunk."""
        return self._load(ref.at[:], self._mask())

    def states_at(self, ref, t) -> jax.Array:
        """(state,) float32 of token t; 0 where there is none."""
        real = self.real(t)
        return self._load(ref.at[t, :], None if real is None else jnp.full(ref.shape[-1:], real))

    def tile(self, ref, *index) -> jax.Array:
        """(state, channels) float32."""
        at = ref.at[(*index, slice(None), slice(None))]
        return self._load(at, self._tile_mask(ref))

    def put_channels_at(self, ref, t, value) -> None:
        """Writes (channels,) at token t."""
        self._store(ref.at[t, :], value, self._mask(t), ref.dtype)

    def put_channels_of(self, ref, value) -> None:
        """Writes (channels,) of the whole chunk."""
        self._store(ref.at[:], value, self._mask(), ref.dtype)

    def put_states_at(self, ref, t, value) -> None:
        """Writes (state,) at token t."""
        real = self.real(t)
        mask = None if real is None else jnp.full(ref.shape[-1:], real)
        self._store(ref.at[t, :], value, mask, ref.dtype)

    def put_tile(self, ref, value, *index) -> None:
        """Writes (state, channels)."""
        at = ref.at[(*index, slice(None), slice(None))]
        self._store(at, value, self._tile_mask(ref), ref.dtype)

    def _tile_mask(self, ref):
        mask = self._mask()
        return None if mask is None else jnp.broadcast_to(mask[None], ref.shape[-2:])

    @staticmethod
    def _load(at, mask) -> jax.Array:
        other = None if mask is None else 0.0
        return plgpu.load(at, mask=mask, other=other).astype(jnp.float32)

    @staticmethod
    def _store(at, value, mask, dtype) -> None:
        plgpu.store(at, value.astype(dtype), mask=mask)

    def before_softplus(self, refs, t) -> jax.Array:
        """(channels,) what the time step of token t is made of."""
        delta = self.channels_at(refs["delta"], t)
        return delta + self.channels_of(refs["delta_bias"]) if "delta_bias" in refs else delta

    def step(self, refs, t) -> jax.Array:
        """(channels,) time step of token t; 0 where there is no token."""
        delta = self.before_softplus(refs, t)
        delta = self.softplus(delta) if self.delta_softplus else delta
        real = self.real(t)
        return delta if real is None else jnp.where(real, delta, 0.0)

    def softplus(self, x) -> jax.Array:
        """log(1 + e^x), to float32's accuracy where it is small too."""
        e = self.math.exp2(x * LOG2_E)
        # The logarithm of 1 + e has an absolute error: below 1/16 its series is better.
        series = jnp.full_like(e, 1 / 5)
        for coefficient in (-1 / 4, 1 / 3, -1 / 2, 1.0):
            series = self.math.multiply_add(series, e, jnp.float32(coefficient))
        series = series * e
        logarithm = self.math.log2(1 + e) * (1 / LOG2_E)
        return jnp.where(x > 20, x, jnp.where(e < 1 / 16, series, logarithm))

    def zeros(self) -> jax.Array:
        """(channels,) float32."""
        return jnp.zeros((self.block,), jnp.float32)

    def sigmoid(self, x) -> jax.Array:
        """1 / (1 + e^-x)."""
        return self.math.reciprocal(1 + self.math.exp2(x * -LOG2_E))

    def advance(self, refs, a, h, t):
        """The state after token t, its decay, its time step and its input."""
        delta = self.step(refs, t)
        decay = self.math.exp2(delta[None, :] * a)
        u, b = self.channels_at(refs["u"], t), self.states_at(refs["b"], t)
        drive = b[:, None] * (delta * u)[None, :]
        return self.math.multiply_add(decay, h, drive), decay, delta, u
