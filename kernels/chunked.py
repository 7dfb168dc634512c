"""The portable selective scan: one chunk of tokens at a time, on any platform.

Forward, a `lax.scan` over chunks carries the state (rows, state, channels); only the state at the
start of each chunk is kept. Backward walks the chunks the other way, computes each chunk's states
again from the one that was kept, and the adjoint state beside them. So neither pass ever holds
(length, state, channels). With gradients a state element takes two exponentials in the associative
form, and three in the sequential one, where the decay of a token is not stored.

Inside a chunk the recurrence `h_t = decay_t h_{t-1} + drive_t` has two forms: "sequential"
(`lax.scan`) and "associative" (`lax.associative_scan`), each a file of `portable/`. On a CPU a
chunk is walked over in blocks of rows and channels that fit in the cache of a core.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels.arithmetic import softplus, sum_leading
from caduceus_jax.kernels.derivatives import differentiable
from caduceus_jax.kernels.options import Chunked, Inner, default_platform
from caduceus_jax.kernels.portable import associative, sequential
from caduceus_jax.kernels.portable.blocks import Block, Blocks, cached, whole
from caduceus_jax.kernels.portable.chunk import Chunk, by_group
from caduceus_jax.kernels.scan_inputs import PER_GROUP, ScanInputs, is_known

_WALKS = {"sequential": sequential, "associative": associative}

# Rows x channels whose chunks fit in the cache of a CPU core (measured: docs/kernels.md).
_CACHED_CHANNELS = 1024


class _Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    inner: Inner
    chunk: int  # tokens per chunk
    blocks: Blocks  # their rows are the sequences of one pass
    length: int  # tokens of the sequence, without the padding to whole chunks
    delta_softplus: bool
    reverse: bool


def scan(
    inputs: ScanInputs, options: Chunked, *, delta_softplus: bool, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs the scan; see `selective_scan` for the arrays.

    Returns:
        y (batch, length, channels) of the dtype of u, and the final state (batch, channels, state).
    """
    length = inputs.u.shape[1]
    plan = _plan(options, inputs, delta_softplus, reverse)
    ragged = (length + plan.chunk - 1) // plan.chunk * plan.chunk - length
    if not is_known(length) or ragged:
        pad = functools.partial(jnp.pad, pad_width=((0, 0), (0, ragged), (0, 0)))
        inputs = inputs._replace(
            u=pad(inputs.u),
            delta=pad(inputs.delta),
            b=pad(inputs.b),
            c=pad(inputs.c),
            z=None if inputs.z is None else pad(inputs.z),
            restart=None if inputs.restart is None else pad(inputs.restart[..., None])[..., 0],
        )
    y, final_state = _scan_blocks(plan, inputs)
    return y[:, :length], final_state


def _scan_blocks(plan: _Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    """Runs so many rows at a time as the plan says."""
    blocks = inputs.u.shape[0] // plan.blocks.rows
    if is_known(blocks) and blocks == 1:
        return _scan(plan, inputs)
    # Consecutive rows, a whole number of groups: row i of a block still belongs to i % groups.
    sequences = {
        name: x.reshape(blocks, plan.blocks.rows, *x.shape[1:])
        for name, x in inputs._asdict().items()
        if name not in PER_GROUP and x is not None
    }
    outputs = lax.map(lambda block: _scan(plan, inputs._replace(**block)), sequences)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)


