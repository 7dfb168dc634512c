"""Models from wherever they are stored, and into folders that the original loads too."""

import logging
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from caduceus_jax.errors import UserError
from caduceus_jax.files import write_text
from caduceus_jax.model import convert
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files import (
    hf_config,
    lora,
    model_card,
    original_code,
    tensor_names,
    tokenizer_files,
    weights,
)
from caduceus_jax.model.files.locate import CONFIG, Path
from caduceus_jax.model.files.locate import RUN_MODEL as RUN_MODEL
from caduceus_jax.model.files.locate import locate as locate
from caduceus_jax.model.files.model_card import ModelCard
from caduceus_jax.model.files.task import KEY, TaskDescription
from caduceus_jax.model.files.weights import WEIGHTS as WEIGHTS
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# This file marks the top folder of a checkpoint of `caduceus-jax pretrain`.
_RUN_FILES = ("run.json", "checkpoints")


class StoredModel(NamedTuple):
    """Holds a model as it is stored, with all that belongs to it."""

    config: CaduceusConfig  # true of the weights
    state: nnx.State  # paths begin with "caduceus", or with the name of a head
    tokenizer: Tokenizer | None  # None where it is not stored and not the original's
    task: TaskDescription | None  # as this project recorded it; None for other models
    hf: dict[str, Any]  # the parsed config.json; empty where there is none
    folder: pathlib.Path | None  # local folder of its files; None for a bare file of weights


# Where a model is read from: a place, or what was read there before.
Source = Path | StoredModel


def open_model(
    path: Source,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | None = None,
    base: Path | None = None,
) -> StoredModel:
    """Reads a model and what belongs to it from wherever it is.

    Args:
        path: a folder with `config.json` and weights; the folder of a pretraining run, finished or
            not, or of one of its checkpoints; a file of weights such as a Lightning `.ckpt` (with a
            `config.json` beside it, or inferred); a hub id; a short name such as
            caduceus-ps-131k; or a model that was read before, which is returned.
        revision: branch, tag or commit of the hub's repository; the newest by default.
        token: access token of the hub; by default that of the account that is logged in.
        cache_dir: folder for downloads; by default Hugging Face's own cache.
        base: the model that a low-rank adapter (PEFT's LoRA) is merged into; by default the one
            that its adapter_config.json names.

    Raises:
        UserError: nothing usable there; the message says what was looked for.
    """
    if isinstance(path, StoredModel):
        return path
    local = pathlib.Path(path)
    if local.is_file():
        found = weights.from_file(local)
        beside = local.with_name(CONFIG)
        hf = hf_config.read(beside) if beside.is_file() else {}
        folder = local.parent if hf else None
        return _assembled(path, hf, found, folder)
    if (trained := _run(local)) is not None:
        return trained
    folder = locate(path, revision=revision, token=token, cache_dir=cache_dir)
    if (folder / lora.CONFIG).is_file() and not any(folder.glob("model*.safetensors")):
        return _adapted(path, folder, base)
    hf = hf_config.read(folder / CONFIG)
    found = weights.Checkpoint(weights.from_folder(folder), {}, "")
    return _assembled(path, hf, found, folder)


def load(path: Path, **hub: Any) -> tuple[CaduceusConfig, nnx.State]:
    """Reads an architecture and its parameters from wherever they are.

    Args:
        path: a folder, a run, a file of weights, or a hub id, as for `open_model`.
        **hub: `revision`, `token` and `cache_dir` of `open_model`.

    Returns:
        The architecture that is true of the weights, and their state.

    Raises:
        UserError: nothing usable there; the message says what was looked for.
    """
    stored = open_model(path, **hub)
    return stored.config, stored.state


