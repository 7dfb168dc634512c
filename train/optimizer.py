"""The optimizer: clipping, AdamW, and the learning rate's schedule."""

import re
from typing import Any

import jax
import optax

from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.sharding import path_name

# What the original decays: every weight, that of RMSNorm too, but not LayerNorm's, not the
# embedding (with the head that is tied to it), no bias, not A_log and not D.
_NO_WEIGHT_DECAY = re.compile(r"(.*/)?(embedding|a_log|d_skip|conv_bias|delta_bias|bias)")


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
    """Makes the optimizer: clipping by the global norm, then AdamW with the schedule.

    Each tied tensor is one leaf of our tree, so the global norm counts it once, as PyTorch does.

    Args:
        config: rates, decays and clipping.
        steps: number of steps of the run.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            make_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=has_decay,
        ),
    )
