"""Tasks that a model is scored on while it is trained: a linear probe of its frozen embeddings."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from sklearn.preprocessing import StandardScaler

from caduceus_jax.configs import resolve_data
from caduceus_jax.errors import UserError
from caduceus_jax.inference import embed
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Examples, Task, split
from caduceus_jax.train.finetuning.metrics import better, score
from caduceus_jax.train.finetuning.probe import STRENGTHS, fit
from caduceus_jax.train.tasks.tables import read_task, tables_of_folder

SHIPPED = "splice"  # splice junctions, in configs/data
_TABLE = "configs/data/splice_junctions_{}.csv.gz"


class _Split(NamedTuple):
    """A task with its validation part, which chooses the strength of the penalty."""

    task: Task
    train: Examples
    validation: Examples


class EvalTasks:
    """Scores a model in training on a few tasks; no weight of the model is changed.

    Every process reads the tables, so that one that is missing is noticed before the first step;
    process 0 computes the scores.

    Args:
        names: `splice`, or folders with tables train, test and perhaps validation.

    Raises:
        UserError: a task cannot be read, or two have the same name.
    """

    def __init__(self, names: Sequence[str]):
        self._tasks: dict[str, _Split] = {}
        for name in names:
            path = pathlib.Path(name)
            if path.name in self._tasks:
                raise UserError(f"eval_tasks has two tasks named {path.name}: rename a folder")
            task = read_task(_tables(name))
            train, validation = task.train, task.validation
            if validation is None:
                train, validation = split(train, 0.1, 0)
            self._tasks[path.name] = _Split(task, train, validation)

    def scores(
        self, config: CaduceusConfig, params: nnx.State, tokenizer: Tokenizer
    ) -> dict[str, float]:
        """Scores a linear model of mean-pooled states, averaged over both strands, on each task.

        All processes call this together.

        Args:
            config: settings of the model.
            params: its parameters, wherever they live.
            tokenizer: letters to token ids.

        Returns:
            The test score of each task, such as "probe_accuracy/splice"; in process 0 only.
        """
        if not self._tasks:
            return {}
        if processes.count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
            if processes.index() != 0:
                return {}
        graphdef, _ = nnx.split(
            nnx.eval_shape(lambda: CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))), nnx.Param
        )
        model = nnx.merge(graphdef, jax.tree.map(np.asarray, params))
        return dict(_scored(name, task, model, tokenizer) for name, task in self._tasks.items())


def _tables(name: str) -> LabelledConfig:
    """Returns the tables of a task."""
    if name == SHIPPED:
        train, validation, test = map(_TABLE.format, ("train", "validation", "test"))
        return LabelledConfig(train=train, validation=validation, test=test)
    folder = resolve_data(name)
    if not folder.is_dir():
        raise UserError(
            f"eval_tasks has {name}, which is not {SHIPPED} or a folder with tables train and test"
        )
    return tables_of_folder(LabelledConfig(), folder)


def _scored(name: str, given: _Split, model: Any, tokenizer: Tokenizer) -> tuple[str, float]:
    """Fits a probe of each strength, and scores on the test part the one that validates best."""
    task = given.task

    def features(examples: Examples) -> np.ndarray:
        cut = [sequence[: task.max_length] for sequence in examples.sequences]
        return embed(model, cut, tokenizer=tokenizer)

    scaler = StandardScaler()
    inputs = np.asarray(scaler.fit_transform(features(given.train)))
    held, test = (scaler.transform(features(part)) for part in (given.validation, task.test))
    best: tuple[float, float] | None = None
    for strength in STRENGTHS:
        weight, bias = fit(inputs, given.train.labels, task, strength, "none")
        validated, tested = (
            score(rows @ weight.T + bias, part.labels, task.kind)[task.metric]
            for rows, part in ((held, given.validation), (test, task.test))
        )
        if better(validated, best[0] if best else None, task.metric):
            best = validated, tested
    return f"probe_{task.metric}/{name}", float("nan") if best is None else best[1]
