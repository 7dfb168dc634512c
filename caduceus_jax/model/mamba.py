"""The Mamba mixer, and BiMamba in both reading directions (Schiff et al. 2024, section 3.1)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from caduceus_jax.kernels import bidirectional_conv1d, causal_conv1d
from caduceus_jax.kernels.arithmetic import linear
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.typing import (
    PaddingMask,
    Places,
    SegmentIds,
    Strands,
    StrandsAt,
    StrandsInner,
)

T = TypeVar("T")
Scan = Callable[..., jax.Array]
Conv = Callable[..., jax.Array]
# What scans return, before the gate, for a policy of `jax.checkpoint`: with it and what the scans
# themselves need, no scan runs again in the backward pass.
SCANNED = "selective_scan_y"
# Parameters of a `MambaCore` that every one has.
_CORE = ("a_log", "d_skip", "x_proj", "dt_proj", "delta_bias")


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A causal convolution that walks both ways at once where both directions read the same x.

    A model's `conv` may be any function of one direction; it is called once for each.

    Args:
        one_way: has the arguments of `causal_conv1d`.
        both_ways: has the arguments of `bidirectional_conv1d`.
    """

    one_way: Callable[..., jax.Array] = causal_conv1d
    both_ways: Callable[..., tuple[jax.Array, jax.Array]] = bidirectional_conv1d

    def __call__(self, *arrays: Any, **options: Any) -> jax.Array:
        """Convolves in one direction."""
        return self.one_way(*arrays, **options)

    def bind(self, **options: Any) -> "Convolution":
        """Returns it with some of its options given."""
        bound = functools.partial(self.one_way, **options)
        return Convolution(bound, functools.partial(self.both_ways, **options))


CONVOLUTION = Convolution()


class MambaCore(nnx.Module):
    """Owns one reading direction: convolution, projections to delta, B and C, and A, D.

    `selective_ssm` walks over sequences with them (Gu & Dao 2023, sections 3.2 and 3.4).

    Args:
        config: the architecture.
        rngs: draws the parameters, distributed as in the original.
    """

    def __init__(self, config: CaduceusConfig, *, rngs: nnx.Rngs):
        rank, d_inner, d_state = config.delta_rank, config.d_inner, config.d_state
        conv_range = 1 / math.sqrt(config.d_conv)
        self.conv_weight = nnx.Param(_uniform(rngs, (config.d_conv, d_inner), conv_range))
        self.conv_bias = (
            nnx.Param(_uniform(rngs, (d_inner,), conv_range)) if config.conv_bias else None
        )
        outputs = rank + 2 * d_state
        self.x_proj = nnx.Param(_uniform(rngs, (d_inner, outputs), 1 / math.sqrt(d_inner)))
        dt_range = config.dt_scale / math.sqrt(rank)
        self.dt_proj = nnx.Param(
            _uniform(rngs, (rank, d_inner), dt_range)
            if config.dt_init == "random"
            else jnp.full((rank, d_inner), dt_range, jnp.float32)
        )
        # softplus(delta_bias) is log-uniform in [dt_min, dt_max].
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        log_dt = jax.random.uniform(rngs.params(), (d_inner,), jnp.float32, minval=low, maxval=high)
        dt = jnp.maximum(jnp.exp(log_dt), config.dt_init_floor)
        self.delta_bias = nnx.Param(dt + jnp.log(-jnp.expm1(-dt)))
        states = jnp.arange(1, d_state + 1, dtype=jnp.float32)
        self.a_log = nnx.Param(jnp.tile(jnp.log(states), (d_inner, 1)))
        self.d_skip = nnx.Param(jnp.ones(d_inner, jnp.float32))


def selective_ssm(
    cores: Sequence[MambaCore],
    x: StrandsInner,
    z: StrandsInner | None = None,
    padding_mask: PaddingMask | None = None,
    segment_ids: SegmentIds | None = None,
    *,
    reverse: bool,
    scan: Scan,
    conv: Conv,
) -> StrandsInner:
    """Walks over every strand in one direction, strand s with the parameters `cores[s]`.

    Args:
        cores: the parameters that read each strand.
        x: (batch, strand, length, d_inner), the first half of `in_proj`.
        z: (batch, strand, length, d_inner), the gate; None leaves gating to the caller.
        padding_mask: (batch, length), True on real tokens; the others leave no trace.
        segment_ids: (batch, length), one number per sequence packed into a row; convolution and
            recurrence start afresh where it changes.
        reverse: walk from the last token to the first. Position t of the output belongs to token
            t either way: nothing is flipped.
        scan: the selective scan.
        conv: the causal convolution.

    Returns:
        (batch, strand, length, d_inner).
    """
    (u,) = _convolved({reverse: cores}, x, padding_mask, segment_ids, conv)
    return _scanned(cores, u, z, segment_ids, reverse=reverse, scan=scan)