def save(
    path: Path,
    config: CaduceusConfig,
    state: Any,
    *,
    tokenizer: Tokenizer | None = None,
    task: TaskDescription | None = None,
    card: ModelCard | None = None,
    code: Path | None = None,
) -> None:
    """Writes a folder that the original's `from_pretrained` and ours load.

    Args:
        path: the folder, made if it is not there: `config.json`, `model.safetensors`, the files of
            the tokenizer, and a model card `README.md` (one that is there and was written by
            somebody else is left as it is).
        config: the architecture.
        state: `nnx.state(model, nnx.Param)`, or the model itself.
        tokenizer: the model's; by default the original's, where the architecture can be made for
            it.
        task: meaning of the outputs of a classifier or track model.
        card: facts for the model card that the files do not tell.
        code: folder with the original's modelling code, which is copied, so that `AutoModel` of
            `transformers` loads the model without a network; by default config.json of a new
            model names the code on the hub.
    """
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(state, nnx.Module):
        state = nnx.state(state, nnx.Param)
    tensors = convert.to_torch(config, state)
    names = {str(path[0]) for path, _ in nnx.to_flat_state(state)}
    heads = sorted(names & {"lm_head", "score"})
    if "caduceus" in names and not heads:
        heads = ["lm_head"]  # tied to the embedding
    tensors |= convert.complement_maps(config, heads)
    if "score.bias" in tensors:
        log.warning(
            "%s: the head has a bias, which the original's CaduceusForSequenceClassification does "
            "not read",
            folder,
        )
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    if code is not None:
        original_code.copy(pathlib.Path(code), folder)
    hf = original_code.described(_described(config, tensors, heads, task), folder)
    write_text(folder / CONFIG, hf_config.text(hf))
    if tokenizer := tokenizer or Tokenizer.of_config(config):
        tokenizer.save_pretrained(folder)
        original_code.describe_tokenizer(folder)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state))
    known = (task or TaskDescription.of(hf)) if "score" in heads else None
    model_card.write(folder, config, parameters, known, card)


def save_adapter(
    path: Path,
    config: CaduceusConfig,
    low_rank: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray],
    *,
    rank: int,
    alpha: float,
    base: str,
    tokenizer: Tokenizer | None = None,
    task: TaskDescription | None = None,
) -> None:
    """Writes a low-rank adapter that PEFT loads onto the original's model, and ours back.

    PEFT merges it with `PeftModel.from_pretrained(model, path).merge_and_unload()`. Where both
    reading directions share a projection its change is stored once, for the forward one, since a
    merge in PEFT adds to the shared weight as often as there are changes of it.

    Args:
        path: the folder, made if it is not there.
        config: the architecture.
        low_rank: factors by the path of the parameter, such as
            `caduceus/layers/mixer/in_proj/kernel/a` (layers, in, rank) and `.../b` (layers, rank,
            out); the change is `a @ b * alpha / rank`.
        whole: parameters that are trained whole, by their path, such as `score`.
        rank: the rank of the factors.
        alpha: scales the change.
        base: folder or hub id of the model that was adapted.
        tokenizer: the model's.
        task: the meaning of the outputs.

    Raises:
        UserError: a path that is not one of this architecture.
    """
    factors, names, left = {}, {}, {*low_rank, *whole}
    for row in convert.rows(config, [name for name in whole if "/" not in name]):
        name = "/".join(row.path)
        if name in whole:
            names[row.name] = row.theirs(np.asarray(whole[name]))
            left.discard(name)
        elif f"{name}/a" in low_rank:
            a, b = (np.asarray(low_rank[f"{name}/{factor}"])[row.layer] for factor in "ab")
            factors[row.name] = (a.T, b.T)
            left -= {f"{name}/a", f"{name}/b"}
    if left:
        raise UserError(f"the model has no parameter {', '.join(sorted(left))}")
    folder = pathlib.Path(path)
    lora.write(folder, factors, names, rank=rank, alpha=alpha, base=base)
    if (score := names.get("score.weight")) is not None:
        hf = _described(config, {"score.weight": score}, ["score"], task)
        write_text(folder / CONFIG, hf_config.text(hf))
    if tokenizer := tokenizer or Tokenizer.of_config(config):
        tokenizer.save_pretrained(folder)


