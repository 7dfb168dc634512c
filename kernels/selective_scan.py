"""The selective scan: one public operation, several implementations.

`implementation=` chooses among them; the names and what each is for are in `docs/kernels.md`.
"""

from typing import Any

from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from caduceus_jax.kernels.meshes import partitioned
from caduceus_jax.kernels.options import Chunked, Implementation, Reference, load, resolve
from caduceus_jax.kernels.scan_inputs import CHANNEL_AXES, check


def selective_scan_with_state(
    u: Float[Array, "batch length channels"],
    delta: Float[Array, "batch length channels"],
    A: Float[Array, "*groups channels state"],
    B: Float[Array, "batch length state"],
    C: Float[Array, "batch length state"],
    D: Float[Array, "*groups channels"] | None = None,
    z: Float[Array, "batch length channels"] | None = None,
    delta_bias: Float[Array, "*groups channels"] | None = None,
    *,
    delta_softplus: bool = True,
    reverse: bool = False,
    initial_state: Float[Array, "batch channels state"] | None = None,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> tuple[Float[Array, "batch length channels"], Float[Array, "batch channels state"]]:
    """Runs `selective_scan`, and returns the state after the last token it walked over too.

    All arguments are those of `selective_scan`.

    Returns:
        y (batch, length, channels) of the dtype of `u`, and the final state (batch, channels,
        state) in float32: the state at the right end, or at the left end with `reverse`.
    """
    inputs = check(u, delta, A, B, C, D, z, delta_bias, initial_state, segment_ids, reverse)
    options = resolve(implementation, inputs.u)
    if 0 in (*inputs.u.shape, inputs.a.shape[-1]):
        # No sequences, channels or states: there is nothing for a kernel to do.
        options = Reference()

    def run(inputs):
        how = {"delta_softplus": delta_softplus, "reverse": reverse}
        try:
            return load(options.module).scan(inputs, options, **how)
        except NotImplementedError:
            # What is chosen by default may have no kernel for these inputs: then another one has.
            if implementation is not None:
                raise
            return load(Chunked.module).scan(inputs, Chunked(), **how)

    return partitioned(run, inputs, _partitions, inputs.u, CHANNEL_AXES)


def _partitions(spec: tuple[Any, ...]) -> tuple[PartitionSpec, PartitionSpec]:
    """Returns how y and the final state are sharded, given how u is."""
    batch, _, channels = spec
    return PartitionSpec(*spec), PartitionSpec(batch, channels, None)


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
    delta_softplus: bool = True,
    reverse: bool = False,
    initial_state: Float[Array, "batch channels state"] | None = None,
    segment_ids: Int[Array, "batch length"] | None = None,
    implementation: Implementation = None,
) -> Float[Array, "batch length channels"]:
    """Runs the selective state-space recurrence of Mamba (Gu & Dao 2023, equations 2 to 4).

    With `d_t = softplus(delta_t + delta_bias)` and the state `h` of each channel,

        h_t = exp(d_t A) h_{t-1} + d_t B_t u_t
        y_t = (C_t h_t + D u_t) * silu(z_t)

    Inputs may be float32 or bfloat16; the recurrence runs in float32 (float64 where `u` is).
    Differentiable in every array argument. Memory is O(length), not O(length x state).

    Args:
        u: the sequence, (batch, length, channels).
        delta: time steps before bias and softplus, (batch, length, channels).
        A: decay rates, negative, (channels, state); or (groups, channels, state), where sequence
            i of the batch is read with A[i % groups], D[i % groups] and delta_bias[i % groups]:
            so the strands of an equivariant model go through one call.
        B: input maps, (batch, length, state).
        C: output maps, (batch, length, state).
        D: skip connection, (channels,) or (groups, channels); none by default.
        z: gate, (batch, length, channels); none by default.
        delta_bias: added to delta, (channels,) or (groups, channels); none by default.
        delta_softplus: pass delta through softplus; otherwise it is used as it is.
        reverse: walk from the last token to the first. Nothing is flipped: y[t] stays at t.
        initial_state: state before the first token walked over, (batch, channels, state); zero
            by default. It belongs to the segment of that token.
        segment_ids: (batch, length) integers for packed sequences: where the number changes from
            one token to the next, another sequence begins, and the state starts from zero. None
            is one sequence per row.
        implementation: "reference" (the equation, token by token), "chunked" (portable and lean in
            memory), "triton" (fused kernels for NVIDIA GPUs, through jax-triton), "pallas_triton"
            (simpler ones in Pallas; interpreted on a CPU, for tests), "mosaic_tpu" (fused kernels
            for TPUs; interpreted on a CPU, for tests), or an options object such as
            `Chunked(chunk_length=64)`: that one, or an error. None is the fastest that is known to
            be right on the device (`docs/kernels.md`), and "chunked" for what it has no kernel for.

    Returns:
        (batch, length, channels) of the dtype of `u`.

    Raises:
        ValueError: shapes do not fit, or the implementation is unknown.
        NotImplementedError: the implementation has no kernel for these sizes or dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> u = jnp.ones((1, 3, 1))  # three tokens, one channel with one state
        >>> delta, A = jnp.full_like(u, jnp.log(2)), -jnp.ones((1, 1))  # the state halves
        >>> y = selective_scan(u, delta, A, u, u, delta_softplus=False)
        >>> print((y / jnp.log(2)).ravel())
        [1.   1.5  1.75]
    """
    y, _ = selective_scan_with_state(
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        delta_softplus=delta_softplus,
        reverse=reverse,
        initial_state=initial_state,
        segment_ids=segment_ids,
        implementation=implementation,
    )
    return y
