"""The portable selective scan: one chunk of tokens at a time, on any platform.

Forward, a `lax.scan` over chunks carries the state (rows, state, channels); only the state at the
start of each chunk is kept. Backward walks the chunks the other way, computes each chunk's states
again from the one that was kept, and the adjoint state beside them. So neither pass ever holds
(length, state, channels). With gradients a state element takes two exponentials in the associative
form, and three in the sequential one, where the decay of a token is not stored.

Inside a chunk arrays are time-major with channels last, (time, rows, state, channels): channels
fill vector lanes, and every sum over channels or states is a product of small matrices. A row is a
sequence of the batch. The recurrence `h_t = decay_t h_{t-1} + drive_t` inside a chunk has two
forms: "sequential" (`lax.scan`; a CPU has nothing to gain from more arithmetic) and "associative"
(`lax.associative_scan`; of logarithmic depth, for machines with more lanes than channels).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from caduceus_jax.kernels.arithmetic import (
    exp_of_product,
    softplus,
    sum_channels,
    sum_leading,
    sum_states,
)
from caduceus_jax.kernels.derivatives import differentiable
from caduceus_jax.kernels.options import Chunked, Inner, default_platform
from caduceus_jax.kernels.scan_inputs import PER_GROUP, ScanInputs, is_known

# Rows x channels that a CPU core walks over side by side (measured: docs/kernels.md).
_CACHED_CHANNELS = 1024


class _Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    inner: Inner
    chunk: int  # tokens per chunk
    rows: int  # sequences walked over side by side
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
    blocks = inputs.u.shape[0] // plan.rows
    if is_known(blocks) and blocks == 1:
        return _scan(plan, inputs)
    # Consecutive rows, a whole number of groups: row i of a block still belongs to i % groups.
    sequences = {
        name: x.reshape(blocks, plan.rows, *x.shape[1:])
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
    if is_known(length):
        chunk = min(chunk, length)
    return _Plan(inner, chunk, rows, length, delta_softplus, reverse)


class _Chunk(NamedTuple):
    """One chunk of the inputs, time-major, in the dtype of the recurrence."""

    u: jax.Array  # (time, rows, channels)
    pre_delta: jax.Array  # (time, rows, channels): delta + bias, before softplus
    delta: jax.Array  # (time, rows, channels): 0 on padding, so that the state passes unchanged
    b: jax.Array  # (time, rows, state)
    c: jax.Array  # (time, rows, state)
    z: jax.Array | None  # (time, rows, channels)
    real: jax.Array | None  # (time, 1, 1) bool, False on padding; None where there is none
    restart: jax.Array | None  # (time, rows): see `ScanInputs`


def _load(plan: _Plan, inputs: ScanInputs, index: jax.Array) -> _Chunk:
    """Reads chunk `index`."""
    dtype = inputs.compute_dtype
    u, b, c, pre_delta = (
        _rows(plan, x, index, dtype) for x in (inputs.u, inputs.b, inputs.c, inputs.delta)
    )
    z = None if inputs.z is None else _rows(plan, inputs.z, index, dtype)
    if inputs.delta_bias is not None:
        pre_delta = pre_delta + inputs.each_row(inputs.delta_bias)[None]
    delta = softplus(pre_delta) if plan.delta_softplus else pre_delta
    real = None
    if not is_known(plan.length) or plan.length % plan.chunk:
        real = (index * plan.chunk + jnp.arange(plan.chunk) < plan.length)[:, None, None]
        delta = jnp.where(real, delta, 0)
    restart = None
    if inputs.restart is not None:
        restart = _rows(plan, inputs.restart, index, dtype)
    return _Chunk(u, pre_delta, delta, b, c, z, real, restart)


def _rows(plan: _Plan, x: jax.Array, index: jax.Array, dtype) -> jax.Array:
    """Returns chunk `index` of (batch, length, ...) as (time, rows, ...)."""
    rows = lax.dynamic_slice_in_dim(x, index * plan.chunk, plan.chunk, axis=1)
    return jnp.moveaxis(rows, 1, 0).astype(dtype)


def _put(plan: _Plan, x: jax.Array, chunk: jax.Array, index: jax.Array) -> jax.Array:
    """Writes (time, rows, ...) into (batch, length, ...) as chunk `index`."""
    rows = jnp.moveaxis(chunk, 0, 1).astype(x.dtype)
    return lax.dynamic_update_slice_in_dim(x, rows, index * plan.chunk, axis=1)


def _discretise(x: _Chunk, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns decay and drive (time, rows, state, channels): zero-order hold for A, Euler for B.

    Gu & Dao 2023, equation 4 and section 3.5.1. `a` is (groups, state, channels).
    """
    return _decay(x.delta, a, x.restart), x.b[..., None] * (x.delta * x.u)[..., None, :]


