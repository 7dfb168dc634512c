"""The Mamba mixer in one reading direction, and BiMamba in both (Schiff et al. 2024, section 3.1)."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Float

from caduceus_jax.config import CaduceusConfig
from caduceus_jax.kernels import causal_conv1d
from caduceus_jax.typing import PaddingMask, Strands

Scan = Callable[..., jax.Array]


class MambaCore(nnx.Module):
    """Convolution, projections to delta, B and C, and the selective scan (Gu & Dao 2023, 3.4).

    The part of a mixer that each reading direction has for itself.

    Args:
        config: the architecture.
        dtype: of activations and matrix products; parameters and the recurrence are float32.
        scan: the selective scan, called as `caduceus_jax.kernels.selective_scan`.
        rngs: draws the parameters, distributed as in the original.
    """

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, rngs: nnx.Rngs):
        rank, d_inner = config.delta_rank, config.d_inner
        self.delta_rank = rank
        self.scan = scan
        conv_range = 1 / math.sqrt(config.d_conv)
        self.conv_weight = nnx.Param(_uniform(rngs, (config.d_conv, d_inner), conv_range))
        self.conv_bias = (
            nnx.Param(_uniform(rngs, (d_inner,), conv_range)) if config.conv_bias else None
        )
        self.x_proj = _linear(d_inner, rank + 2 * config.d_state, dtype=dtype, rngs=rngs)
        self.dt_proj = _linear(rank, d_inner, dtype=dtype, rngs=rngs)
        dt_range = config.dt_scale / math.sqrt(rank)
        self.dt_proj.kernel[...] = (
            _uniform(rngs, (rank, d_inner), dt_range)
            if config.dt_init == "random"
            else jnp.full((rank, d_inner), dt_range)
        )
        # softplus(delta_bias) is log-uniform in [dt_min, dt_max].
        log_dt = jax.random.uniform(
            rngs.params(),
            (d_inner,),
            minval=math.log(config.dt_min),
            maxval=math.log(config.dt_max),
        )
        dt = jnp.maximum(jnp.exp(log_dt), config.dt_init_floor)
        self.delta_bias = nnx.Param(dt + jnp.log(-jnp.expm1(-dt)))
        states = jnp.arange(1, config.d_state + 1, dtype=jnp.float32)
        self.a_log = nnx.Param(jnp.tile(jnp.log(states), (d_inner, 1)))
        self.d_skip = nnx.Param(jnp.ones(d_inner))

    def __call__(
        self,
        x: Float[jax.Array, "batch length d_inner"],
        z: Float[jax.Array, "batch length d_inner"] | None = None,
        padding_mask: PaddingMask | None = None,
        *,
        reverse: bool = False,
    ) -> Float[jax.Array, "batch length d_inner"]:
        """Mixes along the length, from the last token to the first with `reverse`.

        Args:
            x: (batch, length, d_inner), the first half of `in_proj`.
            z: (batch, length, d_inner), the gate; None leaves gating to the caller.
            padding_mask: (batch, length), True on real tokens; the others leave no trace.
            reverse: the reading direction. Position t of the output belongs to token t either way.
        """
        with jax.named_scope("mamba_core"):
            x = _clear_padding(x, padding_mask)
            bias = None if self.conv_bias is None else self.conv_bias[...]
            u = causal_conv1d(x, self.conv_weight[...], bias, reverse=reverse)
            u = _clear_padding(u, padding_mask)
            rank, d_state = self.delta_rank, self.a_log.shape[-1]
            delta, b, c = jnp.split(self.x_proj(u), (rank, rank + d_state), axis=-1)
            return self.scan(
                u,
                self.dt_proj(delta),
                -jnp.exp(self.a_log[...]),
                b,
                c,
                self.d_skip[...],
                z,
                self.delta_bias[...],
                delta_softplus=True,
                reverse=reverse,
            )


class Mamba(nnx.Module):
    """The whole mixer of one reading direction, with projections of its own."""

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, rngs: nnx.Rngs):
        self.in_proj, self.out_proj = _projections(config, dtype=dtype, rngs=rngs)
        self.core = MambaCore(config, dtype=dtype, scan=scan, rngs=rngs)

    def __call__(
        self,
        hidden: Float[jax.Array, "batch length d_model"],
        padding_mask: PaddingMask | None = None,
        *,
        reverse: bool = False,
    ) -> Float[jax.Array, "batch length d_model"]:
        """Mixes along the length; see `MambaCore.__call__`."""
        x, z = jnp.split(self.in_proj(hidden), 2, axis=-1)
        return self.out_proj(self.core(x, z, padding_mask, reverse=reverse))


class BiMamba(nnx.Module):
    """Two reading directions with shared projections (Schiff et al. 2024, section 3.1).

    The module that shares a weight owns it: `in_proj` and `out_proj` exist once, and each is
    applied once, because `out_proj(y_fwd) + out_proj(y_rev) = out_proj(y_fwd + y_rev)`.

    Reading the reverse complement from left to right is reading the given strand's coordinates
    from right to left. So strand 1 stays in place and the two directions exchange roles on it:
    walking left to right, strand 0 is read by `fwd` and strand 1 by `rev`.
    """

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, rngs: nnx.Rngs):
        self.strategy = config.bidirectional_strategy
        self.in_proj, self.out_proj = _projections(config, dtype=dtype, rngs=rngs)
        self.fwd = MambaCore(config, dtype=dtype, scan=scan, rngs=rngs)
        self.rev = MambaCore(config, dtype=dtype, scan=scan, rngs=rngs)

    def __call__(self, hidden: Strands, padding_mask: PaddingMask | None = None) -> Strands:
        """Mixes along the length of every strand in both directions."""
        x, z = jnp.split(self.in_proj(hidden), 2, axis=-1)
        gate = jax.nn.silu(z)
        y, y_reverse = (
            _walk(self.fwd, self.rev, x, None, padding_mask, reverse=reverse)
            for reverse in (False, True)
        )
        if self.strategy == "ew_multiply":
            return self.out_proj(y * gate) * self.out_proj(y_reverse * gate)
        out = self.out_proj((y + y_reverse) * gate)
        # Each direction of the original adds the bias of the projection they share.
        return (
            out if self.out_proj.bias is None else out + self.out_proj.bias[...].astype(out.dtype)
        )


class UntiedBiMamba(nnx.Module):
    """Two reading directions that share nothing."""

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, rngs: nnx.Rngs):
        self.strategy = config.bidirectional_strategy
        self.fwd = Mamba(config, dtype=dtype, scan=scan, rngs=rngs)
        self.rev = Mamba(config, dtype=dtype, scan=scan, rngs=rngs)

    def __call__(self, hidden: Strands, padding_mask: PaddingMask | None = None) -> Strands:
        """Mixes along the length of every strand in both directions."""
        out, out_reverse = (
            _walk(self.fwd, self.rev, hidden, padding_mask, reverse=reverse)
            for reverse in (False, True)
        )
        return out * out_reverse if self.strategy == "ew_multiply" else out + out_reverse


class UniMamba(nnx.Module):
    """One reading direction: 5' to 3' on every strand."""

    def __init__(self, config: CaduceusConfig, *, dtype: Dtype, scan: Scan, rngs: nnx.Rngs):
        self.fwd = Mamba(config, dtype=dtype, scan=scan, rngs=rngs)

    def __call__(self, hidden: Strands, padding_mask: PaddingMask | None = None) -> Strands:
        """Mixes along the length of every strand."""
        strands = range(hidden.shape[1])
        return jnp.stack(
            [self.fwd(hidden[:, s], padding_mask, reverse=s == 1) for s in strands], axis=1
        )


def _walk(fwd, rev, x: jax.Array, *args, reverse: bool) -> jax.Array:
    """Walks over (batch, strand, length, channels) in one direction, all strands in one call.

    Strand s is read by `fwd` where its own 5' to 3' is the direction walked, by `rev` otherwise.
    """
    readers = [(fwd, rev)[reverse ^ strand] for strand in range(x.shape[1])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *readers)
    read = lambda reader, x: reader(x, *args, reverse=reverse)  # noqa: E731
    return jax.vmap(read, in_axes=(0, 1), out_axes=1)(stacked, x)


def _clear_padding(x: jax.Array, padding_mask: jax.Array | None) -> jax.Array:
    return x if padding_mask is None else jnp.where(padding_mask[..., None], x, 0)


def _projections(config: CaduceusConfig, *, dtype: Dtype, rngs: nnx.Rngs):
    """`in_proj` and `out_proj`; the latter drawn smaller the deeper the network."""
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
    shrink: float = 1,
    dtype: Dtype,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear map drawn uniformly from +-1/sqrt(inputs * shrink), PyTorch's default for 1."""
    init = nnx.initializers.variance_scaling(1 / (3 * shrink), "fan_in", "uniform")
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=init, dtype=dtype, rngs=rngs)


def _uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float) -> jax.Array:
    return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
