"""The optimizer: clipping, AdamW, Adafactor or Muon, and the learning rate's schedule."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from caduceus_jax.errors import UserError
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.sharding import path_name

# What the original decays: every weight, that of RMSNorm too, but not LayerNorm's, not the
# embedding (with the head that is tied to it), no bias, not A_log and not D.
_NO_WEIGHT_DECAY = re.compile(r"(.*/)?(embedding|a_log|d_skip|conv_bias|delta_bias|bias)")
# The matrices that Muon changes: (layer, inputs, outputs).
_MATRIX = re.compile(r"(.*/)?layers/(.*/)?(in_proj|out_proj)/kernel")


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Makes the learning rate's schedule: a linear warm-up, then a decay to `lr_min`.

    "cosine" decays along half a cosine from the end of the warm-up, as timm's
    `CosineLRScheduler(warmup_prefix=True)` stepped once per optimizer step. "wsd" (warm-up, stable,
    decay; Hu et al. 2024, section 4) keeps the largest rate until the last `decay_fraction` of the
    steps, and then falls in a straight line.

    Args:
        config: the learning rates, and the shares of warm-up and decay.
        steps: number of steps of the run.

    Returns:
        step -> learning rate, the first step being 0; `lr_min` once the decay is over.
    """
    end = config.decay_steps or steps
    warmup = round(end * config.warmup_fraction)
    slope = (config.lr - config.lr_init) / max(warmup, 1)

    # `optax.warmup_cosine_decay_schedule` is the same but for rounding, which makes its first rate
    # wrong in the fourth digit: it computes the warm-up from its end.
    def rising(step: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
        """Returns the learning rate of a step of the warm-up."""
        return config.lr_init + step * slope

    if config.schedule == "wsd":
        decay = max(round(end * config.decay_fraction), 1)
        falling = optax.linear_schedule(config.lr, config.lr_min, decay)
        parts = [rising, optax.constant_schedule(config.lr), falling]
        return optax.join_schedules(parts, [warmup, max(end - decay, warmup)])
    falling = optax.cosine_decay_schedule(
        config.lr, max(end - warmup, 1), alpha=config.lr_min / config.lr
    )
    return optax.join_schedules([rising, falling], [warmup])


def has_decay(params: Any) -> Any:
    """Marks which parameters have weight decay: returns a tree of bools like `params`."""
    # LayerNorm's scale is not decayed in the original and RMSNorm's is: only the former has a bias.
    names = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def decayed(path: Any, _: Any) -> bool:
        """Returns whether a parameter has weight decay."""
        name = path_name(path)
        layer_norm = name.endswith("/scale") and name.removesuffix("scale") + "bias" in names
        return not layer_norm and _NO_WEIGHT_DECAY.fullmatch(name) is None

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Makes the optimizer: clipping by the global norm, then AdamW, Adafactor or Muon.

    Each tied tensor is one leaf of our tree, so the global norm counts it once, as PyTorch does.

    Args:
        config: which one, its rates, decays and clipping.
        steps: number of steps of the run.

    Raises:
        UserError: this version of optax does not have it.
    """
    scaled = {"adamw": _adam, "adafactor": _adafactor, "muon": _muon}[config.name](config)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.chain(
            scaled,
            optax.add_decayed_weights(config.weight_decay, mask=has_decay),
            optax.scale_by_learning_rate(make_schedule(config, steps)),
        ),
    )


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Makes Adam, whose moments are stored in the dtype of the settings."""
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    return adam if config.moments == "float32" else _stored_as(adam, jnp.dtype(config.moments))


def _stored_as(
    inner: optax.GradientTransformation, dtype: jnp.dtype
) -> optax.GradientTransformation:
    """Stores the floating-point state of an optimizer in another dtype; it computes in float32."""

    def cast(state: Any, to: Any) -> Any:
        return jax.tree.map(
            lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state
        )

    def init(params: Any) -> Any:
        return cast(inner.init(params), dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, after = inner.update(updates, cast(state, jnp.float32), params)
        return updates, cast(after, dtype)

    return optax.GradientTransformation(init, update)


def _adafactor(config: OptimizerConfig) -> optax.GradientTransformation:
    """Makes Adafactor (Shazeer & Stern 2018) without momentum.

    The second moment of a matrix is kept as one number per row and per column (section 3), that of
    anything smaller whole; updates are clipped by their root mean square (section 6). The learning
    rate is that of the settings, not relative to the parameters' size.
    """
    del config
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Makes Muon (Jordan et al. 2024) for the input and output projections, Adam for the rest.

    An orthogonal update has the root mean square 0.2, about that of Adam's, so that one learning
    rate and one weight decay serve both (Liu et al. 2025, section 2.2). Each layer's matrix is
    orthogonalized on its own.
    """
    numbers = getattr(optax.contrib, "MuonDimensionNumbers", None)
    if numbers is None:
        raise UserError(
            "optimizer.name is muon, which needs optax 0.2.6 or newer: pip install -U optax"
        )
    per_layer = numbers(reduction_axis=1, output_axis=2)

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "muon" if _MATRIX.fullmatch(path_name(path)) else "adam", params
        )

    def rescaled(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(lambda x: 0.2 * max(x.shape[1:]) ** 0.5 * x, updates)

    muon = optax.contrib.scale_by_muon(
        weight_dimension_numbers=lambda params: jax.tree.map(lambda _: per_layer, params)
    )
    return optax.partition(
        {"muon": optax.chain(muon, optax.stateless(rescaled)), "adam": _adam(config)}, label
    )
