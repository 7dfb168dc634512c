"""The selective scan and the causal convolution of sequences whose length is split over devices.

Both are called within `jax.shard_map`; shard i of the mesh axis `axis_name` holds the i-th part of
every sequence. What a shard needs of the others is small: the convolution a halo of width - 1
tokens, the scan the state that enters the shard.

Scan, forward. Each shard maps the state that enters it, h, to exp(A sum of steps) h + local, where
`local` is what leaves it from a zero state. These pairs are gathered, and each shard composes those
that are walked over before it. Then it runs the scan, in any implementation, from the state that
enters. Backward works the same way: each shard sends exp(A sum of steps) g + local to the shard
before it, where g is the gradient with respect to the state that leaves, and `local` comes from the
shard's own outputs. So per call and pass one collective of (batch, channels, state + 1) numbers per
shard.

`local` needs no recurrence: it is a sum over tokens, each decayed by the steps that follow. That is
one exponential a state element for forward and for backward, beside those of the scan itself, and
none of its other passes: the backward pass of the scan runs once, as on a single device.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from caduceus_jax.kernels import causal_conv
from caduceus_jax.kernels.options import Implementation
from caduceus_jax.kernels.scan_inputs import ScanInputs, check
from caduceus_jax.kernels.selective_scan import selective_scan_with_state

# Name of what shards have received, for policies of `jax.checkpoint`: it is small, and keeping it
# spares the backward pass a second exchange.
RECEIVED = "received from other shards"
# Tokens whose decays are computed side by side, and summed before the next ones.
_CHUNK = 128


class _Plan(NamedTuple):
    """Holds what is fixed when the call is traced."""

    axis_name: str
    implementation: Implementation
    delta_softplus: bool
    reverse: bool


def selective_scan(
    u: Float[Array, "batch length channels"],
    delta: Float[Array, "batch length channels"],
    A: Float[Array, "*groups channels state"],
    B: Float[Array, "batch length state"],
    C: Float[Array, "batch length state"],
    D: Float[Array, "*groups channels"] | None = None,
    z: Float[Array, "batch length channels"] | None = None,
    delta_bias: Float[Array, "*groups channels"] | None = None,
    *,
    axis_name: str,
    delta_softplus: bool = True,
    reverse: bool = False,
    initial_state: Float[Array, "batch channels state"] | None = None,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> Float[Array, "batch length channels"]:
    """Runs `kernels.selective_scan` on one shard of the length, within `jax.shard_map`.

    Args:
        u: the shard of the sequence, (batch, length, channels).
        delta: time steps before bias and softplus, (batch, length, channels).
        A: decay rates, negative, (channels, state) or (groups, channels, state); the same on all
            shards, as all parameters are.
        B: input maps, (batch, length, state).
        C: output maps, (batch, length, state).
        D: skip connection, (channels,) or (groups, channels); none by default.
        z: gate, (batch, length, channels); none by default.
        delta_bias: added to delta, (channels,) or (groups, channels); none by default.
        axis_name: the mesh axis over which the length is split.
        delta_softplus: pass delta through softplus; otherwise it is used as it is.
        reverse: walk from the last token of the last shard to the first token of the first.
        initial_state: state before the first token that is walked over, (batch, channels, state),
            the same on all shards; zero by default.
        segment_ids: refused.
        implementation: the scan to run within a shard.

    Returns:
        The shard of y, (batch, length, channels) of the dtype of `u`.

    Raises:
        ValueError: dtypes or shapes do not fit, or the implementation is unknown.
        NotImplementedError: there are `segment_ids`, or the implementation has no kernel for these
            sizes or dtypes.
    """
    _refuse_segments(segment_ids)
    inputs = check(u, delta, A, B, C, D, z, delta_bias, initial_state)
    return _scan(_Plan(axis_name, implementation, delta_softplus, reverse), inputs)


def causal_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "*groups width channels"],
    bias: Float[Array, "*groups channels"] | None = None,
    *,
    axis_name: str,
    reverse: bool = False,
    silu: bool = True,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> Float[Array, "batch length channels"]:
    """Runs `kernels.causal_conv1d` on one shard of the length, within `jax.shard_map`.

    Args:
        x: the shard of the sequence, (batch, length, channels).
        weight: (width, channels) or (groups, width, channels), the same on all shards.
        bias: (channels,) or (groups, channels), the same on all shards; none by default.
        axis_name: the mesh axis over which the length is split.
        reverse: walk from the last token of the last shard to the first token of the first.
        silu: apply `y * sigmoid(y)`.
        segment_ids: refused.
        implementation: the convolution to run within a shard.

    Returns:
        The shard of y, (batch, length, channels) of the dtype of `x`.

    Raises:
        ValueError: a dtype or a shape does not fit, or the shard is shorter than the halo,
            width - 1 tokens.
        NotImplementedError: there are `segment_ids`.
    """
    _refuse_segments(segment_ids)
    how: dict[str, Any] = {"silu": silu, "implementation": implementation}
    y = causal_conv.causal_conv1d(x, weight, bias, reverse=reverse, **how)
    return _with_edge(y, x, weight, bias, axis_name, reverse, how)


def bidirectional_conv1d(
    x: Float[Array, "batch length channels"],
    weight: Float[Array, "2 *groups width channels"],
    bias: Float[Array, "2 *groups channels"] | None = None,
    *,
    axis_name: str,
    silu: bool = True,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> tuple[Float[Array, "batch length channels"], Float[Array, "batch length channels"]]:
    """Runs `kernels.bidirectional_conv1d` on one shard of the length, within `jax.shard_map`.

    Args:
        x: the shard of the sequence, (batch, length, channels).
        weight: (2, width, channels) or (2, groups, width, channels), the same on all shards: the
            filters that walk left to right, then those that walk right to left.
        bias: (2, channels) or (2, groups, channels), the same on all shards; none by default.
        axis_name: the mesh axis over which the length is split.
        silu: apply `y * sigmoid(y)`.
        segment_ids: refused.
        implementation: the convolution to run within a shard.

    Returns:
        The shards of y of both walks, (batch, length, channels) of the dtype of `x`.

    Raises:
        ValueError: a dtype or a shape does not fit, or the shard is shorter than the halo,
            width - 1 tokens.
        NotImplementedError: there are `segment_ids`.
    """
    _refuse_segments(segment_ids)
    how: dict[str, Any] = {"silu": silu, "implementation": implementation}
    y, y_reverse = causal_conv.bidirectional_conv1d(x, weight, bias, **how)
    of_bias = (None, None) if bias is None else bias
    return (
        _with_edge(y, x, weight[0], of_bias[0], axis_name, False, how),
        _with_edge(y_reverse, x, weight[1], of_bias[1], axis_name, True, how),
    )


def _with_edge(
    y, x, weight, bias, axis_name: str, reverse: bool, how: Mapping[str, Any]
) -> jax.Array:
    """Returns y of a shard alone, with the tokens that its neighbour reaches computed again.

    So the whole shard does not wait for its neighbour.
    """
    x, weight, bias, _ = causal_conv.check(x, weight, bias)
    halo, length = weight.shape[-2] - 1, x.shape[1]
    if length < halo:
        raise ValueError(
            f"a shard has {length} tokens; a convolution of width {halo + 1} needs at least {halo}"
        )
    if not halo:
        return y
    convolve = functools.partial(
        causal_conv.causal_conv1d, weight=weight, bias=bias, reverse=reverse, **how
    )
    first, last = x[:, :halo], x[:, length - halo :]
    sent = _from_neighbour(first if reverse else last, axis_name, reverse)
    sent = checkpoint_name(sent, RECEIVED)
    if reverse:
        edge = convolve(jnp.concatenate([last, sent], axis=1))[:, :halo]
        return lax.dynamic_update_slice_in_dim(y, edge, length - halo, axis=1)
    edge = convolve(jnp.concatenate([sent, first], axis=1))[:, halo:]
    return lax.dynamic_update_slice_in_dim(y, edge, 0, axis=1)


def _refuse_segments(segment_ids: Any) -> None:
    if segment_ids is not None:
        raise NotImplementedError(
            "segment_ids with the length split over devices; supported: whole sequences on a device"
        )


def _from_neighbour(x: jax.Array, axis_name: str, reverse: bool) -> jax.Array:
    """Returns what the shard walked over before this one holds; zeros on the first of them."""
    shards = lax.axis_size(axis_name)
    pairs = [(i, i + 1) for i in range(shards - 1)]
    return lax.ppermute(x, axis_name, [pair[::-1] for pair in pairs] if reverse else pairs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: _Plan, inputs: ScanInputs) -> jax.Array:
    initial_state, _ = _initial_state(plan, inputs)
    return _local_scan(plan, inputs._replace(initial_state=initial_state))[0]


def _scan_fwd(plan: _Plan, inputs: ScanInputs) -> tuple[jax.Array, Any]:
    initial_state, steps = _initial_state(plan, inputs)
    local = inputs._replace(initial_state=initial_state)
    (y, _), pull = jax.vjp(functools.partial(_local_scan, plan), local)
    return y, (pull, inputs, steps)


def _scan_bwd(plan: _Plan, residuals, grad_y) -> tuple[ScanInputs]:
    pull, inputs, steps = residuals
    grad_final = _grad_final_state(plan, inputs, steps, grad_y)
    (grads,) = pull((grad_y, grad_final))
    if inputs.initial_state is None:
        return (grads._replace(initial_state=None),)
    # Each shard has the gradient of what entered it; the caller's state entered the first one.
    shards = lax.axis_size(plan.axis_name)
    first = lax.axis_index(plan.axis_name) == (shards - 1 if plan.reverse else 0)
    grad_initial = jnp.where(first, grads.initial_state, 0).astype(inputs.initial_state.dtype)
    return (grads._replace(initial_state=grad_initial),)


_scan.defvjp(_scan_fwd, _scan_bwd)


def _local_scan(plan: _Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    """Returns y of the shard, and the state that leaves it, (batch, channels, state)."""
    return selective_scan_with_state(
        inputs.u,
        inputs.delta,
        inputs.a,
        inputs.b,
        inputs.c,
        inputs.d_skip,
        inputs.z,
        inputs.delta_bias,
        initial_state=inputs.initial_state,
        delta_softplus=plan.delta_softplus,
        reverse=plan.reverse,
        implementation=plan.implementation,
    )


def _initial_state(plan: _Plan, inputs: ScanInputs) -> tuple[jax.Array, jax.Array]:
    """Returns the state that enters this shard (batch, channels, state), and all summed steps.

    The latter are (shards, batch, channels).
    """
    local, steps = _summary(
        plan,
        inputs,
        (inputs.u, inputs.b),
        lambda delta, u, b: (delta * u, b),
        reverse=plan.reverse,
        inclusive=False,
    )
    # One array, because two are two collectives.
    every = lax.all_gather(jnp.concatenate([local, steps[:, None]], axis=1), plan.axis_name)
    every_local, every_steps = every[:, :, :-1], every[:, :, -1]
    first = jnp.zeros_like(local)
    if inputs.initial_state is not None:
        first = jnp.swapaxes(inputs.initial_state, 1, 2).astype(local.dtype)
    state = _compose(plan, inputs, every_local, every_steps, first, reverse=plan.reverse)
    state, every_steps = checkpoint_name((state, every_steps), RECEIVED)
    return jnp.swapaxes(state, 1, 2), every_steps


def _grad_final_state(plan: _Plan, inputs: ScanInputs, every_steps, grad_y) -> jax.Array:
    """Returns the gradient of the state that leaves this shard, (batch, channels, state)."""
    gate = () if inputs.z is None else (inputs.z,)

    def source(_, c, grad, z=None) -> tuple[jax.Array, jax.Array]:
        return grad if z is None else grad * jax.nn.silu(z), c

    local, _ = _summary(
        plan,
        inputs,
        (inputs.c, grad_y, *gate),
        source,
        reverse=not plan.reverse,
        inclusive=True,
    )
    every_local = lax.all_gather(local, plan.axis_name)
    first = jnp.zeros_like(local)
    adjoint = _compose(plan, inputs, every_local, every_steps, first, reverse=not plan.reverse)
    return jnp.swapaxes(adjoint, 1, 2)


def _compose(
    plan: _Plan, inputs: ScanInputs, every_local, every_steps, first, *, reverse: bool
) -> jax.Array:
    """Returns what enters this shard, walking from shard `first`: (batch, state, channels)."""
    a = inputs.each_row(jnp.swapaxes(inputs.a, 1, 2))
    here = lax.axis_index(plan.axis_name)
    index = jnp.arange(len(every_steps))

    def shard(state, x) -> tuple[jax.Array, None]:
        """Applies the map of one shard, where it lies before this one."""
        index, local, steps = x
        before = index > here if reverse else index < here
        return jnp.where(before, jnp.exp(a * steps[:, None]) * state + local, state), None

    return lax.scan(shard, first, (index, every_local, every_steps), reverse=reverse)[0]


def _summary(
    plan: _Plan, inputs: ScanInputs, arrays, source, *, reverse: bool, inclusive: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns sum_t exp(A steps after t) k_t x_t over the shard, and the sum of all steps.

    Args:
        plan: options of the scan, and its mesh axis.
        inputs: the scan's, for the steps and A.
        arrays: (batch, length, ...) of which x and k are made.
        source: (delta, *pieces of the arrays) -> x (batch, time, channels), k (batch, time, state).
        reverse: walk from the last token to the first.
        inclusive: a token's own step is one of those that follow it.

    Returns:
        (batch, state, channels) and (batch, channels), in the dtype of the recurrence.
    """
    dtype = inputs.compute_dtype
    a = inputs.each_row(jnp.swapaxes(inputs.a, 1, 2))
    bias = None if inputs.delta_bias is None else inputs.each_row(inputs.delta_bias)

    def advance(carry, start, time) -> tuple[jax.Array, jax.Array]:
        """Adds a piece of the length to the summary."""
        state, total = carry
        delta, *pieces = (
            lax.dynamic_slice_in_dim(array, start, time, axis=1).astype(dtype)
            for array in (inputs.delta, *arrays)
        )
        delta = delta if bias is None else delta + bias[:, None]
        delta = jax.nn.softplus(delta) if plan.delta_softplus else delta
        x, k = source(delta, *pieces)
        after = lax.cumsum(delta, axis=1, reverse=not reverse)
        whole = jnp.sum(delta, axis=1)
        decay = jnp.exp(a[:, None] * (after if inclusive else after - delta)[:, :, None])
        added = jnp.sum(decay * x[:, :, None] * k[..., None], axis=1)
        return (jnp.exp(a * whole[:, None]) * state + added, total + whole)

    batch, length, channels = inputs.u.shape
    state = inputs.zeros(batch, inputs.a.shape[-1], channels)
    carry = (state, inputs.zeros(batch, channels))
    for starts, time in _pieces(length, reverse):
        carry, _ = lax.scan(
            lambda carry, start, time=time: (advance(carry, start, time), None), carry, starts
        )
    return carry


def _pieces(length: int, reverse: bool) -> Iterator[tuple[jax.Array, int]]:
    """Returns start and length of the pieces of a shard: whole chunks, and the rest at the end."""
    chunk = min(_CHUNK, length)
    whole, left = divmod(length, chunk)
    pieces: list[tuple[Any, int]] = [(jnp.arange(whole) * chunk, chunk)]
    if left:
        pieces.append((jnp.array([whole * chunk]), left))
    for starts, time in reversed(pieces) if reverse else pieces:
        yield starts[::-1] if reverse else starts, time
