"""Low-rank adapters (Hu et al. 2022) as the PEFT library stores them: read, merged and written.

A change of a weight W (out, in) is W + scale * B A, with A (rank, in) and B (out, rank). The
original ties the projections of both reading directions, while PEFT adapts every module by itself:
where an adapter changes both directions alike, or only one of them, the weight that they share is
changed; where it changes them differently the model becomes untied.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from caduceus_jax.errors import UserError
from caduceus_jax.model.files import hf_config, tensor_names, weights

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_ROOT = "base_model.model."
_FACTOR = re.compile(r"(.*)\.lora_(A|B)(?:\.\w+)?(?:\.weight)?")
# Ways to begin that leave the base model's weights as they are.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
_Tensors = dict[str, np.ndarray]


class Adapter(NamedTuple):
    """Holds an adapter, under the names of the original's tensors."""

    base: str  # of the model that it changes: a folder or a hub id; may be empty
    changes: _Tensors  # added to the weight of this name, (out, in)
    whole: _Tensors  # in place of the tensor of this name


def read(folder: pathlib.Path) -> Adapter:
    """Reads an adapter.

    Args:
        folder: folder with adapter_config.json and adapter_model.safetensors or .bin.

    Raises:
        UserError: the adapter is of a kind that is not supported, or its file is damaged.
    """
    settings = hf_config.read(folder / CONFIG)
    _check_kind(folder, settings)
    stored = weights.from_folder(folder, (WEIGHTS, PICKLE))
    factors: dict[str, dict[str, np.ndarray]] = {}
    whole: _Tensors = {}
    for name, tensor in stored.items():
        name = name.removeprefix(_ROOT)
        tensor = np.asarray(tensor, np.float32)
        if found := _FACTOR.fullmatch(name):
            factors.setdefault(found[1], {})[found[2]] = tensor
        elif "lora_" in name:
            raise UserError(
                f"{folder} adapts {name}, and only the weights of linear maps can be merged here: "
                "merge it with PEFT's merge_and_unload()"
            )
        else:
            whole[re.sub(r"\.modules_to_save(\.\w+)?\.", ".", name)] = tensor
    changes = {
        f"{module}.weight": _change(folder, settings, module, pair)
        for module, pair in factors.items()
    }
    changes, _ = tensor_names.canonical(changes)
    return Adapter(
        str(settings.get("base_model_name_or_path") or ""),
        changes,
        tensor_names.canonical(whole)[0],
    )


def merge(tensors: Mapping[str, np.ndarray], adapter: Adapter, *, tied: bool) -> _Tensors:
    """Returns the base model's tensors with an adapter merged into them.

    Args:
        tensors: the base model's, under the original's names.
        adapter: the adapter to add.
        tied: both reading directions of the base model share their projections.

    Raises:
        UserError: the adapter changes a tensor that the model does not have, or one of another
            shape.
    """
    merged = dict(tensors)
    changes = dict(adapter.changes)
    names = [name.replace("mamba_rev.", "mamba_fwd.") for name in (*merged, *changes)]
    forward = {name for name in names if tied and _reverse(name) is not None}
    for name in sorted(forward):
        reverse = str(_reverse(name))
        # Which of two tied names a file keeps is up to the library that wrote it.
        if reverse in merged:
            merged.setdefault(name, merged[reverse])
            del merged[reverse]
        one, other = changes.pop(name, None), changes.pop(reverse, None)
        if one is not None and other is not None and not np.array_equal(one, other):
            merged[reverse] = _changed(reverse, merged.get(name), other)
        change = other if one is None else one
        if change is not None:
            merged[name] = _changed(name, merged.get(name), change)
    for name, change in changes.items():
        merged[name] = _changed(name, merged.get(name), change)
    return merged | adapter.whole


def write(
    folder: pathlib.Path,
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    whole: Mapping[str, np.ndarray],
    *,
    rank: int,
    alpha: float,
    base: str,
) -> None:
    """Writes an adapter that PEFT loads onto the original's model.

    Args:
        folder: the folder, made if it is not there.
        factors: A (rank, in) and B (out, rank) of each weight, by the weight's original name.
        whole: tensors that are trained whole, such as a head, by their original names.
        rank: the rank of the factors.
        alpha: the change is B A times alpha / rank.
        base: folder or hub id of the model that was adapted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: _Tensors = {}
    for name, (a, b) in factors.items():
        module = _ROOT + name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(a, np.float32)
        tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b, np.float32)
    for name, tensor in whole.items():
        tensors[_ROOT + name] = np.ascontiguousarray(tensor, np.float32)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": _modules(whole) or None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": _modules(factors),
        "task_type": None,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _check_kind(folder: pathlib.Path, settings: Any) -> None:
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else settings
        raise UserError(f"{folder} is an adapter of the kind {kind}; supported: LORA")
    if settings.get("use_dora"):
        raise UserError(f"{folder} is a DoRA adapter: merge it with PEFT's merge_and_unload()")
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise UserError(
            f"{folder} began with {start}, which also changes the base model: merge it with PEFT's "
            "merge_and_unload()"
        )


def _change(
    folder: pathlib.Path, settings: dict[str, Any], module: str, pair: dict[str, np.ndarray]
) -> np.ndarray:
    """Computes the change of one weight, (out, in)."""
    if set(pair) != {"A", "B"}:
        raise UserError(f"{folder} lacks lora_{'B' if 'A' in pair else 'A'} of {module}")
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise UserError(f"{folder}: the factors of {module} are {a.shape} and {b.shape}")
    alpha = settings.get("lora_alpha", 8)
    for pattern, own in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?{pattern}", module):
            alpha = own
    rank = a.shape[0]
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    change = np.float32(scale) * (b @ a)
    return change.T if settings.get("fan_in_fan_out") else change


def _changed(name: str, weight: np.ndarray | None, change: np.ndarray) -> np.ndarray:
    if weight is None:
        raise UserError(f"the adapter changes {name}, which the base model does not have")
    if change.shape != weight.shape:
        raise UserError(
            f"the adapter changes {name} by {change.shape}, and the model's is {weight.shape}: it "
            "belongs to another base model"
        )
    return np.asarray(weight, np.float32) + change


def _reverse(name: str) -> str | None:
    """Names the projection that a forward one is tied to; None for other tensors."""
    forward = re.search(r"mamba_fwd\.(in|out)_proj\.", name)
    return name.replace("mamba_fwd.", "mamba_rev.") if forward else None


def _modules(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[0].rpartition(".")[2] for name in names})
