"""Low-rank changes as an adapter in the layout of PEFT: adapter_config.json, adapter_model."""

import pathlib

import jax

from caduceus_jax.model import checkpoint
from caduceus_jax.model.linear_head import LinearHead
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.start import Start


def save_adapter(
    folder: pathlib.Path,
    config: FinetuneConfig,
    start: Start,
    model: LinearHead,
    trained: dict[str, dict[str, jax.Array]],
) -> None:
    """Writes the low-rank factors and the head, for the PyTorch model that they belong to.

    The change of a projection that two modules of the original share is stored once: a merge in
    PEFT adds to the shared weight as often as there are changes of it.

    Args:
        folder: made if it does not exist.
        config: rank and scale of the changes, and the base model's name.
        start: the model that was tuned.
        model: the tuned model, whose parameters have the original's names.
        trained: "low_rank" factors by parameter, and "whole" parameters.
    """
    checkpoint.save_adapter(
        folder,
        start.architecture,
        jax.device_get(trained["low_rank"]),
        {"score": model.score[...]},
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        base=config.model,
        tokenizer=model.tokenizer,
        task=model.task,
    )
