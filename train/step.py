"""One step of training, and of validation, as pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from caduceus_jax.kernels.options import Implementation
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.losses import masked_lm_sums
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import StepConfig
from caduceus_jax.train.gradients import summed, summed_gradients
from caduceus_jax.train.guards import Guard, init_guard, should_apply
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.sharding import (
    gather_layers,
    keep_places,
    path_name,
    sharded_conv,
    sharded_scan,
)

Batch = dict[str, jax.Array]  # input_ids, labels int32 and weights float32, all (batch, length)
Metrics = dict[str, jax.Array]  # scalars


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Holds all that a step changes.

    Args:
        step: number of steps done.
        params: the model's parameters.
        opt_state: the optimizer's state.
        guard: the memory of the guard that skips steps.
        ema: running mean of the parameters; None if there is none.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    guard: Guard
    ema: Any = None

    @property
    def averaged(self) -> Any:
        """The parameters that are validated and exported."""
        return self.params if self.ema is None else self.ema


def init_state(
    params: Any, optimizer: optax.GradientTransformation, *, averages: bool = False
) -> TrainState:
    """Makes the state before the first step.

    Args:
        params: the parameters.
        optimizer: changes them.
        averages: keep a running mean of them too.
    """
    # An array of its own: a step consumes its state, and cannot consume an array twice.
    ema = jax.tree.map(jnp.copy, params) if averages else None
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), init_guard(), ema)


class Program(NamedTuple):
    """Holds the functions that a run computes; nothing is allocated yet."""

    graphdef: nnx.GraphDef
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[Any, Batch], Metrics]


def make_program(
    config: StepConfig,
    mesh: Mesh,
    tokenizer: Tokenizer,
    implementation: Implementation = None,
) -> Program:
    """Makes the model, the optimizer and the steps of a run on these devices.

    Args:
        config: the settings of the run.
        mesh: the devices.
        tokenizer: the vocabulary.
        implementation: implementation of the scan and the convolution; by default the one that
            `config` names.
    """
    if implementation is None and config.scan != "auto":
        implementation = config.scan
    operations = {
        "scan": sharded_scan(mesh, implementation),
        "conv": sharded_conv(mesh, implementation),
    }
    optimizer = make_optimizer(config.optimizer, config.steps)

    def model() -> CaduceusForMaskedLM:
        """Makes a model with random parameters."""
        return CaduceusForMaskedLM(
            config.model,
            dtype=jnp.dtype(config.dtype),
            remat="scans" if config.remat == "scans" else config.remat == "blocks",
            rngs=nnx.Rngs(config.seed),
            **operations,
        )

    shell = nnx.eval_shape(model)
    shell.caduceus.gather = gather_layers(nnx.state(shell, nnx.Param), mesh, config.dtype)

    def init() -> TrainState:
        """Makes the state before the first step."""
        params = nnx.state(model(), nnx.Param)
        return init_state(params, optimizer, averages=config.ema_decay is not None)

    graphdef, _ = nnx.split(shell, nnx.Param)
    schedule = make_schedule(config.optimizer, config.steps)
    train_step = make_train_step(
        graphdef,
        optimizer,
        schedule,
        tokenizer,
        config.spike_sigma,
        mesh=mesh,
        microbatches=config.microbatches,
        ema_decay=config.ema_decay,
        z_loss=config.z_loss,
        layer_norms=config.layer_norms,
    )
    return Program(graphdef, init, train_step, make_eval_step(graphdef, tokenizer, mesh))


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    tokenizer: Tokenizer,
    sigma: float | None = None,
    *,
    mesh: Mesh | None = None,
    microbatches: int = 1,
    ema_decay: float | None = None,
    z_loss: float = 0.0,
    layer_norms: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Makes the jitted function (state, batch) -> (state, metrics), which consumes its state.

    Metrics: `loss` (nats per predicted base, weighted), `masked_loss` and `masked_accuracy` (at
    the bases replaced by [MASK]), `grad_norm` (before clipping), `lr`, `skipped` (1 if this step
    was), `skipped_in_all` and `skipped_in_a_row`.

    A step that is skipped changes only `step` and `guard`: the parameters and the optimizer's
    state, its count of steps included, stay the same to the bit, and the data moves on.

    Args:
        graphdef: the model without its parameters.
        optimizer: changes the parameters.
        schedule: its learning rate by step, for the metric `lr`.
        tokenizer: the vocabulary.
        sigma: standard deviations above the mean of recent steps from which on a loss or gradient
            norm is a spike, whose step is skipped; None skips only what is not finite.
        mesh: the devices; by default one.
        microbatches: number of pieces that each device's rows are computed in, one after the
            other.
        ema_decay: decay of the running mean of the parameters, if the state has one. The mean of
            the first n steps decays by (1 + n) / (10 + n) if that is less.
        z_loss: weight of the mean squared logsumexp in what is minimized; it is not in the metrics.
        layer_norms: also measure `grad_norm_layers` and `update_ratio_layers`, both (n_layer,).
    """
    gradients = summed_gradients(_weighted_nats(graphdef, tokenizer, z_loss), mesh, microbatches)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Takes one step of the optimizer."""
        (nats, sums), grads = gradients(state.params, batch)
        # A mean over the whole batch, however it is cut.
        weight = jnp.where(sums["weight"] == 0, 1, sums["weight"])
        loss, grads = nats / weight, jax.tree.map(lambda sum: sum / weight, grads)
        step, grad_norm = state.step + 1, optax.tree.norm(grads)
        good, guard = should_apply(state.guard, step, loss, grad_norm, sigma)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        if z_loss:
            loss = loss - sums["z"] / weight
        metrics = _metrics(sums, loss, grad_norm, state.guard, guard)
        metrics["lr"] = jnp.asarray(schedule(_taken(state.opt_state)))
        if layer_norms:
            metrics |= _layer_metrics(grads, updates, state.params)
        ema = _averaged(state.ema, params, ema_decay, step - guard.skipped, good)
        return keep_places(TrainState(step, params, opt_state, guard, ema), mesh), metrics

    return jax.jit(train_step, donate_argnums=0)


def _weighted_nats(
    graphdef: nnx.GraphDef, tokenizer: Tokenizer, z_loss: float
) -> Callable[[Any, Batch], tuple[jax.Array, Metrics]]:
    """Makes the function (params, batch) -> (what is minimized, further sums)."""

    def weighted_nats(params: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
        """Returns the summed loss of a batch, and the sums that metrics are made of."""
        logits = nnx.merge(graphdef, params)(batch["input_ids"]).logits
        nats, weight = masked_lm_sums(logits, batch["labels"], batch["weights"], tokenizer.pad_id)
        sums = prediction_sums(logits, batch, tokenizer) | {"weight": weight}
        if z_loss:
            squared = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1) ** 2
            counted = batch["weights"] * (batch["labels"] != tokenizer.pad_id)
            sums["z"] = z_loss * jnp.sum(counted * squared)
            nats = nats + sums["z"]
        return nats, sums

    return weighted_nats


def _metrics(
    sums: Metrics, loss: jax.Array, grad_norm: jax.Array, before: Guard, after: Guard
) -> Metrics:
    """Returns the metrics of a step, but for its learning rate."""
    masked = jnp.maximum(sums["masked"], 1)
    return {
        "loss": loss,
        "masked_loss": sums["masked_nats"] / masked,
        "masked_accuracy": sums["masked_right"] / masked,
        "grad_norm": grad_norm,
        "skipped": after.skipped - before.skipped,
        "skipped_in_all": after.skipped,
        "skipped_in_a_row": after.in_a_row,
    }


def _layer_metrics(grads: Any, updates: Any, params: Any) -> Metrics:
    """Measures each layer's gradient norm, and the norm of its update by that of its weights."""

    def norms(tree: Any) -> Float[Array, " n_layer"]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        squares = [
            jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim)))
            for path, leaf in leaves
            if "layers/" in path_name(path)
        ]
        return jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))

    return {
        "grad_norm_layers": norms(grads),
        "update_ratio_layers": norms(updates) / jnp.maximum(norms(params), 1e-30),
    }


