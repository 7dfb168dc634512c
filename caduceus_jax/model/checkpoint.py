"""Model files: Hugging Face folders, hub ids and Lightning checkpoints in, folders out."""

import json
import pathlib
from typing import Any

import huggingface_hub
import numpy as np
from flax import nnx
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from caduceus_jax import models
from caduceus_jax.errors import UserError
from caduceus_jax.model import convert
from caduceus_jax.model.config import CaduceusConfig

WEIGHTS = "model.safetensors"
_PICKLE = "pytorch_model.bin"
# Runs of `caduceus-jax pretrain` keep their model in this folder of the run.
RUN_MODEL = "model"


def load(path: str | pathlib.Path) -> tuple[CaduceusConfig, nnx.State]:
    """Reads a model from wherever it is.

    Args:
        path: a folder with `config.json` and weights, the folder of a pretraining run, a file of
            weights such as a Lightning `.ckpt` (with a `config.json` beside it, or inferred), a
            hub id, or a short name such as caduceus-ps-131k.

    Returns:
        The architecture that is true of the weights, and their state.

    Raises:
        UserError: nothing usable there; the message says what was looked for.
    """
    hf, tensors = read(path)
    config = convert.infer_config(tensors) if hf is None else CaduceusConfig.from_hf(hf)
    config, tensors = convert.reconcile(config, tensors)
    return config, convert.from_torch(config, tensors)


def save(path: str | pathlib.Path, config: CaduceusConfig, state: nnx.State) -> None:
    """Writes a folder that the original's `from_pretrained` and ours load."""
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = convert.to_torch(config, state)
    heads = [str(path[0]) for path, _ in nnx.to_flat_state(state) if len(path) == 1]
    tensors |= convert.complement_maps(config, heads)
    hf = config.to_hf()
    if "score" in heads:
        labels = range(len(tensors["score.weight"]))
        hf["architectures"] = ["CaduceusForSequenceClassification"]
        if len(hf.get("id2label", ())) != len(labels):
            hf["id2label"] = {str(i): f"LABEL_{i}" for i in labels}
            hf["label2id"] = {f"LABEL_{i}": i for i in labels}
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf, indent=2, sort_keys=True) + "\n")


def read(path: str | pathlib.Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The parsed `config.json`, None where a file of weights has none, and the stored tensors."""
    path = pathlib.Path(path)
    if path.is_file():
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise UserError(
                f"{path} is no model: name a folder with config.json, a file of weights "
                f"({', '.join(_READERS)}), or a hub id such as owner/name"
            )
        config = path.with_name("config.json")
        return _config(config) if config.is_file() else None, reader(path)
    folder = locate(path)
    hf = _config(folder / "config.json")
    for name in (WEIGHTS, _PICKLE):
        reader, index = _READERS[pathlib.Path(name).suffix], folder / f"{name}.index.json"
        if (folder / name).is_file():
            return hf, reader(folder / name)
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return hf, {k: v for shard in shards for k, v in reader(folder / shard).items()}
    raise UserError(f"{folder} has a config.json but no {WEIGHTS} and no {_PICKLE}")


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """The local folder that holds `config.json`; downloads a hub id or a short name.

    Raises:
        UserError: there is no such folder and no such model on the hub.
    """
    folder = pathlib.Path(path)
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / "config.json").is_file():
            return candidate
    if folder.is_dir():
        raise UserError(f"{folder} has no config.json: it is not a model's folder")
    name = models.resolve(folder.as_posix())
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=["*.json", "*.safetensors", "pytorch_model*.bin"]
            )
        )
    except HFValidationError:
        raise UserError(f"{name} does not exist, and is no hub id such as owner/name") from None
    except (huggingface_hub.errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name} does not exist here, and could not be fetched from the hub ({reason})"
        ) from None


def _config(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or incomplete ({error}): fetch it again") from None


def _torch_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors of a file written by `torch.save`; needs torch, and runs nothing from the file."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path} is a PyTorch pickle, which only torch reads: pip install torch, or convert "
            f"it to {WEIGHTS} where torch is installed"
        ) from None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged or unsafe file
        raise UserError(
            f"{path} could not be read as plain tensors ({str(error).splitlines()[0]}): save "
            'torch.load(path)["state_dict"] again where the file is trusted'
        ) from None
    stored = stored.get("state_dict", stored)
    return {
        name: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for name, tensor in stored.items()
        if isinstance(tensor, torch.Tensor)
    }


_READERS = {".safetensors": _safetensors, ".ckpt": _torch_file, ".bin": _torch_file}
