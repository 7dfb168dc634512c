"""Low-rank changes as an adapter in the layout of PEFT: adapter_config.json, adapter_model."""

import pathlib

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from caduceus_jax.files import write_json
from caduceus_jax.model import convert
from caduceus_jax.model.linear_head import LinearHead
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.start import Start
from caduceus_jax.train.sharding import path_name

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LAYERS = 1 << 12  # more than a model has


def save_adapter(
    folder: pathlib.Path,
    config: FinetuneConfig,
    start: Start,
    model: LinearHead,
    trained: dict[str, dict[str, jax.Array]],
) -> None:
    """Writes the low-rank factors and the head, for the PyTorch model that they belong to.

    Where two modules of the original share a projection, both get the same factors.

    Args:
        folder: made if it does not exist.
        config: rank and scale of the changes, and the base model's name.
        start: the model that was tuned.
        model: the tuned model, whose parameters have the original's names.
        trained: "low_rank" factors by parameter, and "whole" parameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    targets = set()
    factors = jax.device_get(trained["low_rank"])
    for name, (parameter, layer) in _torch_names(start, model).items():
        if f"{parameter}/a" not in factors:
            continue
        a, b = factors[f"{parameter}/a"], factors[f"{parameter}/b"]
        if a.ndim == 3:
            a, b = a[layer], b[layer]
        modules = [name.removesuffix(".weight")]
        tied = start.architecture.bidirectional_weight_tie and "x_proj" not in name
        if start.architecture.bidirectional and tied:
            modules.append(modules[0].replace("mamba_fwd", "mamba_rev"))
        for module in modules:
            tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
            tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
            targets.add(module.rpartition(".")[2])
    tensors[f"{_PREFIX}score.weight"] = np.asarray(model.score[...])
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "SEQ_CLS",
            "base_model_name_or_path": config.model or None,
            "r": config.lora_rank,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": sorted(targets),
            "modules_to_save": ["score"],
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        },
    )


def _torch_names(start: Start, model: LinearHead) -> dict[str, tuple[str, int]]:
    """Finds, by the original's name of each tensor, the parameter and layer that it is.

    Each parameter is filled with a number of its own, and the conversion says where that ends up.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Param))
    names = [path_name(path) for path, _ in leaves]
    numbered = []
    for number, (path, leaf) in enumerate(leaves):
        marks = np.full(leaf.shape, number * _LAYERS, np.float64)
        if "layers" in path_name(path).split("/"):
            marks += np.arange(leaf.shape[0]).reshape(-1, *[1] * (leaf.ndim - 1))
        numbered.append(marks)
    state = jax.tree_util.tree_unflatten(structure, numbered)
    found = {}
    for name, tensor in convert.to_torch(start.architecture, state).items():
        mark = int(np.asarray(tensor).flat[0])
        number, layer = divmod(mark, _LAYERS)
        found[name] = names[number], layer
    return found