def _averaged(ema: Any, params: Any, most: float | None, taken: jax.Array, good: jax.Array) -> Any:
    """Returns the running mean of the parameters after a step, if there is one."""
    if ema is None or most is None:
        return ema
    decay = jnp.minimum(most, (1 + taken) / (10 + taken))
    return jax.tree.map(
        lambda mean, new: jnp.where(good, mean + (1 - decay) * (new - mean), mean), ema, params
    )


def _taken(opt_state: Any) -> Int[Array, ""]:
    """Returns the number of steps that the learning rate's schedule counts."""
    counted = optax.ScaleByScheduleState
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, counted))
    (count,) = [part.count for part in leaves if isinstance(part, counted)]
    return jnp.asarray(count)


def make_eval_step(
    graphdef: nnx.GraphDef, tokenizer: Tokenizer, mesh: Mesh | None = None
) -> Callable[[Any, Batch], Metrics]:
    """Makes the jitted function (params, batch) -> sums, those of `prediction_sums`."""

    def eval_step(params: Any, batch: Batch) -> Metrics:
        """Returns the sums of a batch that metrics are made of."""
        logits = nnx.merge(graphdef, params)(batch["input_ids"]).logits
        return prediction_sums(logits, batch, tokenizer)

    return jax.jit(summed(eval_step, mesh))


def prediction_sums(
    logits: Float[Array, "batch length vocab"], batch: Batch, tokenizer: Tokenizer
) -> Metrics:
    """Sums up a batch's predictions; such sums add up over batches, and weights do not enter.

    Args:
        logits: the model's logits.
        batch: input_ids and labels, both (batch, length).
        tokenizer: the vocabulary.

    Returns:
        `predicted`, the number of labels, and their `nats`; and of the tokens replaced by [MASK]
        their number, `masked`, their `masked_nats`, and `masked_right`, the number whose likeliest
        token is the label.
    """
    labels = batch["labels"]
    nats = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    predicted = labels != tokenizer.pad_id
    # A replaced or unchanged base leaks information about itself: what a model knows from context
    # alone shows at the masked ones.
    masked = predicted & (batch["input_ids"] == tokenizer.mask_id)
    right = masked & (jnp.argmax(logits, axis=-1) == labels)
    return {
        "predicted": jnp.sum(predicted),
        "nats": jnp.sum(nats, where=predicted),
        "masked": jnp.sum(masked),
        "masked_nats": jnp.sum(nats, where=masked),
        "masked_right": jnp.sum(right),
    }
