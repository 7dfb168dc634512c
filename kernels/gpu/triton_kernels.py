"""The kernels of `chunk_parallel` in Triton: NVIDIA GPUs.

A program walks over one chunk of one sequence for a block of channels. Its state is a tile (state,
channels) in registers: of up to 16 states a warp has whole columns, so that sums over states
need few exchanges between threads, and B and C are loaded once for all channels of the block.

Exponentials are powers of two of A log2(e). A chunk at the ragged end has decay 1 and input 0
past the last token: the time step is 0 after the softplus, not before. The decay of the first token
of a segment is 0.

Names are those of `layout`; an array that a scan does not have is not touched. `p` is the
`Program`, known when a kernel is compiled; `at` is where its program is. Offsets are 64 bits wide.
`no_type_check` keeps checkers of annotations off functions that Triton reads as text.
"""

from typing import NamedTuple, no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from caduceus_jax.kernels.gpu import layout, triton_math

_LOG2_E = tl.constexpr(layout.LOG2_E)


class _Place(NamedTuple):
    """Says where a program is."""

    row: tl.tensor  # first token of its chunk, counted over all sequences
    tokens: tl.tensor  # of the sequence from there on
    channel: tl.tensor  # (channels,)
    inside: tl.tensor  # (channels,): which of them exist
    group: tl.tensor
    chunk: tl.tensor  # counted over all sequences
    block: tl.tensor


@triton.jit
@no_type_check
def _place(p: tl.constexpr):
    """Numbers programs so that neighbours have blocks of one chunk: they read the same B and C."""
    program = tl.program_id(0).to(tl.int64)
    chunk, block = program // p.blocks, program % p.blocks
    sequence, start = chunk // p.chunks, chunk % p.chunks * p.chunk
    channel = block * p.block + tl.arange(0, p.block)
    if p.channels % p.block:
        inside = channel < p.channels
    else:
        inside = tl.full((p.block,), True, tl.int1)
    row, group = sequence * p.length + start, sequence % p.groups
    return _Place(row, p.length - start, channel, inside, group, chunk, block)


@triton.jit
@no_type_check
def _token(i, j: tl.constexpr, p: tl.constexpr):
    """Returns the index in the chunk of the j-th token that round i visits."""
    if p.reverse:
        t = p.chunk - 1 - j - i * p.unroll
    else:
        t = i * p.unroll + j
    return t


@triton.jit
@no_type_check
def _channels_at(array, t, at, p: tl.constexpr):
    """Returns pointers to (channels,) of token t, and which of them exist."""
    exists = at.inside
    if p.length % p.chunk:
        exists = exists & (t < at.tokens)
    return array + (at.row + t) * p.channels + at.channel, exists


@triton.jit
@no_type_check
def _states_at(array, t, at, p: tl.constexpr):
    """Returns pointers to (state,) of token t, and whether they exist."""
    n = tl.arange(0, p.state)
    exists = tl.full((p.state,), True, tl.int1)
    if p.length % p.chunk:
        exists = exists & (t < at.tokens)
    return array + (at.row + t) * p.state + n, exists


@triton.jit
@no_type_check
def _tile_at(array, index, at, p: tl.constexpr):
    """Returns pointers to the index-th (state, channels), and which of them exist."""
    n = tl.arange(0, p.state)
    pointers = array + (index * p.state + n[:, None]) * p.channels + at.channel[None, :]
    pointers = tl.max_contiguous(pointers, [1, 4])
    return pointers, tl.broadcast_to(at.inside[None, :], (p.state, p.block))