def _convolved(
    directions: Mapping[bool, Sequence[MambaCore]],
    x: StrandsInner,
    padding_mask: PaddingMask | None,
    segment_ids: SegmentIds | None,
    conv: Conv,
) -> list[StrandsInner]:
    """Convolves every strand in one direction or both; each has the parameters of its strands."""
    weights, biases = [], []
    for cores in directions.values():
        weights.append(jnp.stack([core.conv_weight[...] for core in cores]))
        found = [core.conv_bias[...] for core in cores if core.conv_bias is not None]
        biases.append(jnp.stack(found) if found else None)
    packed = _packed(segment_ids, x.shape[1])
    with jax.named_scope("mamba_core"):
        rows = _rows(_clear_padding(x, padding_mask))
        if isinstance(conv, Convolution) and len(directions) == 2:
            bias = None if biases[0] is None else jnp.stack(biases)
            convolved = conv.both_ways(rows, jnp.stack(weights), bias, **packed)
        else:
            convolved = [
                conv(rows, weight, bias, reverse=reverse, **packed)
                for reverse, weight, bias in zip(directions, weights, biases, strict=True)
            ]
        return [_clear_padding(u.reshape(x.shape), padding_mask) for u in convolved]


def _scanned(
    cores: Sequence[MambaCore],
    u: StrandsInner,
    z: StrandsInner | None,
    segment_ids: SegmentIds | None,
    *,
    reverse: bool,
    scan: Scan,
) -> StrandsInner:
    """Scans what was convolved, in one direction, strand s with the parameters `cores[s]`."""
    # Of each strand by name, since cores may differ in what else is attached to them.
    a_log, d_skip, x_proj, dt_proj, delta_bias = (
        jnp.stack([getattr(core, name)[...] for core in cores]) for name in _CORE
    )
    with jax.named_scope("mamba_core"):
        rank, d_state = dt_proj.shape[1], a_log.shape[-1]
        projected = _project(u, x_proj)
        delta, b, c = jnp.split(projected, (rank, rank + d_state), axis=-1)
        delta = _project(delta, dt_proj)
        y = scan(
            _rows(u),
            _rows(delta),
            -jnp.exp(a_log),
            _rows(b),
            _rows(c),
            d_skip,
            None if z is None else _rows(z),
            delta_bias,
            delta_softplus=True,
            reverse=reverse,
            **_packed(segment_ids, u.shape[1]),
        )
        return y.reshape(u.shape)


def _rows(x: StrandsInner) -> Float[jax.Array, "rows length channels"]:
    """Makes strand s of sequence i row i * strands + s."""
    return x.reshape(-1, *x.shape[2:])


def _packed(segment_ids: SegmentIds | None, strands: int) -> dict[str, jax.Array]:
    """Returns the argument of packed sequences, for every row, where there are any."""
    return {} if segment_ids is None else {"segment_ids": jnp.repeat(segment_ids, strands, axis=0)}


class Mamba(nnx.Module):
    """Owns a whole mixer of one reading direction, with projections of its own."""

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, rngs: nnx.Rngs):
        self.in_proj, self.out_proj = _projections(config, dtype=dtype, rngs=rngs)
        self.core = MambaCore(config, rngs=rngs)


