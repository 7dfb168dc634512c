"""Finds a model: in a folder, the folder of a run, or a repository on the Hugging Face hub."""

import os
import pathlib

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from caduceus_jax import models
from caduceus_jax.errors import UserError
from caduceus_jax.files import check_local
from caduceus_jax.model.files import weights as weight_files

Path = str | os.PathLike[str]
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
# Runs of `caduceus-jax pretrain` keep their model in this folder of the run.
RUN_MODEL = "model"

# Everything but weights that may belong to a model, and then the weights that there are. Files in
# folders, such as checkpoint-1000/model.safetensors, are other models.
_TEXTS = ["*.json", "*.txt", "*.py", "README.md"]
_SAFE = ["model*.safetensors", "adapter_model*.safetensors"]
_PICKLES = ["pytorch_model*.bin", "adapter_model*.bin"]


def locate(
    path: Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | None = None,
    weights: bool = True,
) -> pathlib.Path:
    """Finds the local folder of a model; a hub id is downloaded.

    Args:
        path: a folder with `config.json` or `adapter_config.json`, a run's folder with a finished
            model in it, a hub id such as "owner/name", or a short name such as caduceus-ps-131k.
        revision: branch, tag or commit of the hub's repository; the newest by default.
        token: access token of the hub; by default that of the account that is logged in.
        cache_dir: folder for downloads; by default Hugging Face's own cache.
        weights: also download weights; without them only the small files.

    Raises:
        UserError: neither a folder nor a model on the hub has this name.
    """
    check_local("the model", path)
    folder = pathlib.Path(path)
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / CONFIG).is_file() or (candidate / ADAPTER_CONFIG).is_file():
            return candidate
    if folder.is_dir():
        raise UserError(f"{folder} has no config.json: it is not a model's folder{_inside(folder)}")
    if folder.suffix in weight_files.SUFFIXES:
        raise UserError(f"{folder} does not exist")
    name = models.resolve(folder.as_posix())

    def download(patterns: list[str]) -> pathlib.Path:
        """Downloads the files that match, and returns their folder."""
        fetched = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
        )
        return pathlib.Path(fetched)

    try:
        snapshot = download(_TEXTS + _SAFE if weights else _TEXTS)
        if weights and not any(snapshot.glob("*.safetensors")):
            snapshot = download(_TEXTS + _PICKLES)
    except HFValidationError:
        raise UserError(f"{name} does not exist, and is not a hub id such as owner/name") from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0].removeprefix("Got: ")
        raise UserError(
            f"{name} does not exist here, and could not be fetched from the hub ({reason}): to "
            "work offline, name a folder with the model's files"
        ) from None
    if not any((snapshot / file).is_file() for file in (CONFIG, ADAPTER_CONFIG)):
        raise UserError(f"{name} on the hub has no config.json: it is not a model")
    return snapshot


def _inside(folder: pathlib.Path) -> str:
    """Names the models in a folder that is not one: files of weights, or folders with a config."""
    found = [path.name for path in weight_files.files_in(folder)]
    found += sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if not found:
        return ""
    more = ", ..." if len(found) > 3 else ""
    return f"; name what is in it, {', '.join(found[:3])}{more}"