def _decay(delta: jax.Array, a: jax.Array, restart: jax.Array | None) -> jax.Array:
    """Returns exp(delta A + restart): (..., rows, channels) times (groups, state, channels)."""
    *lead, rows, channels = delta.shape
    groups, state, _ = a.shape
    by_group = (*lead, rows // groups, groups, 1)
    decay = exp_of_product(
        delta.reshape(*by_group, channels),
        jnp.expand_dims(a, range(delta.ndim + 2 - a.ndim)),
        None if restart is None else restart.reshape(*by_group, 1),
    )
    return decay.reshape(*lead, rows, state, channels)


def _taken(h: jax.Array, a: jax.Array, delta, drive, b, restart) -> jax.Array:
    """Takes one token into the state (rows, state, channels)."""
    return _decay(delta, a, restart) * h + b[..., None] * drive[:, None, :]


def _forward(plan: _Plan, inputs: ScanInputs, keep: bool) -> tuple[Any, Any]:
    """Returns (y, final state), and the state at the start of each chunk where it is kept."""
    a, d_skip = _per_channel(inputs)

    def chunk(carry, index) -> tuple[Any, Any]:
        """Walks over one chunk from the state that enters it."""
        state, found = carry
        x = _load(plan, inputs, index)
        last, y = _outputs(plan, x, a, state)
        if d_skip is not None:
            y = y + d_skip * x.u
        if x.z is not None:
            y = y * jax.nn.silu(x.z)
        return (last, _put(plan, found, y, index)), state if keep else None

    carry = (_first_state(inputs), _zeros_like(inputs, inputs.u))
    (last, y), chunk_states = lax.scan(
        chunk, carry, _chunk_indices(plan, inputs), reverse=plan.reverse
    )
    return (y, jnp.swapaxes(last, 1, 2)), chunk_states


def _outputs(plan: _Plan, x: _Chunk, a, state) -> tuple[jax.Array, jax.Array]:
    """Returns the last state visited, and C_t h_t (time, rows, channels) of the chunk."""
    if plan.inner == "associative":
        h, last = _recurrence(plan, *_discretise(x, a), state)
        return last, sum_states(h, x.c)

    # Nothing of size (time, ..., state, channels) here: the state stays in cache.
    def step(h, token) -> tuple[jax.Array, jax.Array]:
        """Takes one token into the state and reads it out."""
        delta, drive, b, c, restart = token
        h = _taken(h, a, delta, drive, b, restart)
        return h, sum_states(h[None], c[None])[0]

    tokens = (x.delta, x.delta * x.u, x.b, x.c, x.restart)
    return lax.scan(step, state, tokens, reverse=plan.reverse)


def _backward(plan: _Plan, inputs: ScanInputs, chunk_states, cotangents) -> ScanInputs:
    """Returns the cotangents of the inputs, None where an input is None."""
    grad_y, grad_final = cotangents
    dtype = inputs.compute_dtype
    a, d_skip = _per_channel(inputs)

    def chunk(carry, xs) -> tuple[Any, Any]:
        """Walks back over one chunk from the adjoint that enters it."""
        adjoint, sums, found = carry
        index, state = xs
        x, grad = _load(plan, inputs, index), _rows(plan, grad_y, index, dtype)
        adjoint, per_token, summed = _gradients(plan, x, a, d_skip, state, grad, adjoint)
        sums = jax.tree.map(jnp.add, sums, summed)
        found = {name: _put(plan, found[name], x, index) for name, x in per_token.items()}
        return (adjoint, sums, found), None

    per_channel = inputs.zeros(inputs.groups, a.shape[-1])
    sums = {"a": inputs.zeros(*a.shape), "d_skip": per_channel, "delta_bias": per_channel}
    per_token = {
        name: _zeros_like(inputs, x)
        for name, x in inputs._asdict().items()
        if name in ("u", "delta", "b", "c", "z") and x is not None
    }
    (adjoint, sums, per_token), _ = lax.scan(
        chunk,
        (jnp.swapaxes(grad_final, 1, 2).astype(dtype), sums, per_token),
        (_chunk_indices(plan, inputs), chunk_states),
        reverse=not plan.reverse,
    )
    grads = sums | per_token
    grads |= {"a": jnp.swapaxes(sums["a"], 1, 2), "initial_state": jnp.swapaxes(adjoint, 1, 2)}
    return inputs.cotangents(grads)


_scan = differentiable(_forward, _backward)


def _gradients(
    plan: _Plan, x: _Chunk, a, d_skip, state, grad, adjoint
) -> tuple[jax.Array, Any, Any]:
    """Computes the gradients of one chunk.

    Args:
        plan: direction and chunk length of the scan.
        x: the chunk.
        a: (groups, state, channels).
        d_skip: (1, rows, channels), or None.
        state: (rows, state, channels), the state at the end where the recurrence enters the chunk.
        grad: cotangent of y, (time, rows, channels).
        adjoint: gradient with respect to the state where the recurrence leaves the chunk.

    Returns:
        The adjoint where the recurrence enters the chunk; the gradients that are the sequences',
        time-major; and the chunk's share of those that are summed over tokens.
    """
    per_token, d_skip = {}, 0 if d_skip is None else d_skip
    gate = 1 if x.z is None else jax.nn.silu(x.z)
    walk = _walk_back if plan.inner == "sequential" else _walk_back_at_once
    back = walk(plan, x, a, state, grad * gate, adjoint)
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
        "d_skip": sum_leading(_by_group(a, grad * x.u), 2),
        "delta_bias": sum_leading(_by_group(a, per_token["delta"]), 2),
    }
    return back.adjoint, per_token, summed


