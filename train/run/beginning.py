"""The starting point of a run: random weights, or those of another model."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from caduceus_jax.errors import UserError
from caduceus_jax.model import run_checkpoint
from caduceus_jax.model.checkpoint import StoredModel, open_model
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.recorded import read_config
from caduceus_jax.train.run.checkpoint import read_state
from caduceus_jax.train.sharding import abstract, init_sharded
from caduceus_jax.train.stages import restart_schedule
from caduceus_jax.train.step import TrainState

RECORDED = "config.yaml"
TOKENIZER = "tokenizer"  # folder of the run
T = TypeVar("T")


class Beginning(NamedTuple):
    """Holds the settings of a run, its own architecture included, and the origin of its weights."""

    config: PretrainConfig
    tokenizer: Tokenizer
    stored: StoredModel | None  # None: random weights, or those of the run's own checkpoint


def begin(config: PretrainConfig, folder: pathlib.Path) -> Beginning:
    """Settles the architecture and the tokenizer of a run.

    A run that continues has those that it began with; the model that `init` names is not read
    again, and need not be there any more.

    Args:
        config: the settings.
        folder: the run's folder.

    Raises:
        UserError: the model does not exist, it has no language-model head, or settings contradict
            it.
    """
    begun = processes.broadcast_from_first(
        "whether the run has begun",
        lambda: bool(run_checkpoint.steps(folder / run_checkpoint.CHECKPOINTS)),
    )
    if not config.init:
        tokenizer = Tokenizer()
        check_vocabulary(config.model, tokenizer)
        return Beginning(config, tokenizer, None)
    if begun and (folder / RECORDED).is_file() and (folder / TOKENIZER).is_dir():
        fields: dict[str, Any] = read_config(folder / RECORDED)["model"]
        fields = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
        architecture, stored = CaduceusConfig(**fields), None
        tokenizer = Tokenizer.from_pretrained(folder / TOKENIZER)
    else:
        stored = open_model(config.init)
        architecture, found = stored.config, stored.tokenizer
        if found is None:
            raise UserError(
                f"{config.init} has no tokenizer files, and its vocabulary is not the original's: "
                "copy tokenizer.json of the model that it came from there"
            )
        tokenizer = found
        if "lm_head" not in stored.state and not architecture.tie_word_embeddings:
            raise UserError(f"{config.init} has no language-model head to pretrain")
    # Where the weights came from does not change what is computed with them.
    architecture = dataclasses.replace(architecture, hf_json="")
    if config.model not in (PretrainConfig.model, architecture):
        raise UserError(
            f"init is {config.init}, which has an architecture of its own: leave model out, "
            "and a recipe that sets it"
        )
    config = dataclasses.replace(config, model=architecture)
    config.check_strands()
    return Beginning(config, tokenizer, stored)


def check_vocabulary(model: CaduceusConfig, tokenizer: Tokenizer) -> None:
    """Checks that a model has the tokens that the data will have.

    Raises:
        UserError: the model lacks a token, or has another complement map or padding token.
    """
    size, complement = tokenizer.vocab_size, tuple(tokenizer.complement.tolist())
    if model.vocab_size < size:
        raise UserError(f"model.vocab_size is {model.vocab_size}, but there are {size} tokens")
    if model.pad_token_id != tokenizer.pad_id or model.complement_map[:size] != complement:
        raise UserError(
            "model.pad_token_id and model.complement_map must be those of the tokenizer: leave "
            "them out"
        )


def first_state(beginning: Beginning, init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Makes the state before the first step, each array where it will live.

    Args:
        beginning: the starting point, with the origin of the weights.
        init: makes a state with random weights.
        mesh: the devices.

    Raises:
        UserError: the optimizer's state is asked for, and is not there or of another model.
    """
    state = init_sharded(init, mesh)
    config, stored = beginning.config, beginning.stored
    if stored is None:
        return state
    flat = {tuple(path): leaf for path, leaf in nnx.to_flat_state(stored.state)}

    def place(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        """Reads a parameter onto its devices."""
        array = np.asarray(flat[tuple(_key(part) for part in path if _key(part) != "value")][...])
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda part: array[part].astype(leaf.dtype)
        )

    params = jax.tree_util.tree_map_with_path(place, state.params)
    ema = None if state.ema is None else jax.tree.map(lambda x: x.copy(), params)
    state = dataclasses.replace(state, params=params, ema=ema)
    if config.init_optimizer:
        state = dataclasses.replace(
            state, opt_state=_stored_optimizer(config, abstract(init, mesh))
        )
    return state


def _key(part: Any) -> Any:
    return getattr(part, "key", getattr(part, "name", getattr(part, "idx", None)))


def _stored_optimizer(config: PretrainConfig, like: TrainState) -> Any:
    """Reads the optimizer's state of a run's checkpoint; its schedule starts over."""
    path = pathlib.Path(config.init)
    checkpoint = run_checkpoint.find(path) if path.is_dir() else None
    if checkpoint is None:
        raise UserError(
            f"init_optimizer is set, but {config.init} is not a run or one of its checkpoints"
        )
    return restart_schedule(read_state(checkpoint, like).opt_state)