@triton.jit
@no_type_check
def _load(where):
    """Loads float32; 0 where there is nothing."""
    return tl.load(where[0], mask=where[1], other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _store(where, value):
    tl.store(where[0], value.to(where[0].dtype.element_ty), mask=where[1])


@triton.jit
@no_type_check
def _of_group(array, at, p: tl.constexpr):
    """Loads (channels,) of a parameter."""
    return tl.load(array + at.group * p.channels + at.channel, mask=at.inside, other=0.0)


@triton.jit
@no_type_check
def _of_chunk(array, at, p: tl.constexpr):
    """Returns pointers to (channels,) of the whole chunk, and which of them exist."""
    return array + at.chunk * p.channels + at.channel, at.inside


@triton.jit
@no_type_check
def _step(delta, bias, t, at, p: tl.constexpr):
    """Returns the time step of token t (channels,) and its slope in delta; 0 without a token."""
    step = _load(_channels_at(delta, t, at, p))
    if p.has_delta_bias:
        step += bias
    slope = tl.full((p.block,), 1.0, tl.float32)
    if p.delta_softplus:
        step, slope = triton_math.softplus(step, p)
    if p.length % p.chunk:
        step, slope = tl.where(t < at.tokens, step, 0.0), tl.where(t < at.tokens, slope, 0.0)
    return step, slope


@triton.jit
@no_type_check
def _advance(u, delta, b, restart, bias, a, h, t, at, p: tl.constexpr):
    """Returns the state after token t, its decay, its time step with its slope, and its input."""
    step, slope = _step(delta, bias, t, at, p)
    exponent = step[None, :] * a
    if p.has_restart:
        if p.length % p.chunk:
            exponent += tl.load(restart + at.row + t, mask=t < at.tokens, other=0.0)
        else:
            exponent += tl.load(restart + at.row + t)
    decay = triton_math.exp2_of_tile(exponent, p)
    x = _load(_channels_at(u, t, at, p))
    drive = _load(_states_at(b, t, at, p))[:, None] * (step * x)[None, :]
    return decay * h + drive, decay, step, slope, x


@triton.jit
@no_type_check
def _gate(z, grad_y, t, at, p: tl.constexpr):
    """Returns the cotangent of y before the gate; z and its sigmoid, and the cotangent of y."""
    outer = _load(_channels_at(grad_y, t, at, p))
    if p.has_z:
        x = _load(_channels_at(z, t, at, p))
        sigmoid = triton_math.sigmoid(x, p)
        grad = outer * x * sigmoid
    else:
        x, sigmoid, grad = outer, outer, outer
    return grad, x, sigmoid, outer


@triton.jit
@no_type_check
def selective_scan_summaries(u, delta, b, restart, a, delta_bias, states, steps, p: tl.constexpr):
    """Computes what leaves the chunk from a zero state, and its summed time steps."""
    at = _place(p)
    decay_rate = _load(_tile_at(a, at.group, at, p)) * _LOG2_E
    bias = _of_group(delta_bias, at, p) if p.has_delta_bias else None
    h = tl.zeros((p.state, p.block), tl.float32)
    total = tl.zeros((p.block,), tl.float32)
    for i in range(p.chunk // p.unroll):
        for j in tl.static_range(p.unroll):
            t = _token(i, j, p)
            h, _, step, _, _ = _advance(u, delta, b, restart, bias, decay_rate, h, t, at, p)
            total += step
    _store(_tile_at(states, at.chunk, at, p), h)
    _store(_of_chunk(steps, at, p), total)


@triton.jit
@no_type_check
def selective_scan_outputs(
    u,
    delta,
    b,
    c,
    restart,
    a,
    d_skip,
    z,
    delta_bias,
    initial_states,
    y,
    states,
    ungated,
    p: tl.constexpr,
):
    """Computes y from the state that enters the chunk, and the state that leaves it."""
    at = _place(p)
    decay_rate = _load(_tile_at(a, at.group, at, p)) * _LOG2_E
    bias = _of_group(delta_bias, at, p) if p.has_delta_bias else None
    skip = _of_group(d_skip, at, p) if p.has_d_skip else None
    h = _load(_tile_at(initial_states, at.chunk, at, p))
    for i in range(p.chunk // p.unroll):
        for j in tl.static_range(p.unroll):
            t = _token(i, j, p)
            h, _, _, _, x = _advance(u, delta, b, restart, bias, decay_rate, h, t, at, p)
            out = tl.sum(h * _load(_states_at(c, t, at, p))[:, None], axis=0)
            if p.has_d_skip:
                out += skip * x
            if p.has_ungated:
                _store(_channels_at(ungated, t, at, p), out)
            if p.has_z:
                gate = _load(_channels_at(z, t, at, p))
                out = out * gate * triton_math.sigmoid(gate, p)
            _store(_channels_at(y, t, at, p), out)
    _store(_tile_at(states, at.chunk, at, p), h)


@triton.jit
@no_type_check
def selective_scan_adjoints(
    u,
    delta,
    b,
    c,
    restart,
    a,
    z,
    delta_bias,
    initial_states,
    grad_y,
    checkpointed_states,
    states,
    p: tl.constexpr,
):
    """Computes states of every few tokens, and sum_t (prod_{s <= t} decay_s) C_t dy_t.

    The latter is the gradient with respect to the state that enters the chunk as far as it comes
    from the chunk's own outputs. It is summed in walking order, beside the states: each decay is
    computed once for both.
    """
    at = _place(p)
    decay_rate = _load(_tile_at(a, at.group, at, p)) * _LOG2_E
    bias = _of_group(delta_bias, at, p) if p.has_delta_bias else None
    h = _load(_tile_at(initial_states, at.chunk, at, p))
    product = tl.full((p.state, p.block), 1.0, tl.float32)
    adjoint = tl.zeros((p.state, p.block), tl.float32)
    for i in range(p.chunk // p.unroll):
        _store(_tile_at(checkpointed_states, at.chunk * (p.chunk // p.unroll) + i, at, p), h)
        for j in tl.static_range(p.unroll):
            t = _token(i, j, p)
            h, decay, _, _, _ = _advance(u, delta, b, restart, bias, decay_rate, h, t, at, p)
            product *= decay
            grad, _, _, _ = _gate(z, grad_y, t, at, p)
            adjoint += product * (_load(_states_at(c, t, at, p))[:, None] * grad[None, :])
    _store(_tile_at(states, at.chunk, at, p), adjoint)


@triton.jit
@no_type_check
def selective_scan_gradients(
    u,
    delta,
    b,
    c,
    restart,
    a,
    d_skip,
    z,
    delta_bias,
    checkpointed_states,
    ungated,
    grad_y,
    adjoint,
    grad_u,
    grad_delta,
    grad_z,
    grad_b,
    grad_c,
    grad_a,
    grad_initial_states,
    grad_d_skip,
    grad_delta_bias,
    p: tl.constexpr,
):
    """Computes all gradients of the chunk, against the recurrence, a few tokens at a time."""
    at = _place(p)
    decay_rate = _load(_tile_at(a, at.group, at, p)) * _LOG2_E
    bias = _of_group(delta_bias, at, p) if p.has_delta_bias else None
    skip = _of_group(d_skip, at, p) if p.has_d_skip else None
    partial = at.block * (p.batch * p.length * p.state)
    inputs = u, delta, b, c, z, grad_y, ungated
    outputs = (grad_u, grad_delta, grad_z, grad_b + partial, grad_c + partial)
    carry = (
        _load(_tile_at(adjoint, at.chunk, at, p)),
        tl.zeros((p.state, p.block), tl.float32),
        tl.zeros((p.block,), tl.float32),
        tl.zeros((p.block,), tl.float32),
    )
    for k in range(p.chunk // p.unroll):
        i = p.chunk // p.unroll - 1 - k
        h = _load(_tile_at(checkpointed_states, at.chunk * (p.chunk // p.unroll) + i, at, p))
        walked = ()  # the states of these tokens, from the one that was kept
        for j in tl.static_range(p.unroll):
            t = _token(i, j, p)
            entered = h
            h, decay, step, slope, _ = _advance(u, delta, b, restart, bias, decay_rate, h, t, at, p)
            walked = walked + ((entered, h, decay, step, slope),)
        for j in tl.static_range(p.unroll - 1, -1, -1):
            t, token = _token(i, j, p), walked[j]
            carry = _token_gradients(
                inputs, outputs, decay_rate, bias, skip, t, token, carry, at, p
            )
    _store(_tile_at(grad_initial_states, at.chunk, at, p), carry[0])
    _store(_tile_at(grad_a, at.chunk, at, p), carry[1])
    if p.has_d_skip:
        _store(_of_chunk(grad_d_skip, at, p), carry[2])
    if p.has_delta_bias:
        _store(_of_chunk(grad_delta_bias, at, p), carry[3])


@triton.jit
@no_type_check
def _token_gradients(inputs, outputs, decay_rate, bias, skip, t, token, carry, at, p: tl.constexpr):
    """Computes gradients of a token; `carry` is the adjoint beyond it, and the sums over tokens."""
    u, delta, b, c, z, grad_y, ungated = inputs
    grad_u, grad_delta, grad_z, grad_b, grad_c = outputs
    entered, h, decay, step, slope = token
    adjoint, grad_a, grad_skip, grad_bias = carry
    x = _load(_channels_at(u, t, at, p))
    drive, readout = _load(_states_at(b, t, at, p)), _load(_states_at(c, t, at, p))
    grad, gate, sigmoid, outer = _gate(z, grad_y, t, at, p)
    if p.has_z:
        y = _load(_channels_at(ungated, t, at, p))
        gate_slope = (gate * (1 - sigmoid) + 1) * sigmoid
        _store(_channels_at(grad_z, t, at, p), outer * y * gate_slope)
    _store(_states_at(grad_c, t, at, p), tl.sum(h * grad[None, :], axis=1))
    # g is the gradient with respect to h_t, along every path through later states.
    g = readout[:, None] * grad[None, :] + adjoint
    scaled = step * x
    _store(_states_at(grad_b, t, at, p), tl.sum(g * scaled[None, :], axis=1))
    grad_drive = tl.sum(g * drive[:, None], axis=0)  # with respect to delta_t u_t
    g *= decay
    through_decay = g * entered  # with respect to delta_t A
    grad_a += through_decay * step[None, :]
    grad_step = grad_drive * x + tl.sum(through_decay * decay_rate, axis=0) * (1 / _LOG2_E)
    if p.has_z:  # no register is left to keep it in
        _, slope = _step(delta, bias, t, at, p)
    grad_step *= slope
    grad_input = grad_drive * step
    if p.has_d_skip:
        grad_input += skip * grad
        grad_skip += grad * x
    _store(_channels_at(grad_u, t, at, p), grad_input)
    _store(_channels_at(grad_delta, t, at, p), grad_step)
    return g, grad_a, grad_skip, grad_bias + grad_step


# Arguments that kernels write, which are the last ones, in their order.
WRITES = {
    "selective_scan_summaries": ("states", "steps"),
    "selective_scan_outputs": ("y", "states", "ungated"),
    "selective_scan_adjoints": ("checkpointed_states", "states"),
    "selective_scan_gradients": (
        "grad_u",
        "grad_delta",
        "grad_z",
        "grad_b",
        "grad_c",
        "grad_a",
        "grad_initial_states",
        "grad_d_skip",
        "grad_delta_bias",
    ),
}
