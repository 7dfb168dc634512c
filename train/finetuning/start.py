"""The starting point of fine-tuning: a stored model, read once for all seeds, or none."""

import logging
from typing import Literal, NamedTuple

import numpy as np

from caduceus_jax.errors import UserError
from caduceus_jax.model.checkpoint import StoredModel, open_model
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import Pooling
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Task

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Holds the model that every seed begins with, and what is recorded of it."""

    architecture: CaduceusConfig
    tokenizer: Tokenizer
    stored: StoredModel | None  # None: random weights
    reuses_head: bool  # the stored head is for the labels of the task, in their order
    pooling: Pooling
    rc_mode: Literal["none", "augment", "posthoc", "equivariant"]
    centre: np.ndarray  # (outputs,) value that an output of 0 stands for
    scale: np.ndarray  # (outputs,) size of a step of 1 in an output

    @property
    def answers_for_both_strands(self) -> bool:
        """Tells whether predictions average both strands of a model that reads one."""
        return self.rc_mode == "posthoc"

    @property
    def augments(self) -> bool:
        """Tells whether training sequences are taken from either strand."""
        return self.rc_mode in ("augment", "posthoc")


def read_start(config: FinetuneConfig, task: Task) -> Start:
    """Reads the model, and settles what the settings leave to it.

    Pooling and rc_mode are those recorded with a fine-tuned model unless they are given. Its head
    is used if it is for the labels of the task, in their order, and drawn anew otherwise.

    Args:
        config: the settings.
        task: the task to learn.

    Raises:
        UserError: the model cannot be used, or settings contradict it.
    """
    stored = open_model(config.model) if config.model else None
    architecture = config.architecture if stored is None else stored.config
    tokenizer = stored.tokenizer if stored else Tokenizer.of_config(architecture)
    if tokenizer is None:
        raise UserError(
            f"{config.model or 'architecture'} has no tokenizer files, and its vocabulary is not "
            "the original's: copy tokenizer.json of the model that it came from there"
        )
    recorded = stored.task if stored else None
    rc_mode = _rc_mode(config, architecture, recorded)
    head = TaskDescription.of(stored.hf) if stored and recorded is None else recorded
    reuses = _reuses_head(config, task, stored, head)
    centre, scale = label_scale(task)
    if reuses and head is not None and head.scale:
        centre = np.asarray(head.centre, np.float32)
        scale = np.asarray(head.scale, np.float32)
    pooling = config.pooling or (recorded.pooling if recorded and reuses else "mean")
    return Start(architecture, tokenizer, stored, reuses, pooling, rc_mode, centre, scale)


def label_scale(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation of the training values, (values,); 0 and 1 of labels.

    The head has no bias: around their mean, values need none.
    """
    if task.kind in ("classification", "multi_label"):
        return np.zeros((), np.float32), np.ones((), np.float32)
    values = task.train.labels.reshape(-1, len(task.classes)).astype(np.float64)
    spread = values.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    return values.mean(axis=0).astype(np.float32), spread.astype(np.float32)


def _rc_mode(
    config: FinetuneConfig, architecture: CaduceusConfig, recorded: TaskDescription | None
) -> Literal["none", "augment", "posthoc", "equivariant"]:
    what = config.model or "architecture"
    if config.rc_mode is None:
        if architecture.rcps:
            return "equivariant"
        if recorded is not None:
            return recorded.rc_mode or "none"
        raise UserError(
            f"rc_mode is not given, and {what} is not equivariant: use rc_mode posthoc, augment or "
            "none"
        )
    if architecture.rcps != (config.rc_mode == "equivariant"):
        kind = "reads both strands by construction" if architecture.rcps else "is not equivariant"
        use = "equivariant" if architecture.rcps else "posthoc, augment or none"
        raise UserError(f"rc_mode is {config.rc_mode}, but {what} {kind}: use rc_mode {use}")
    return config.rc_mode


def _reuses_head(
    config: FinetuneConfig,
    task: Task,
    stored: StoredModel | None,
    head: TaskDescription | None,
) -> bool:
    """Decides whether the stored head is used, and says so where it is replaced."""
    if stored is None or "score" not in stored.state or head is None:
        return False
    outputs = stored.state["score"].shape[0]
    same = head.kind == task.kind and head.labels == task.classes and outputs == len(task.classes)
    if same and not config.new_head:
        log.info(f"the head of {config.model} is used, for {', '.join(task.classes)}")
        return True
    reason = (
        "new_head is set"
        if same
        else f"it is for {head.kind} of {', '.join(head.labels) or f'{outputs} unnamed outputs'}, "
        f"and this task is {task.kind} of {', '.join(task.classes)}"
    )
    log.warning(f"the head of {config.model} is replaced by a new one: {reason}")
    return False