def _plan(options: Chunked, inputs: ScanInputs, delta_softplus: bool, reverse: bool) -> _Plan:
    batch, length, channels = inputs.u.shape
    options = options.for_platform(default_platform())
    chunk, inner = options.chunk_length, options.inner
    assert chunk is not None and inner is not None
    rows = batch
    if inner == "sequential":
        # The arrays of a chunk should stay in a core's cache: as many whole groups as fit.
        fit = max(1, _CACHED_CHANNELS // (inputs.groups * channels))
        if is_known(batch):
            copies = batch // inputs.groups
            rows = inputs.groups * max(n for n in range(1, min(fit, copies) + 1) if copies % n == 0)
        elif fit == 1:
            rows = inputs.groups
    blocks = (cached if inner == "sequential" else whole)(rows, channels)
    if is_known(length):
        chunk = min(chunk, length)
    return _Plan(inner, chunk, blocks, length, delta_softplus, reverse)


def _load(plan: _Plan, inputs: ScanInputs, block: Block, index: jax.Array) -> Chunk:
    """Reads chunk `index` of a block."""
    read = functools.partial(_rows, plan, block, index, inputs.compute_dtype)
    pre_delta = read(inputs.delta)
    if block.delta_bias is not None:
        pre_delta = pre_delta + block.delta_bias
    delta = softplus(pre_delta) if plan.delta_softplus else pre_delta
    real = None
    if not is_known(plan.length) or plan.length % plan.chunk:
        real = (index * plan.chunk + jnp.arange(plan.chunk) < plan.length)[:, None, None]
        delta = jnp.where(real, delta, 0)
    return Chunk(
        read(inputs.u),
        pre_delta,
        delta,
        read(inputs.b, shared=True),
        read(inputs.c, shared=True),
        None if inputs.z is None else read(inputs.z),
        real,
        None if inputs.restart is None else read(inputs.restart[..., None], shared=True)[..., 0],
    )


def _rows(
    plan: _Plan, block: Block, index: jax.Array, dtype, x: jax.Array, *, shared: bool = False
) -> jax.Array:
    """Returns a block's part of chunk `index` of (batch, length, ...) as (time, rows, ...).

    `shared` says that the last axis is not that of the channels, but shared by all of them.
    """
    rows = lax.dynamic_slice(
        x,
        _start(plan, block, index, shared),
        (
            plan.blocks.block_rows,
            plan.chunk,
            x.shape[2] if shared else plan.blocks.block_channels,
        ),
    )
    return jnp.moveaxis(rows, 1, 0).astype(dtype)


def _put(
    plan: _Plan, block: Block, index: jax.Array, x: jax.Array, found: jax.Array, *, shared=False
) -> jax.Array:
    """Writes (time, rows, ...) into (batch, length, ...) where `_rows` reads it."""
    rows = jnp.moveaxis(found, 0, 1).astype(x.dtype)
    return lax.dynamic_update_slice(x, rows, _start(plan, block, index, shared))


def _start(plan: _Plan, block: Block, index: jax.Array, shared: bool) -> tuple[Any, Any, Any]:
    return block.row, index * plan.chunk, 0 if shared else block.channel


def _forward(plan: _Plan, inputs: ScanInputs, keep: bool) -> tuple[Any, Any]:
    """Returns (y, final state), and the states at the start of each chunk where they are kept."""
    blocks, walk = plan.blocks.parameters(inputs), _WALKS[plan.inner].walk

    def chunk(carry, index) -> tuple[Any, Any]:
        """Walks over one chunk from the states that enter it."""

        def block(found, xs) -> tuple[Any, Any]:
            """Walks over one block of the chunk."""
            block, state = xs
            x = _load(plan, inputs, block, index)
            last, y = walk(x, block.a, state, reverse=plan.reverse)
            if block.d_skip is not None:
                y = y + block.d_skip * x.u
            if x.z is not None:
                y = y * jax.nn.silu(x.z)
            return _put(plan, block, index, found, y), last

        states, found = carry
        found, last = lax.scan(block, found, (blocks, states))
        return (last, found), states if keep else None

    carry = (plan.blocks.cut(_first_state(inputs)), _zeros_like(inputs, inputs.u))
    (last, y), chunk_states = lax.scan(
        chunk, carry, _chunk_indices(plan, inputs), reverse=plan.reverse
    )
    return (y, jnp.swapaxes(plan.blocks.join(last), 1, 2)), chunk_states


def _backward(plan: _Plan, inputs: ScanInputs, chunk_states, cotangents) -> ScanInputs:
    """Returns the cotangents of the inputs, None where an input is None."""
    grad_y, grad_final = cotangents
    blocks = plan.blocks.parameters(inputs)

    def chunk(carry, xs) -> tuple[Any, Any]:
        """Walks back over one chunk from the adjoints that enter it."""
        index, states = xs

        def block(found, xs) -> tuple[Any, Any]:
            """Walks back over one block of the chunk."""
            block, state, adjoint, sums = xs
            x = _load(plan, inputs, block, index)
            read = functools.partial(_rows, plan, block, index, inputs.compute_dtype)
            adjoint, per_token, summed = _gradients(plan, x, block, state, read(grad_y), adjoint)
            found = dict(found)
            for name, grad in per_token.items():
                shared = name in ("b", "c")  # by all channels, which add to what others found
                grad = grad + read(found[name], shared=True) if shared else grad
                found[name] = _put(plan, block, index, found[name], grad, shared=shared)
            return found, (adjoint, jax.tree.map(jnp.add, sums, summed))

        adjoints, sums, found = carry
        found, (adjoints, sums) = lax.scan(block, found, (blocks, states, adjoints, sums))
        return (adjoints, sums, found), None

    groups, channels = blocks.a.shape[1], blocks.a.shape[3]
    per_channel = inputs.zeros(blocks.a.shape[0], groups, channels)
    sums = {"a": inputs.zeros(*blocks.a.shape), "d_skip": per_channel, "delta_bias": per_channel}
    per_token = {
        name: inputs.zeros(*x.shape) if name in ("b", "c") else _zeros_like(inputs, x)
        for name, x in inputs._asdict().items()
        if name in ("u", "delta", "b", "c", "z") and x is not None
    }
    adjoints = plan.blocks.cut(jnp.swapaxes(grad_final, 1, 2).astype(inputs.compute_dtype))
    (adjoints, sums, per_token), _ = lax.scan(
        chunk,
        (adjoints, sums, per_token),
        (_chunk_indices(plan, inputs), chunk_states),
        reverse=not plan.reverse,
    )
    adjoint = plan.blocks.join(adjoints)
    grads = per_token | {name: plan.blocks.by_group(x, inputs) for name, x in sums.items()}
    grads |= {"a": jnp.swapaxes(grads["a"], 1, 2), "initial_state": jnp.swapaxes(adjoint, 1, 2)}
    return inputs.cotangents(grads)


_scan = differentiable(_forward, _backward)


def _gradients(
    plan: _Plan, x: Chunk, block: Block, state, grad, adjoint
) -> tuple[jax.Array, Any, Any]:
    """Computes the gradients of one block of a chunk.

    Args:
        plan: direction and chunk length of the scan.
        x: the block's part of the chunk.
        block: its parameters.
        state: (rows, state, channels), the state at the end where the recurrence enters the chunk.
        grad: cotangent of y, (time, rows, channels).
        adjoint: gradient with respect to the state where the recurrence leaves the chunk.

    Returns:
        The adjoint where the recurrence enters the chunk; the gradients that are the sequences',
        time-major; and the chunk's share of those that are summed over tokens.
    """
    per_token, d_skip = {}, 0 if block.d_skip is None else block.d_skip
    gate = 1 if x.z is None else jax.nn.silu(x.z)
    walk_back = _WALKS[plan.inner].walk_back
    back = walk_back(x, block.a, state, grad * gate, adjoint, reverse=plan.reverse)
    if x.z is not None:
        sigmoid = jax.nn.sigmoid(x.z)
        slope = sigmoid * (1 + x.z * (1 - sigmoid))
        per_token["z"] = grad * (back.y + d_skip * x.u) * slope
    grad = grad * gate
    per_token["u"] = back.drive * x.delta + grad * d_skip
    per_token["b"], per_token["c"] = back.b, back.c
    grad_delta = back.drive * x.u + back.delta
    if plan.delta_softplus:
        grad_delta = grad_delta * jax.nn.sigmoid(x.pre_delta)
    per_token["delta"] = grad_delta if x.real is None else jnp.where(x.real, grad_delta, 0)
    summed = {
        "a": back.a,
        "d_skip": sum_leading(by_group(block.a, grad * x.u), 2),
        "delta_bias": sum_leading(by_group(block.a, per_token["delta"]), 2),
    }
    return back.adjoint, per_token, summed


def _chunk_indices(plan: _Plan, inputs: ScanInputs) -> jax.Array:
    return jnp.arange(inputs.u.shape[1] // plan.chunk)


def _zeros_like(inputs: ScanInputs, x: jax.Array) -> jax.Array:
    return inputs.zeros(*x.shape).astype(x.dtype)


def _first_state(inputs: ScanInputs) -> jax.Array:
    """Returns the initial state as the chunks carry it: (rows, state, channels)."""
    if inputs.initial_state is None:
        _, channels, state = inputs.a.shape
        return inputs.zeros(inputs.u.shape[0], state, channels)
    return jnp.swapaxes(inputs.initial_state, 1, 2).astype(inputs.compute_dtype)