class BiMamba(nnx.Module):
    """Mixes in two reading directions with shared projections (Schiff et al. 2024, section 3.1).

    The module that shares a weight owns it: `in_proj` and `out_proj` exist once, and each is
    applied once, because `out_proj(y_fwd) + out_proj(y_rev) = out_proj(y_fwd + y_rev)`.
    """

    def __init__(
        self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, conv: Conv, rngs: nnx.Rngs
    ):
        self.strategy, self.scan, self.conv = config.bidirectional_strategy, scan, conv
        self.in_proj, self.out_proj = _projections(config, dtype=dtype, rngs=rngs)
        self.fwd = MambaCore(config, rngs=rngs)
        self.rev = MambaCore(config, rngs=rngs)

    def __call__(
        self,
        hidden: Strands,
        padding_mask: PaddingMask | None = None,
        segment_ids: SegmentIds | None = None,
    ) -> Strands:
        """Mixes along the length of every strand in both directions."""
        x, z = _in_halves(self.in_proj, hidden)
        cores = {reverse: self._cores(x.shape[1], reverse) for reverse in (False, True)}
        convolved = _convolved(cores, x, padding_mask, segment_ids, self.conv)
        y, y_reverse = (
            _scanned(cores[reverse], u, None, segment_ids, reverse=reverse, scan=self.scan)
            for reverse, u in zip(cores, convolved, strict=True)
        )
        return self._out(y, y_reverse, z)

    def at(self, hidden: Strands, positions: Places, within: tuple[int, int]) -> StrandsAt:
        """Mixes as a call does, for a few positions: each direction ends its walk there.

        Args:
            hidden: (batch, strand, length, d_model).
            positions: (batch, places), 0-based.
            within: two bounds (first, stop): first <= position < stop for all positions.

        Returns:
            (batch, strand, places, d_model).
        """
        first, stop = within
        x, _ = _in_halves(self.in_proj, hidden)
        _, z = _in_halves(self.in_proj, take(hidden, positions))
        y = take(self._walk(x[:, :, :stop], reverse=False), positions)
        y_reverse = take(self._walk(x[:, :, first:], reverse=True), positions - first)
        return self._out(y, y_reverse, z)

    def _walk(self, x: StrandsInner, *, reverse: bool) -> StrandsInner:
        cores = self._cores(x.shape[1], reverse)
        return selective_ssm(cores, x, reverse=reverse, scan=self.scan, conv=self.conv)

    def _cores(self, strands: int, reverse: bool) -> list[MambaCore]:
        return _cores_by_strand(self.fwd, self.rev, strands, reverse)

    def _out(self, y: StrandsInner, y_reverse: StrandsInner, z: StrandsInner) -> Strands:
        """Gates what both directions found, adds or multiplies them, and projects."""
        gate = jax.nn.silu(z)
        if self.strategy == "ew_multiply":
            y, y_reverse = checkpoint_name((y, y_reverse), SCANNED)
            return _projected(self.out_proj, y * gate) * _projected(self.out_proj, y_reverse * gate)
        # One array, though two scans made it.
        out = _projected(self.out_proj, checkpoint_name(y + y_reverse, SCANNED) * gate)
        if self.out_proj.bias is None:
            return out
        # Each direction of the original adds the bias of the projection they share.
        return out + self.out_proj.bias[...].astype(out.dtype)[None, None, None]


class UntiedBiMamba(nnx.Module):
    """Mixes in two reading directions that share nothing."""

    def __init__(
        self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, conv: Conv, rngs: nnx.Rngs
    ):
        self.strategy, self.scan, self.conv = config.bidirectional_strategy, scan, conv
        self.fwd = Mamba(config, dtype=dtype, rngs=rngs)
        self.rev = Mamba(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        hidden: Strands,
        padding_mask: PaddingMask | None = None,
        segment_ids: SegmentIds | None = None,
    ) -> Strands:
        """Mixes along the length of every strand in both directions."""
        out, out_reverse = (
            _mix(
                _cores_by_strand(self.fwd, self.rev, hidden.shape[1], reverse),
                hidden,
                padding_mask,
                segment_ids,
                reverse=reverse,
                scan=self.scan,
                conv=self.conv,
            )
            for reverse in (False, True)
        )
        return out * out_reverse if self.strategy == "ew_multiply" else out + out_reverse


class UniMamba(nnx.Module):
    """Mixes in one reading direction: 5' to 3' on every strand."""

    def __init__(
        self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, conv: Conv, rngs: nnx.Rngs
    ):
        self.scan, self.conv = scan, conv
        self.fwd = Mamba(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        hidden: Strands,
        padding_mask: PaddingMask | None = None,
        segment_ids: SegmentIds | None = None,
    ) -> Strands:
        """Mixes along the length of every strand."""
        return jnp.concatenate(
            [
                _mix(
                    [self.fwd],
                    strand,
                    padding_mask,
                    segment_ids,
                    reverse=s == 1,
                    scan=self.scan,
                    conv=self.conv,
                )
                for s, strand in enumerate(jnp.split(hidden, hidden.shape[1], axis=1))
            ],
            axis=1,
        )


