"""One step of fine-tuning, and predictions, as pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import CaduceusForSequenceClassification
from caduceus_jax.model.linear_head import LinearHead, new_head_of, new_signals
from caduceus_jax.model.losses import ProblemType, classification_loss
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.finetuning.lora import Arrays, partition_params
from caduceus_jax.train.finetuning.start import Start
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.sharding import BATCH, sharded_scan

Batch = dict[str, jax.Array]
Trained = dict[str, Arrays]  # "whole" parameters, and "low_rank" factors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TuningState:
    """Holds all that a step changes."""

    step: Int[Array, ""]
    trained: Trained
    opt_state: Any


class FinetuneProgram(NamedTuple):
    """Holds the functions of fine-tuning; all seeds share them, so that they are compiled once."""

    init: Callable[[int], tuple[TuningState, Arrays]]  # seed -> state, frozen parameters
    train_step: Callable[[TuningState, Arrays, Batch], tuple[TuningState, dict[str, jax.Array]]]
    predict: Callable[[Trained, Arrays, Batch], jax.Array]
    export: Callable[[Trained, Arrays], LinearHead]


def make_finetune_program(
    config: FinetuneConfig, task: Task, start: Start, mesh: Mesh, *, steps: int
) -> FinetuneProgram:
    """Makes model, optimizer and steps of a fine-tuning on these devices.

    Metrics of a step: `loss` (the mean over the batch's examples), `grad_norm` (before clipping)
    and `lr`. Predictions are (batch, outputs) float32 logits or values, or (batch, bins, tracks);
    with rc_mode "posthoc" the mean over both strands. Values are learnt in units of the training
    values' spread, and predicted in their own.

    Args:
        config: the settings.
        task: kind and number of outputs.
        start: the model that is tuned.
        mesh: the devices; the rows of a batch are shared among them.
        steps: length of the learning rate's schedule.
    """
    optimizer = make_optimizer(config.optimizer, steps)
    schedule = make_schedule(config.optimizer, steps)
    masked = config.protocol == "clean"
    positive = _positive_weights(config, task)
    read = _function(config, task, start, mesh, None)
    both: Literal["posthoc"] | None = "posthoc" if start.answers_for_both_strands else None
    answer = _function(config, task, start, mesh, both)
    shape = nnx.state(_shell(config, task, start, mesh, None), nnx.Param)
    combine = partition_params(shape, config, 0).combine

    def init(seed: int) -> tuple[TuningState, Arrays]:
        """Makes the state before the first step."""
        tuning = partition_params(_params(config, task, start, mesh, seed), config, seed)
        state = TuningState(
            jnp.zeros((), jnp.int32), tuning.trained, optimizer.init(tuning.trained)
        )
        return jax.device_put((state, tuning.frozen), NamedSharding(mesh, P()))

    def call(
        function: Callable[..., jax.Array], trained: Trained, frozen: Arrays, batch: Batch
    ) -> jax.Array:
        """Runs a model on a batch."""
        mask = batch["padding_mask"] if masked else None
        params = combine(frozen, trained)
        return function(params, batch["input_ids"], mask, batch.get("signals"))

    def train_step(
        state: TuningState, frozen: Arrays, batch: Batch
    ) -> tuple[TuningState, dict[str, jax.Array]]:
        """Takes one step of the optimizer."""

        def loss_fn(trained: Trained) -> jax.Array:
            """Returns the mean loss of a batch."""
            outputs, labels = call(read, trained, frozen, batch), batch["labels"]
            if task.kind in ("regression", "tracks"):
                labels = (labels - _like(start.centre, labels)) / _like(start.scale, labels)
            return mean_loss(outputs, labels, batch["weights"], task, positive)

        loss, grads = jax.value_and_grad(loss_fn)(state.trained)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        trained: Any = optax.apply_updates(state.trained, updates)
        return TuningState(state.step + 1, trained, opt_state), metrics

    def predict(trained: Trained, frozen: Arrays, batch: Batch) -> jax.Array:
        """Returns outputs in the units of the labels."""
        outputs = call(answer, trained, frozen, batch)
        return outputs * _like(start.scale, outputs) + _like(start.centre, outputs)

    def export(trained: Trained, frozen: Arrays) -> LinearHead:
        """Returns the fine-tuned model."""
        model = _shell(config, task, start, mesh, None)
        nnx.update(model, jax.tree.map(jnp.asarray, jax.device_get(combine(frozen, trained))))
        return model

    return FinetuneProgram(init, jax.jit(train_step), jax.jit(predict), export)


def describe(config: FinetuneConfig, task: Task, start: Start) -> TaskDescription:
    """Describes what the outputs of the tuned model mean; it is stored with the model."""
    values = task.kind in ("regression", "tracks")
    return TaskDescription(
        kind=task.kind,
        max_length=task.max_length,
        pooling=start.pooling,
        rc_mode="posthoc" if start.answers_for_both_strands else None,
        padded=config.protocol == "paper",
        centre=tuple(map(float, start.centre)) if values else (),
        scale=tuple(map(float, start.scale)) if values else (),
        bin_size=task.bin_size,
        labels=task.classes,
    )


def mean_loss(
    outputs: Float[Array, "batch ..."],
    labels: Array,
    weights: Array,
    task: Task,
    positive: np.ndarray | None = None,
) -> Float[Array, ""]:
    """Averages the loss over the examples that count.

    Args:
        outputs: the model's outputs.
        labels: (batch,) class ids, or like the outputs.
        weights: (batch,) 1, or 0 for rows that only fill.
        task: its kind chooses the loss.
        positive: (classes,) weight of the examples of each class; of several labels, the weight of
            the positive examples of each; None weights all alike.
    """
    problem: ProblemType = {
        "classification": "single_label_classification",
        "multi_label": "multi_label_classification",
    }.get(task.kind, "regression")  # pyright: ignore[reportAssignmentType]
    single = task.kind == "classification"
    if task.kind == "multi_label" and positive is not None:
        log_p, log_q = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
        factor = _like(positive, labels)
        losses = -jnp.mean(factor * labels * log_p + (1 - labels) * log_q, axis=1)
    else:
        if single and positive is not None:
            weights = weights * jnp.asarray(positive)[labels]

        def one(output: jax.Array, label: jax.Array) -> jax.Array:
            label = label[None] if single else label.reshape(1, -1)
            return classification_loss(output.reshape(1, -1), label, problem)

        losses = jax.vmap(one)(outputs, labels)
    total = jnp.sum(weights)
    return jnp.sum(losses * weights) / jnp.where(total > 0, total, 1)


def put(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """Puts the rows of a batch on the devices that share it."""
    rows = NamedSharding(mesh, P(BATCH[0]))
    return {name: jax.device_put(array, rows) for name, array in batch.items() if name != "rows"}


def _like(values: np.ndarray, array: jax.Array) -> jax.Array:
    return jnp.broadcast_to(values, array.shape)


def _positive_weights(config: FinetuneConfig, task: Task) -> np.ndarray | None:
    """Returns weights that make every class, or both sorts of every label, count alike."""
    if config.class_weights == "none":
        return None
    labels = task.train.labels
    if task.kind == "multi_label":
        share = np.clip(labels.mean(axis=0), 1 / len(labels), 1 - 1 / len(labels))
        return ((1 - share) / share).astype(np.float32)
    counts = np.bincount(labels, minlength=len(task.classes))
    return (len(labels) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def _shell(
    config: FinetuneConfig,
    task: Task,
    start: Start,
    mesh: Mesh,
    rc_mode: Literal["posthoc"] | None,
) -> LinearHead:
    """Makes the model without allocating its parameters."""
    return nnx.eval_shape(lambda: _make(config, task, start, mesh, rc_mode, nnx.Rngs(0)))


def _make(
    config: FinetuneConfig,
    task: Task,
    start: Start,
    mesh: Mesh,
    rc_mode: Literal["posthoc"] | None,
    rngs: nnx.Rngs,
) -> LinearHead:
    common: dict[str, Any] = {
        "rc_mode": rc_mode,
        "labels": task.classes,
        "dtype": jnp.dtype(config.dtype),
        "remat": config.remat,
        "scan": sharded_scan(mesh),
        "num_signals": task.num_signals,
        "tokenizer": start.tokenizer,
        "rngs": rngs,
    }
    if task.kind == "tracks":
        tracks = len(task.classes)
        return CaduceusForTracks(
            start.architecture, num_tracks=tracks, bin_size=task.bin_size, **common
        )
    kind = TaskDescription(kind=task.kind)
    return CaduceusForSequenceClassification(
        start.architecture,
        num_labels=len(task.classes),
        pooling=start.pooling,
        head_bias=_has_bias(start),
        task=kind,
        **common,
    )


def _has_bias(start: Start) -> bool:
    return start.reuses_head and start.stored is not None and "score_bias" in start.stored.state


def _params(config: FinetuneConfig, task: Task, start: Start, mesh: Mesh, seed: int) -> nnx.State:
    """Returns the parameters that a seed begins with: the stored ones, or random ones."""
    rngs = nnx.Rngs(seed)
    if start.stored is None:
        return nnx.state(_make(config, task, start, mesh, None, rngs), nnx.Param)
    flat = {tuple(path): leaf for path, leaf in nnx.to_flat_state(start.stored.state)}
    kept = {"caduceus", "signals"} | ({"score", "score_bias"} if start.reuses_head else set())
    flat = {path: leaf for path, leaf in flat.items() if path[0] in kept}
    if ("score",) not in flat:
        flat[("score",)] = new_head_of(start.architecture, len(task.classes), rngs)
    signals = flat.get(("signals",))
    if task.num_signals and (signals is None or len(signals) != task.num_signals):
        flat[("signals",)] = new_signals(start.architecture, task.num_signals)
    if not task.num_signals:
        flat.pop(("signals",), None)
    model = _shell(config, task, start, mesh, None)
    nnx.update(model, nnx.from_flat_state(list(flat.items())))
    return nnx.state(model, nnx.Param)


def _function(
    config: FinetuneConfig,
    task: Task,
    start: Start,
    mesh: Mesh,
    rc_mode: Literal["posthoc"] | None,
) -> Callable[..., jax.Array]:
    """Makes the function (params, input_ids, padding_mask, signals) -> outputs."""
    graphdef, _ = nnx.split(_shell(config, task, start, mesh, rc_mode), nnx.Param)

    def call(params: nnx.State, ids: jax.Array, mask: Any, signals: Any) -> jax.Array:
        known = {} if signals is None else {"signals": signals}
        return nnx.merge(graphdef, params)(ids, mask, **known).logits

    return call