class _WalkedBack(NamedTuple):
    """What a walk back over one chunk finds; g_t is the gradient with respect to the state h_t."""

    adjoint: jax.Array  # (rows, state, channels): g decay, where the recurrence enters the chunk
    y: jax.Array | None  # (time, rows, channels): C_t h_t, where there is a gate
    drive: jax.Array  # (time, rows, channels): gradient with respect to delta_t u_t
    delta: jax.Array  # (time, rows, channels): gradient with respect to delta_t, through the decay
    b: jax.Array  # (time, rows, state)
    c: jax.Array  # (time, rows, state)
    a: jax.Array  # (groups, state, channels), summed over the chunk


def _walk_back(plan: _Plan, x: _Chunk, a, state, grad, adjoint) -> _WalkedBack:
    """Walks token by token: of the states, only those of the chunk's tokens leave the cache."""

    def forwards(h, token) -> tuple[jax.Array, Any]:
        delta, drive, b, c, restart, grad = token
        h = _taken(h, a, delta, drive, b, restart)
        y = None if x.z is None else sum_states(h[None], c[None])[0]
        return h, (h, y, sum_channels(h[None], grad[None])[0])

    drive = x.delta * x.u
    tokens = (x.delta, drive, x.b, x.c, x.restart, grad)
    _, (h, y, grad_c) = lax.scan(forwards, state, tokens, reverse=plan.reverse)

    def through_decay(h, adjoint, delta) -> tuple[jax.Array, jax.Array]:
        """Returns the gradients of delta and A that come through a token's decay.

        They need g_t decay_t h_{t-1}: what enters token t - 1 as its adjoint, times its state.
        """
        product = h * adjoint
        through_a = (_by_group(a, product[None]) * a[None, None]).reshape(1, *product.shape)
        return sum_states(through_a, jnp.ones_like(x.b[:1]))[0], product * delta[:, None, :]

    def backwards(carry, token) -> tuple[Any, Any]:
        adjoint, grad_a = carry
        delta, drive, b, c, restart, grad, h, next_delta = token
        grad_delta, more = through_decay(h, adjoint, next_delta)
        g = adjoint + c[..., None] * grad[:, None, :]
        results = sum_states(g[None], b[None])[0], sum_channels(g[None], drive[None])[0]
        return (_decay(delta, a, restart) * g, grad_a + more), (*results, grad_delta)

    # The token after the last one has had its share, in the chunk that it belongs to.
    first, last = (-1, 0) if plan.reverse else (0, -1)
    after = 1 if plan.reverse else -1
    following = jnp.roll(x.delta, after, axis=0).at[last].set(0)
    (adjoint, grad_a), (grad_drive, grad_b, grad_delta) = lax.scan(
        backwards,
        (adjoint, jnp.zeros_like(adjoint)),
        (*tokens, h, following),
        reverse=not plan.reverse,
    )
    grad_first, more = through_decay(state, adjoint, x.delta[first])
    grad_delta = jnp.roll(grad_delta, -after, axis=0).at[first].set(grad_first)
    grad_a = sum_leading(_by_group(a, (grad_a + more)[None]), 3)
    return _WalkedBack(adjoint, y, grad_drive, grad_delta, grad_b, grad_c, grad_a)


