"""Infers the architecture that tensors come from, by their names and shapes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files import hf_config, tensor_names

_BACKBONE = "caduceus.backbone."


# What names and shapes do not tell, and a trainer's settings may.
_UNTOLD = ("bidirectional_strategy", "norm_epsilon", "residual_in_fp32", "pad_token_id")


def infer_config(
    tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any] | None = None
) -> CaduceusConfig:
    """Finds the architecture that a bare state dict must have come from.

    Names and shapes tell everything but `bidirectional_strategy`, `norm_epsilon`,
    `residual_in_fp32` and, without `rcps`, `fused_add_norm`: these get the original's defaults
    unless `settings` has them.

    Args:
        tensors: name -> array, under the original's names or with a common prefix.
        settings: a trainer's hyper-parameters; the original's keep the model's config under
            `model.config`.

    Raises:
        UserError: the names are not those of a Caduceus model.
    """
    tensors, _ = tensor_names.canonical(tensors)
    rcps = _BACKBONE + "embeddings.word_embeddings.embedding.weight" in tensors
    layers = {int(m[1]) for n in tensors if (m := re.match(r".*\.layers\.(\d+)\.", n))}
    mixer = f"{_BACKBONE}layers.0.mixer.{'submodule.' * rcps}mamba_"
    try:
        vocab_size, d_model = tensors[
            f"{_BACKBONE}embeddings.word_embeddings.{'embedding.' * rcps}weight"
        ].shape
        d_inner, d_state = tensors[f"{mixer}fwd.A_log"].shape
        d_conv = tensors[f"{mixer}fwd.conv1d.weight"].shape[-1]
        dt_rank = tensors[f"{mixer}fwd.dt_proj.weight"].shape[-1]
    except KeyError as error:
        raise UserError(f"these are not a Caduceus model's weights: no {error.args[0]}") from None
    fused = f"{_BACKBONE}norm_f.submodule.weight" not in tensors
    norm = _BACKBONE + ("norm_f." if fused else "norm_f.submodule.")
    complement = tensors.get(f"{_BACKBONE}embeddings.word_embeddings.complement_map")
    known = _stored(settings or {}, rcps)
    if complement is not None:
        known["complement_map"] = tuple(np.asarray(complement).tolist())
    elif vocab_size < 12:  # too few for the default alphabet: which tokens pair is not known
        known["complement_map"] = tuple(range(vocab_size))
    twins = [
        (name.replace("mamba_fwd", "mamba_rev"), name)
        for name in tensors
        if re.search(r"mamba_fwd\.(in|out)_proj\.", name)
    ]
    head = "lm_head.lm_head.weight" if rcps else "lm_head.weight"
    embedding = f"{_BACKBONE}embeddings.word_embeddings.{'embedding.' * rcps}weight"
    return CaduceusConfig(
        d_model=d_model,
        n_layer=len(layers),
        rcps=rcps,
        bidirectional=f"{mixer}rev.A_log" in tensors,
        bidirectional_weight_tie=not any(differ(tensors, *pair) for pair in twins),
        rms_norm=f"{norm}bias" not in tensors,
        fused_add_norm=known.pop("fused_add_norm", fused),
        tie_word_embeddings=not differ(tensors, head, embedding),
        d_state=d_state,
        d_conv=d_conv,
        expand=d_inner // d_model,
        dt_rank=dt_rank,
        conv_bias=f"{mixer}fwd.conv1d.bias" in tensors,
        bias=f"{mixer}fwd.in_proj.bias" in tensors,
        vocab_size=vocab_size,
        pad_vocab_size_multiple=1,
        **known,
    )


def _stored(settings: Mapping[str, Any], rcps: bool) -> dict[str, Any]:
    """Takes from a trainer's settings what tensors do not tell of an architecture."""
    model = settings.get("model")
    config = model.get("config") if isinstance(model, Mapping) else None
    if not isinstance(config, Mapping):
        return {}
    untold = _UNTOLD if rcps else (*_UNTOLD, "fused_add_norm")
    stored = {key: config[key] for key in untold if config.get(key) is not None}
    return {key: value for key, value in hf_config.normalised(stored).items() if key in stored}


def differ(tensors: Mapping[str, np.ndarray], one: str, other: str) -> bool:
    """Tells whether both tensors are there and not equal bit for bit.

    Args:
        tensors: name -> array.
        one: a name.
        other: another one.
    """
    return one in tensors and other in tensors and not np.array_equal(tensors[one], tensors[other])
