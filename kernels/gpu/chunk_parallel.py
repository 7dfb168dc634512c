"""The selective scan for machines of many cores: all chunks of a sequence at once.

A chunk's tokens are walked over one after another, but every chunk of every sequence has programs
of its own, so that one long sequence fills a GPU. Forward:

1. `summaries`: each chunk walks from a zero state; what leaves it, and the sum of its time steps.
   A chunk maps the state that enters it, h, to exp(A sum) h + that.
2. These maps are composed over the chunks (a scan as long as there are chunks, left to XLA): the
   state that enters each chunk.
3. `outputs`: each chunk walks again from that state and writes y.

Backward works the same way: `adjoints` walks forward, keeps the state of every few tokens, and sums
up what each chunk sends back to the state that enters it; these are composed over the chunks from
the far end; `gradients` walks each chunk back. No sum is shared between programs, so that two runs
are equal bit for bit, and nothing of size (length, state, channels) is kept but the states of every
few tokens, within the backward pass.

A `Lowering` brings the four kernels; everything else is here, once for all of them.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels import fused
from caduceus_jax.kernels.gpu import target
from caduceus_jax.kernels.options import PallasTriton, Triton, default_platform
from caduceus_jax.kernels.scan_inputs import ScanInputs, sum_groups

# Programs that keep a large GPU busy: 132 multiprocessors that each hold eight of one warp, twice.
_PROGRAMS = 2048
_CHANNELS_PER_PROGRAM = 128
_SHORTEST_CHUNK, _LONGEST_CHUNK = 128, 2048
# With more, a program does not fit in the registers of a multiprocessor.
_MOST_STATES = 128


class Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    lowering: "Lowering"
    chunk: int  # tokens per chunk
    delta_softplus: bool
    reverse: bool
    interpret: bool


class Gradients(NamedTuple):
    """Holds the gradients of each chunk, in float32 where no dtype is given."""

    u: jax.Array  # (batch, length, channels), dtype of u
    delta: jax.Array  # (batch, length, channels), dtype of delta
    z: jax.Array | None  # (batch, length, channels), dtype of z
    b: jax.Array  # (blocks, batch, length, state): partial sums over blocks of channels
    c: jax.Array  # (blocks, batch, length, state): partial sums over blocks of channels
    a: jax.Array  # (batch, chunks, state, channels)
    initial_states: jax.Array  # (batch, chunks, state, channels), those that enter the chunks
    d_skip: jax.Array | None  # (batch, chunks, channels)
    delta_bias: jax.Array | None  # (batch, chunks, channels)


@runtime_checkable
class Lowering(Protocol):
    """Provides the four kernels. States are (batch, chunks, state, channels) float32."""

    def summaries(self, plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
        """Returns what leaves each chunk from a zero state, and its summed time steps."""
        ...

    def outputs(
        self, plan: Plan, inputs: ScanInputs, initial_states: jax.Array, keep_ungated: bool
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Returns y, what leaves each chunk, and y before the gate if it is to be kept.

        `initial_states` are the states that enter the chunks.
        """
        ...

    def adjoints(
        self, plan: Plan, inputs: ScanInputs, initial_states: jax.Array, grad_y: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns states of every few tokens, and each chunk's adjoint of its entering state."""
        ...

    def gradients(
        self,
        plan: Plan,
        inputs: ScanInputs,
        checkpointed_states: jax.Array,
        ungated: jax.Array | None,
        grad_y: jax.Array,
        adjoint: jax.Array,
    ) -> Gradients:
        """Returns all gradients; `adjoint` is with respect to the state that leaves each chunk."""
        ...


def scan(
    inputs: ScanInputs,
    options: PallasTriton | Triton,
    lowering: Lowering,
    *,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[jax.Array, jax.Array]:
    """Runs the scan; see `selective_scan` for the arrays.

    Returns:
        y (batch, length, channels) of the dtype of u, and the final state (batch, channels, state).

    Raises:
        NotImplementedError: a dtype or a number of states that the kernels do not have.
    """
    interpret = bool(options.for_platform(default_platform()).interpret)
    fused.check_scan(inputs, interpret)
    batch, length, channels = inputs.u.shape
    state = inputs.a.shape[-1]
    if state & (state - 1) or state > _MOST_STATES:
        raise NotImplementedError(
            f"{state} states; supported: powers of two up to {_MOST_STATES}, or "
            "implementation='chunked'"
        )
    chunk = options.chunk_length or chunk_length(batch, length, channels)
    plan = Plan(lowering, chunk, delta_softplus, reverse, interpret)
    return _scan(plan, inputs)


def chunk_length(batch: int, length: int, channels: int) -> int:
    """Returns the longest power of two that leaves enough programs to fill a GPU.

    Long chunks keep the composition over chunks small; short ones fill the device.
    """
    programs = batch * -(-channels // _CHANNELS_PER_PROGRAM)
    chunk = _LONGEST_CHUNK
    while chunk > _SHORTEST_CHUNK and programs * -(-length // chunk) < _PROGRAMS:
        chunk //= 2
    # Of a short sequence the chunk is the whole, rounded up to what a kernel unrolls.
    return min(chunk, -(-length // 4) * 4)


def _between_chunks(plan: Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array | None]:
    """Returns the initial state of each chunk, and each chunk's decay: None where there is one."""
    batch, _, channels = inputs.u.shape
    state = inputs.a.shape[-1]
    first = jnp.zeros((batch, state, channels), jnp.float32)
    if inputs.initial_state is not None:
        first = jnp.swapaxes(inputs.initial_state, 1, 2).astype(jnp.float32)
    if inputs.u.shape[1] <= plan.chunk:
        return first[:, None], None
    final_states, steps = plan.lowering.summaries(plan, inputs)
    decay = _chunk_decay(inputs, steps, plan.chunk)
    return _compose_chunks(decay, final_states, first, reverse=plan.reverse), decay


def _forward(plan: Plan, inputs: ScanInputs, known, keep: bool) -> tuple[Any, Any]:
    """Returns (y, final state), and y before the gate where it is to be kept."""
    initial_states, _ = known
    if not plan.interpret:
        inputs = inputs._replace(u=target.refuse_export(inputs.u))
    y, final_states, ungated = plan.lowering.outputs(plan, inputs, initial_states, keep)
    final = final_states[:, 0 if plan.reverse else -1]
    return (y, jnp.swapaxes(final, 1, 2)), ungated if keep else None


def _backward(plan: Plan, inputs: ScanInputs, known, ungated, cotangents) -> ScanInputs:
    """Returns the gradients of the inputs, None where an input is None."""
    (initial_states, decay), (grad_y, grad_final) = known, cotangents
    lowering = plan.lowering
    checkpointed_states, local = lowering.adjoints(plan, inputs, initial_states, grad_y)
    last = jnp.swapaxes(grad_final, 1, 2).astype(jnp.float32)
    if decay is None:  # one chunk
        adjoint = last[:, None]
    else:
        adjoint = _compose_chunks(decay, local, last, reverse=not plan.reverse)
    grads = lowering.gradients(plan, inputs, checkpointed_states, ungated, grad_y, adjoint)
    per_group = functools.partial(sum_groups, groups=inputs.groups, chunks=True)
    summed: dict[str, Any] = {
        "u": grads.u,
        "delta": grads.delta,
        "z": grads.z,
        "b": jnp.sum(grads.b, axis=0),
        "c": jnp.sum(grads.c, axis=0),
        "a": jnp.swapaxes(per_group(grads.a), 1, 2),
        "d_skip": None if grads.d_skip is None else per_group(grads.d_skip),
        "delta_bias": None if grads.delta_bias is None else per_group(grads.delta_bias),
        "initial_state": jnp.swapaxes(grads.initial_states[:, -1 if plan.reverse else 0], 1, 2),
    }
    return inputs.cotangents(summed)


_scan = fused.fused_scan(_forward, _backward, _between_chunks)


def _chunk_decay(inputs: ScanInputs, steps: jax.Array, chunk: int) -> jax.Array:
    """Returns exp(A sum of steps): (batch, chunks, channels) -> (..., state, channels).

    It is 0 where the chunk forgets the state that enters it.
    """
    a = inputs.each_row(jnp.swapaxes(inputs.a, 1, 2))
    decay = jnp.exp(a[:, None] * steps[:, :, None])
    if inputs.restart is None:
        return decay
    chunks = steps.shape[1]
    ragged = chunks * chunk - inputs.u.shape[1]
    whole = jnp.pad(inputs.restarts, ((0, 0), (0, ragged)))
    forgets = jnp.any(whole.reshape(-1, chunks, chunk), axis=2)
    return jnp.where(forgets[..., None, None], 0.0, decay)


def _compose_chunks(decay, local, first, *, reverse: bool) -> jax.Array:
    """Returns what enters each chunk, (batch, chunks, state, channels).

    Each chunk maps x to decay x + local; `first` enters the first one that is walked over, which
    is the last one with `reverse`.
    """

    def compose(one, other):
        return one[0] * other[0], other[0] * one[1] + other[1]

    factor, added = lax.associative_scan(compose, (decay, local), axis=1, reverse=reverse)
    after = factor * first[:, None] + added
    if reverse:
        return jnp.concatenate([after[:, 1:], first[:, None]], axis=1)
    return jnp.concatenate([first[:, None], after[:, :-1]], axis=1)