def _mix(
    mambas: Sequence[Mamba],
    hidden: Strands,
    padding_mask: PaddingMask | None,
    segment_ids: SegmentIds | None,
    *,
    reverse: bool,
    scan: Scan,
    conv: Conv,
) -> Strands:
    """Runs whole mixers over every strand in one direction, strand s with `mambas[s]`."""

    halves = [_in_halves(mamba.in_proj, hidden[:, s]) for s, mamba in enumerate(mambas)]
    x, z = (jnp.stack(strands, axis=1) for strands in zip(*halves, strict=True))
    cores = [mamba.core for mamba in mambas]
    y = selective_ssm(cores, x, z, padding_mask, segment_ids, reverse=reverse, scan=scan, conv=conv)
    y = checkpoint_name(y, SCANNED)
    outputs = [_projected(mamba.out_proj, y[:, s]) for s, mamba in enumerate(mambas)]
    return jnp.stack(outputs, axis=1)


def take(
    x: Float[jax.Array, "batch strand length channels"], positions: Places
) -> Float[jax.Array, "batch strand places channels"]:
    """Returns x at some positions of its length, 0-based."""
    return jnp.take_along_axis(x, positions[:, None, :, None], axis=2)


def _cores_by_strand(fwd: T, rev: T, strands: int, reverse: bool) -> list[T]:
    """Tells which parameters read each strand when all are walked over in one direction.

    Reading the reverse complement from left to right is reading the + strand's coordinates from
    right to left. So strand 1 stays in place, and the two directions exchange roles on it.
    """
    return [(fwd, rev)[reverse ^ (strand == 1)] for strand in range(strands)]


def _in_halves(
    in_proj: nnx.Linear, hidden: Float[jax.Array, "batch *strand length d_model"]
) -> list[Float[jax.Array, "batch *strand length d_inner"]]:
    """Returns x and z, each by its own half of the weight.

    One product with the whole weight and a cut through its result would be the same, but devices
    that each have some of the channels of both would have to exchange what it cuts.
    """
    weights = jnp.split(in_proj.kernel[...], 2, axis=-1)
    biases = [None, None] if in_proj.bias is None else jnp.split(in_proj.bias[...], 2)
    return [linear(hidden, *each) for each in zip(weights, biases, strict=True)]


def _projected(
    out_proj: nnx.Linear, y: Float[jax.Array, "batch *strand length d_inner"]
) -> Float[jax.Array, "batch *strand length d_model"]:
    return linear(y, out_proj.kernel[...], None if out_proj.bias is None else out_proj.bias[...])


def _project(x: StrandsInner, weight: Float[jax.Array, "strand inputs outputs"]) -> jax.Array:
    """Applies each strand's own linear map, in the dtype of the activations."""
    # With a copy of the small weight for each sequence, this is a batch of products over axes as
    # they lie in memory; XLA would otherwise transpose the activations.
    weight = jnp.broadcast_to(weight.astype(x.dtype), (x.shape[0], *weight.shape))
    return jnp.einsum("bsli,bsio->bslo", x, weight)


def _clear_padding(x: StrandsInner, padding_mask: PaddingMask | None) -> StrandsInner:
    return x if padding_mask is None else jnp.where(padding_mask[:, None, :, None], x, 0)


def _projections(
    config: CaduceusConfig, *, dtype: Dtype, rngs: nnx.Rngs
) -> tuple[nnx.Linear, nnx.Linear]:
    """Makes `in_proj` and `out_proj`; the latter is drawn smaller the deeper the network."""
    residuals = config.n_residuals_per_layer * config.n_layer
    shrink = residuals if config.rescale_prenorm_residual else 1
    width = (config.d_model, 2 * config.d_inner)
    in_proj = _linear(*width, bias=config.bias, dtype=dtype, rngs=rngs)
    out_proj = _linear(
        config.d_inner, config.d_model, bias=config.bias, shrink=shrink, dtype=dtype, rngs=rngs
    )
    return in_proj, out_proj


def _linear(
    inputs: int,
    outputs: int,
    *,
    bias: bool = False,
    shrink: int = 1,
    dtype: Dtype,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """Draws a linear map uniformly from +-1/sqrt(inputs * shrink), PyTorch's default for 1."""
    init = nnx.initializers.variance_scaling(1 / (3 * shrink), "fan_in", "uniform")
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=init, dtype=dtype, rngs=rngs)


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> jax.Array:
    return jax.random.uniform(rngs.params(), shape, jnp.float32, minval=-bound, maxval=bound)
