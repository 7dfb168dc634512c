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

from caduceus_jax.model.heads import CaduceusForSequenceClassification
from caduceus_jax.model.losses import classification_loss
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.finetuning.lora import Arrays, partition_params
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.sharding import BATCH, sharded_scan

Batch = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TuningState:
    """All that a step changes."""

    step: Int[Array, ""]
    trained: dict[str, Arrays]
    opt_state: Any


Model = CaduceusForSequenceClassification | CaduceusForTracks


class FinetuneProgram(NamedTuple):
    """What a fine-tuning computes with one seed."""

    state: TuningState  # before the first step
    frozen: Arrays
    train_step: Callable[[TuningState, Arrays, Batch], tuple[TuningState, dict[str, jax.Array]]]
    predict: Callable[[dict[str, Arrays], Arrays, Batch], jax.Array]
    export: Callable[[dict[str, Arrays]], Model]


def make_finetune_program(
    config: FinetuneConfig, task: Task, mesh: Mesh, *, seed: int, steps: int
) -> FinetuneProgram:
    """Model, optimizer and steps of a fine-tuning on these devices.

    The schedule's rates are those of `optimizer.make_optimizer`. Metrics of a step: `loss` (the
    mean over the batch's examples), `grad_norm` (before clipping) and `lr`. Predictions are (batch,
    outputs) float32 logits or values, or (batch, bins, tracks); with rc_mode "posthoc" the mean
    over both strands. Values are learnt in units of `label_scale`, and predicted in their own.

    Args:
        config: the fine-tuning.
        task: kind and number of outputs.
        mesh: the devices; the rows of a batch are shared among them.
        seed: of a new head.
        steps: length of the learning rate's schedule.

    Raises:
        UserError: no usable model, or settings that contradict it.
    """
    build = _builder(config, task, mesh, seed)
    model = build(None)
    params = nnx.state(model, nnx.Param)
    tuning = partition_params(params, config, seed)
    read = _function(build(None))
    answer = _function(build("posthoc" if config.rc_mode == "posthoc" else None))
    optimizer = make_optimizer(config.optimizer, steps)
    schedule = make_schedule(config.optimizer, steps)
    masked = config.protocol == "clean"
    centre, scale = label_scale(task)

    def like(values: np.ndarray, array: jax.Array) -> jax.Array:
        return jnp.broadcast_to(values, array.shape)

    state = TuningState(jnp.zeros((), jnp.int32), tuning.trained, optimizer.init(tuning.trained))
    everywhere = NamedSharding(mesh, P())
    state, frozen = jax.device_put((state, tuning.frozen), everywhere)

    def train_step(state: TuningState, frozen: Arrays, batch: Batch):
        def loss_fn(trained):
            mask = batch["padding_mask"] if masked else None
            params = tuning.combine(frozen, trained)
            outputs = read(params, batch["input_ids"], mask, batch.get("signals"))
            labels = batch["labels"]
            if task.kind != "classification":
                labels = (labels - like(centre, labels)) / like(scale, labels)
            return mean_loss(outputs, labels, batch["weights"], task)

        loss, grads = jax.value_and_grad(loss_fn)(state.trained)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "lr": schedule(state.step),
        }
        trained: Any = optax.apply_updates(state.trained, updates)
        return TuningState(state.step + 1, trained, opt_state), metrics

    def predict(trained: dict[str, Arrays], frozen: Arrays, batch: Batch) -> jax.Array:
        mask = batch["padding_mask"] if masked else None
        params = tuning.combine(frozen, trained)
        outputs = answer(params, batch["input_ids"], mask, batch.get("signals"))
        return outputs * like(scale, outputs) + like(centre, outputs)

    def export(trained: dict[str, Arrays]) -> Model:
        finished = build(None)
        nnx.update(finished, jax.device_get(tuning.combine(tuning.frozen, trained)))
        return finished

    return FinetuneProgram(state, frozen, jax.jit(train_step), jax.jit(predict), export)


def label_scale(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the training values, (values,); 0 and 1 of classes.

    The head has no bias: around their mean, values need none.
    """
    if task.kind == "classification":
        return np.zeros((), np.float32), np.ones((), np.float32)
    values = task.train.labels.reshape(-1, len(task.classes)).astype(np.float64)
    spread = values.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    return values.mean(axis=0).astype(np.float32), spread.astype(np.float32)


def mean_loss(
    outputs: Float[Array, "batch ..."], labels: Array, weights: Array, task: Task
) -> Float[Array, ""]:
    """The loss of the examples that count, averaged."""
    values = task.kind != "classification"
    problem = "regression" if values else "single_label_classification"

    def one(output, label):
        return classification_loss(
            output.reshape(1, -1), label.reshape(1, -1) if values else label[None], problem
        )

    losses = jax.vmap(one)(outputs, labels)
    return jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1)


def put(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
    """The rows of a batch on the devices that share it."""
    rows = NamedSharding(mesh, P(BATCH[0]))
    return {name: jax.device_put(array, rows) for name, array in batch.items()}


def _builder(
    config: FinetuneConfig, task: Task, mesh: Mesh, seed: int
) -> Callable[[Literal["posthoc"] | None], Model]:
    """Makes the model, the same for the same arguments."""
    tracks = task.kind == "tracks"
    made: Any = CaduceusForTracks if tracks else CaduceusForSequenceClassification
    outputs = len(task.classes)
    form = {
        "num_labels": outputs,
        "pooling": config.pooling,
        "num_signals": task.num_signals,
    }
    if tracks:
        form = {"num_tracks": outputs, "bin_size": task.bin_size}

    def build(rc_mode: Literal["posthoc"] | None) -> Model:
        common: dict[str, Any] = {
            **form,
            "rc_mode": rc_mode,
            "dtype": jnp.dtype(config.dtype),
            "remat": config.remat,
            "scan": sharded_scan(mesh),
            "rngs": nnx.Rngs(seed),
        }
        if config.model:
            return made.from_pretrained(config.model, **common)
        return made(config.architecture, **common)

    return build


def _function(model: Model) -> Callable[..., jax.Array]:
    """(params, input_ids, padding_mask, signals) -> outputs."""
    graphdef, _ = nnx.split(model, nnx.Param)

    def call(params: nnx.State, ids: jax.Array, mask: Any, signals: Any) -> jax.Array:
        known = {} if signals is None else {"signals": signals}
        return nnx.merge(graphdef, params)(ids, mask, **known).logits

    return call
