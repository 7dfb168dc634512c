"""The original's optimizer on our parameter tree: clipping, AdamW, timm's cosine schedule."""

import re

import jax
import jax.numpy as jnp
import optax

from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.sharding import path_name

# What the original decays: every weight, that of RMSNorm too, but not LayerNorm's, not the
# embedding (with the head that is tied to it), no bias, not A_log and not D.
_NO_WEIGHT_DECAY = re.compile(r"(.*/)?(embedding|a_log|d_skip|conv_bias|delta_bias|bias)")


def cosine_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of a step: linear warm-up from `lr_init`, then cosine decay to `lr_min`.

    As `CosineLRScheduler(warmup_prefix=True)` of timm, stepped once per optimizer step.

    Args:
        config: the learning rates and the share of warm-up.
        steps: of the whole run.

    Returns:
        step -> learning rate; the first step is 0. From `steps` on it is `lr_min`.
    """
    warmup = round(steps * config.warmup_fraction)
    decay = steps - warmup

    def schedule(step):
        rising = config.lr_init + step * (config.lr - config.lr_init) / max(warmup, 1)
        done = jnp.clip((step - warmup) / decay, 0.0, 1.0)
        falling = config.lr_min + 0.5 * (config.lr - config.lr_min) * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup, rising, falling)

    return schedule


def decays(params) -> object:
    """Which parameters have weight decay: a tree of bools like `params`."""
    # LayerNorm's scale is not decayed in the original and RMSNorm's is: only the former has a bias.
    names = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def decayed(path, _):
        name = path_name(path)
        layer_norm = name.endswith("/scale") and name.removesuffix("scale") + "bias" in names
        return not layer_norm and _NO_WEIGHT_DECAY.fullmatch(name) is None

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW with the cosine schedule.

    Each tied tensor is one leaf of our tree, so the global norm counts it once, as PyTorch does.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            cosine_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )
