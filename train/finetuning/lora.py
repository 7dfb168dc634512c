"""Divides a model into what is trained (all, low-rank updates, or the head) and what is not."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from caduceus_jax.errors import UserError
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.sharding import path_name

Arrays = dict[str, jax.Array]  # by the path of a parameter, such as "caduceus/embedding"

_PROJECTIONS = re.compile(r".*(in_proj|out_proj)/kernel|.*x_proj")
_HEAD = {"score", "score_bias", "signals"}


class Tuning(NamedTuple):
    """Holds a model's parameters, divided."""

    frozen: Arrays
    trained: dict[str, Arrays]  # "whole" parameters, and "low_rank" factors: path/a and path/b
    combine: Callable[[Arrays, dict[str, Arrays]], nnx.State]  # back to the model's parameters


def partition_params(params: nnx.State, config: FinetuneConfig, seed: int) -> Tuning:
    """Divides parameters by the method of fine-tuning.

    A low-rank change of a weight W (in, out) is W + (alpha / rank) a b, with a (in, rank) drawn as
    PyTorch draws a linear map and b (rank, out) zero, so that nothing changes at first (Hu et al.
    2022, section 4.1). Layers that are stacked along leading axes each have their own.

    Args:
        params: parameters of a classifier.
        config: the method, rank and scale.
        seed: the seed of the drawn factors.

    Raises:
        UserError: the rank is larger than a projection.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    arrays = {path_name(path): leaf for path, leaf in leaves}
    names = list(arrays)
    low_rank: Arrays = {}
    if config.method == "lora":
        key = jax.random.key(seed)
        for name in filter(_PROJECTIONS.fullmatch, names):
            key, drawn = jax.random.split(key)
            low_rank |= _factors(name, arrays[name], config.lora_rank, drawn)
    chosen = set(names) if config.method == "all" else _HEAD
    whole = {name: array for name, array in arrays.items() if name in chosen}
    frozen = {name: array for name, array in arrays.items() if name not in chosen}
    scale = config.lora_alpha / config.lora_rank

    def combine(frozen: Arrays, trained: dict[str, Arrays]) -> Any:
        """Puts trained and frozen parameters together."""
        values = {**frozen, **trained["whole"]}
        factors = trained["low_rank"]
        for name in values:
            if f"{name}/a" in factors:
                change = jnp.matmul(factors[f"{name}/a"], factors[f"{name}/b"], precision="highest")
                values[name] = values[name] + scale * change
        return jax.tree_util.tree_unflatten(structure, [values[name] for name in names])

    return Tuning(frozen, {"whole": whole, "low_rank": low_rank}, combine)


def _factors(name: str, weight: jax.Array, rank: int, key: jax.Array) -> Arrays:
    *stacked, inputs, outputs = weight.shape
    if rank > min(inputs, outputs):
        raise UserError(
            f"lora_rank is {rank}, larger than the projection {name} of {inputs} x {outputs}: use "
            f"at most {min(inputs, outputs)}"
        )
    bound = 1 / inputs**0.5
    shape = (*stacked, inputs, rank)
    a = jax.random.uniform(key, shape, weight.dtype, minval=-bound, maxval=bound)
    return {f"{name}/a": a, f"{name}/b": jnp.zeros((*stacked, rank, outputs), weight.dtype)}