def read(path: Path) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Reads the parsed `config.json`, None where a file of weights has none, and the tensors.

    Args:
        path: a folder, a file of weights, or a hub id.
    """
    local = pathlib.Path(path)
    if local.is_file():
        beside = local.with_name(CONFIG)
        hf = hf_config.read(beside) if beside.is_file() else None
        return hf, weights.from_file(local).tensors
    folder = locate(path)
    return hf_config.read(folder / CONFIG), weights.from_folder(folder)


def _described(
    config: CaduceusConfig, tensors: Any, heads: list[str], task: TaskDescription | None
) -> dict[str, Any]:
    """Returns the `config.json` of a model with these heads."""
    hf = config.to_hf()
    if "score" in heads:
        task = task or TaskDescription.of(hf)
        hf = task.in_hf(hf, len(tensors["score.weight"]))
        hf["architectures"] = ["CaduceusForSequenceClassification"]
    else:
        hf["architectures"] = ["CaduceusForMaskedLM" if heads else "Caduceus"]
        hf.pop(KEY, None)
    return hf


def _assembled(
    path: Path,
    hf: dict[str, Any],
    found: weights.Checkpoint,
    folder: pathlib.Path | None,
) -> StoredModel:
    """Reconciles a config with tensors, and names the file if they do not fit."""
    where = [f"under the key {found.container!r}"] if found.container else []
    try:
        tensors, prefix = tensor_names.canonical(found.tensors)
        where += [f"after the prefix {prefix!r}"] if prefix else []
        if where:
            log.info("%s: the model's tensors are found %s", path, ", ".join(where))
        found = found._replace(tensors=tensors)
        if hf:
            config = CaduceusConfig.from_hf(_completed(hf, found))
        else:
            config = convert.infer_config(found.tensors, found.settings)
        config, tensors = convert.reconcile(config, tensors)
        state = convert.from_torch(config, tensors)
    except UserError as error:
        at = f" ({', '.join(where)})" if where else ""
        raise UserError(f"{path}{at}: {error}") from None
    tokenizer = _tokenizer(folder, config)
    return StoredModel(config, state, tokenizer, TaskDescription.recorded(hf), hf, folder)


def _adapted(path: Path, folder: pathlib.Path, base: Path | None) -> StoredModel:
    """Returns the base model of an adapter, with the adapter merged into it."""
    adapter = lora.read(folder)
    if not (base or adapter.base):
        raise UserError(f"{path} is an adapter and does not name its base model: pass base")
    stored = open_model(base or adapter.base)
    hf = hf_config.read(folder / CONFIG) if (folder / CONFIG).is_file() else stored.hf
    tied = stored.config.bidirectional and stored.config.bidirectional_weight_tie
    log.info("%s: the adapter is merged into %s", path, base or adapter.base)
    try:
        tensors = lora.merge(convert.to_torch(stored.config, stored.state), adapter, tied=tied)
        with warnings.catch_warnings():
            # Such an adapter unties the directions on purpose: no warning is due.
            warnings.simplefilter("ignore", UserWarning)
            config, tensors = convert.reconcile(CaduceusConfig.from_hf(hf), tensors)
        state = convert.from_torch(config, tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    own = any((folder / name).is_file() for name in tokenizer_files.NAMES)
    tokenizer = _tokenizer(folder, config) if own else stored.tokenizer
    return StoredModel(config, state, tokenizer, TaskDescription.recorded(hf), hf, folder)


def _completed(hf: dict[str, Any], found: weights.Checkpoint) -> dict[str, Any]:
    """Returns the config, with what it leaves out and the tensors tell."""
    hf = hf_config.normalised(hf)
    told = ("d_model", "n_layer", "vocab_size", "rcps", "rms_norm", "bidirectional")
    absent = [key for key in (*told, "complement_map") if hf.get(key) is None]
    if not absent:
        return hf
    try:
        inferred = convert.infer_config(found.tensors)
    except UserError:
        return hf
    if "complement_map" in absent and inferred.rcps:
        hf["complement_map"] = {str(i): c for i, c in enumerate(inferred.complement_map)}
    return hf | {key: getattr(inferred, key) for key in absent if key in told}


def _tokenizer(folder: pathlib.Path | None, config: CaduceusConfig) -> Tokenizer | None:
    if folder is None:
        return Tokenizer.of_config(config)
    try:
        return Tokenizer.from_pretrained(folder)
    except UserError:
        # A model can be used without; who asks for its tokenizer alone hears what is wrong.
        return None


def _run(path: pathlib.Path) -> StoredModel | None:
    """Reads the model of an unfinished run, or of one of its checkpoints; else None."""
    if (path / RUN_MODEL / CONFIG).is_file() or (path / CONFIG).is_file():
        return None
    if not any((path / name).exists() for name in _RUN_FILES):
        return None
    # Imported here: only runs need Orbax.
    from caduceus_jax.model import run_checkpoint

    checkpoint = run_checkpoint.find(path)
    if checkpoint is None:
        raise UserError(f"{path} holds no checkpoint yet: wait for the run to save one")
    config, state = run_checkpoint.load_model(checkpoint)
    state = jax.tree.map(np.asarray, state)
    return StoredModel(config, state, _tokenizer(checkpoint, config), None, {}, path)
