"""Tensors from files: safetensors and those of `torch.save`, whole or in shards, and containers."""

import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from caduceus_jax.errors import UserError
from caduceus_jax.model.files import hf_config, torch_pickle

log = logging.getLogger(__name__)

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
Tensors = dict[str, np.ndarray]
# Where trainers put a model's tensors beside the rest of their state, the likeliest first.
_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "params")
SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".tar")
# What trainers write beside a model's weights, under the same endings.
_STATE_OF_TRAINERS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")


class Checkpoint(NamedTuple):
    """Holds the tensors of a file, and what its trainer stored beside them."""

    tensors: Tensors
    settings: dict[str, Any]  # a trainer's hyper-parameters, as plain values
    container: str  # the key of the file that held the tensors; empty where they lay bare


def from_folder(folder: pathlib.Path, stems: tuple[str, ...] = (WEIGHTS, PICKLE)) -> Tensors:
    """Reads the weights of a folder, whole or in shards.

    Args:
        folder: folder with one of `stems`, or its index, or a single file of weights of another
            name.
        stems: names of files of weights, of which the first that is there counts.

    Raises:
        UserError: there are none, several of other names, or a file is missing or damaged.
    """
    for name in stems:
        if (folder / name).is_file():
            return from_file(folder / name).tensors
        index = folder / f"{name}.index.json"
        if index.is_file():
            tensors: Tensors = {}
            for shard in _shards(index):
                tensors |= from_file(shard).tensors
            return tensors
    others = files_in(folder)
    if len(others) == 1:
        log.info("the weights are read from %s", others[0])
        return from_file(others[0]).tensors
    missing = f"{folder} has a config.json but no {' and no '.join(stems)}"
    if others:
        missing += f": name one of its files, {', '.join(path.name for path in others)}"
    raise UserError(missing)


def files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the files of a folder that may hold a model's weights, by their endings."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and not _STATE_OF_TRAINERS.fullmatch(path.name)
    )


def from_file(path: pathlib.Path) -> Checkpoint:
    """Reads one file of weights, whatever its ending.

    Args:
        path: a safetensors file, or one that `torch.save` wrote: a state dict, a trainer's
            checkpoint with one in it, or a whole module.

    Raises:
        UserError: the file is missing, damaged, or holds no tensors under names.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: fetch the model again")
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not its content: run git lfs pull")
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return Checkpoint(_safetensors(path), {}, "")
    if path.suffix not in SUFFIXES and not start.startswith((b"PK", b"\x80")):
        raise UserError(
            f"{path} is not a model: name a folder with config.json, a file of weights "
            f"({', '.join(SUFFIXES)}), or a hub id such as owner/name"
        )
    return _torch_file(path)


def _torch_file(path: pathlib.Path) -> Checkpoint:
    saved = torch_pickle.load(path)
    container, found = _state_dict(saved)
    if not found:
        kind = type(saved).__name__
        keys = f" with the keys {', '.join(map(str, saved))}" if isinstance(saved, Mapping) else ""
        raise UserError(
            f"{path} holds a {kind}{keys[:200]}, and in it no tensors under names: save the "
            "model's state_dict()"
        )
    try:
        tensors = {name: tensor.array() for name, tensor in found.items()}
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}): fetch it again") from None
    settings = saved.get("hyper_parameters") if isinstance(saved, Mapping) else None
    settings = torch_pickle.plain(settings)
    return Checkpoint(tensors, settings if isinstance(settings, dict) else {}, container)


def _state_dict(saved: Any, depth: int = 3) -> tuple[str, dict[str, torch_pickle.Tensor]]:
    """Finds the key that leads to a state dict, and its tensors; whole modules count too."""
    if isinstance(saved, torch_pickle.Unknown):
        tensors = dict(torch_pickle.module_tensors(saved))
        return "", tensors or _state_dict(saved.items, depth - 1)[1] if depth else tensors
    if not isinstance(saved, Mapping) or not depth:
        return "", {}
    tensors = {str(k): v for k, v in saved.items() if isinstance(v, torch_pickle.Tensor)}
    if any("." in name for name in tensors):
        return "", tensors
    inner = [key for key in _CONTAINERS if key in saved]
    inner += [key for key in saved if key not in inner]
    found = {str(key): _state_dict(saved[key], depth - 1) for key in inner}
    # A trainer's other dictionaries, such as the optimizer's state, have no names of layers.
    named = {k: v for k, v in found.items() if any(".layers." in n for n in v[1])}
    for key, (deeper, state) in (named or {k: v for k, v in found.items() if v[1]}).items():
        others = [other for other in named if other != key]
        if others:
            log.info(
                "of the models under the keys %s, the one under %s is used", ", ".join(named), key
            )
        return f"{key}.{deeper}" if deeper else key, state
    return "", tensors


def _shards(index: pathlib.Path) -> list[pathlib.Path]:
    """Lists the files that an index names."""
    parsed = hf_config.read(index)
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map: it is not an index of weights")
    names = sorted({str(name) for name in weight_map.values()})
    if odd := [name for name in names if pathlib.Path(name).name != name]:
        raise UserError(f"{index} names {odd[0]}, which is not a file of the same folder")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{index.parent} lacks {', '.join(missing)} of the {len(names)} files that "
            f"{index.name} names: fetch the model again"
        )
    return [index.parent / name for name in names]


def _safetensors(path: pathlib.Path) -> Tensors:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}): fetch it again") from None
    except (AttributeError, KeyError, TypeError):
        with safe_open(path, framework="np") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        raise UserError(
            f"{path} stores {', '.join(sorted(kinds))}, of which some are not supported: store "
            "the weights as float32, float16 or bfloat16"
        ) from None