def _walk_back_at_once(plan: _Plan, x: _Chunk, a, state, grad, adjoint) -> _WalkedBack:
    """Walks by associative scans over the chunk."""
    decay, drive = _discretise(x, a)
    h, _ = _recurrence(plan, decay, drive, state)
    g, adjoint = _adjoint_recurrence(plan, decay, x.c[..., None] * grad[..., None, :], adjoint)
    through_decay = g * (h - drive)  # g_t decay_t h_{t-1}
    through_a = (_by_group(a, through_decay) * a[None, None]).reshape(h.shape)
    return _WalkedBack(
        adjoint,
        y=None if x.z is None else sum_states(h, x.c),
        drive=sum_states(g, x.b),
        delta=sum_states(through_a, jnp.ones_like(x.b)),
        b=sum_channels(g, x.delta * x.u),
        c=sum_channels(h, grad),
        a=sum_leading(_by_group(a, through_decay * x.delta[..., None, :]), 3),
    )


def _by_group(a: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes (time, rows, ...) to (time, rows / groups, groups, ...)."""
    groups = a.shape[0]
    return x.reshape(x.shape[0], x.shape[1] // groups, groups, *x.shape[2:])


def _recurrence(plan: _Plan, decay, drive, state) -> tuple[jax.Array, jax.Array]:
    """Runs h_t = decay_t h_{t-1} + drive_t from `state`: all h (time, ...), and the last one."""
    decay, local = lax.associative_scan(_compose, (decay, drive), reverse=plan.reverse)
    h = decay * state[None] + local
    return h, h[0 if plan.reverse else -1]


def _adjoint_recurrence(plan: _Plan, decay, source, adjoint) -> tuple[jax.Array, jax.Array]:
    """Runs g_t = source_t + decay_{t+1} g_{t+1}, against the direction of the recurrence.

    `adjoint` is decay_{t+1} g_{t+1} as it enters the chunk; it is returned as it leaves it.
    """
    backwards = not plan.reverse
    decay, local = lax.associative_scan(_compose, (decay, decay * source), reverse=backwards)
    after = decay * adjoint[None] + local
    before = (
        jnp.concatenate([after[1:], adjoint[None]])
        if backwards
        else jnp.concatenate([adjoint[None], after[:-1]])
    )
    return source + before, after[0 if backwards else -1]


def _compose(first, second) -> tuple[jax.Array, jax.Array]:
    """Composes two affine maps h -> decay h + drive, the first one applied first."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def _per_channel(inputs: ScanInputs) -> tuple[jax.Array, jax.Array | None]:
    """Returns A as (groups, state, channels) and D as (1, rows, channels), in the compute dtype."""
    d_skip = None if inputs.d_skip is None else inputs.each_row(inputs.d_skip)[None]
    return jnp.swapaxes(inputs.a, 1, 2).astype(inputs.compute_dtype), d_skip


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
