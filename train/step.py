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
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.gradients import summed, summed_gradients
from caduceus_jax.train.guards import Guard, init_guard, judge
from caduceus_jax.train.optimizer import cosine_schedule, make_optimizer
from caduceus_jax.train.sharding import keep_places, sharded_conv, sharded_scan

Batch = dict[str, jax.Array]  # input_ids, labels int32 and weights float32, all (batch, length)
Metrics = dict[str, jax.Array]  # scalars


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    Args:
        step: number of steps done.
        params: the model's parameters.
        opt_state: the optimizer's.
        rng: for models that draw numbers while training; Caduceus does not.
        guard: which steps were skipped.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    rng: Array
    guard: Guard


def init_state(
    params: nnx.State, optimizer: optax.GradientTransformation, rng: Array
) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), rng, init_guard())


class Program(NamedTuple):
    """What a run computes; nothing is allocated yet."""

    graphdef: nnx.GraphDef
    init: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[Any, Batch], Metrics]


def make_program(
    config: PretrainConfig,
    mesh: Mesh,
    tokenizer: Tokenizer,
    implementation: Implementation = None,
) -> Program:
    """Model, optimizer and steps of a run on these devices.

    Args:
        config: the run.
        mesh: the devices.
        tokenizer: the vocabulary.
        implementation: of the scan; by default what the run names.
    """
    if implementation is None and config.scan != "auto":
        implementation = config.scan
    operations = {
        "scan": sharded_scan(mesh, implementation),
        "conv": sharded_conv(mesh, implementation),
    }
    optimizer = make_optimizer(config.optimizer, config.steps)

    def model() -> CaduceusForMaskedLM:
        return CaduceusForMaskedLM(
            config.model,
            dtype=jnp.dtype(config.dtype),
            remat=config.remat == "blocks",
            rngs=nnx.Rngs(config.seed),
            **operations,
        )

    def init() -> TrainState:
        params = nnx.state(model(), nnx.Param)
        return init_state(params, optimizer, jax.random.PRNGKey(config.seed))

    graphdef, _ = nnx.split(nnx.eval_shape(model), nnx.Param)
    schedule = cosine_schedule(config.optimizer, config.steps)
    train_step = make_train_step(
        graphdef,
        optimizer,
        schedule,
        tokenizer,
        config.spike_sigma,
        mesh=mesh,
        microbatches=config.microbatches,
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
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The function (state, batch) -> (state, metrics), jitted; it consumes the state it is given.

    Metrics: `loss` (nats per predicted base, weighted), `masked_loss` and `masked_accuracy` (at
    the bases hidden by [MASK]), `grad_norm` (before clipping), `lr`, `skipped` (1 if this step
    was), `skipped_in_all` and `skipped_in_a_row`.

    A step that is skipped changes nothing but `step` and `guard`: parameters and the optimizer,
    its count of steps included, stay as they are to the bit, and the data moves on.

    Args:
        graphdef: the model without its parameters.
        optimizer: see `make_optimizer`.
        schedule: its learning rates.
        tokenizer: the vocabulary.
        sigma: see `guards.judge`.
        mesh: the devices; by default one.
        microbatches: pieces that each device's rows are computed in, one after the other.
    """

    def weighted_nats(params: Any, batch: Batch) -> tuple[jax.Array, Metrics]:
        logits = nnx.merge(graphdef, params)(batch["input_ids"]).logits
        nats, weight = masked_lm_sums(logits, batch["labels"], batch["weights"], tokenizer.pad_id)
        return nats, prediction_sums(logits, batch, tokenizer) | {"weight": weight}

    gradients = summed_gradients(weighted_nats, mesh, microbatches)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        (nats, sums), grads = gradients(state.params, batch)
        # A mean over the whole batch, however it is cut.
        weight = jnp.where(sums["weight"] == 0, 1, sums["weight"])
        loss, grads = nats / weight, jax.tree.map(lambda sum: sum / weight, grads)
        step, grad_norm = state.step + 1, optax.tree.norm(grads)
        good, guard = judge(state.guard, step, loss, grad_norm, sigma)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (params, opt_state),
            (state.params, state.opt_state),
        )
        hidden = jnp.maximum(sums["masked"], 1)
        metrics = {
            "loss": loss,
            "masked_loss": sums["masked_nats"] / hidden,
            "masked_accuracy": sums["masked_right"] / hidden,
            "grad_norm": grad_norm,
            # The optimizer counts the steps that it took.
            "lr": schedule(state.step - state.guard.skipped),
            "skipped": guard.skipped - state.guard.skipped,
            "skipped_in_all": guard.skipped,
            "skipped_in_a_row": guard.in_a_row,
        }
        after = TrainState(step, params, opt_state, state.rng, guard)
        return keep_places(after, mesh), metrics

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(
    graphdef: nnx.GraphDef, tokenizer: Tokenizer, mesh: Mesh | None = None
) -> Callable[[Any, Batch], Metrics]:
    """The function (params, batch) -> `prediction_sums`, jitted."""

    def eval_step(params: Any, batch: Batch) -> Metrics:
        logits = nnx.merge(graphdef, params)(batch["input_ids"]).logits
        return prediction_sums(logits, batch, tokenizer)

    return jax.jit(summed(eval_step, mesh))


def prediction_sums(
    logits: Float[Array, "batch length vocab"], batch: Batch, tokenizer: Tokenizer
) -> Metrics:
    """Sums over a batch, which add up over batches; weights do not enter.

    Returns:
        `predicted` labels and their `nats`; and of those hidden by [MASK], `masked`, their
        `masked_nats` and how many were `masked_right`.
    """
    labels = batch["labels"]
    nats = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
    predicted = labels != tokenizer.pad_id
    # Bases that are only replaced or left in place tell about themselves: what a model knows
    # from context alone shows at the hidden ones.
    masked = predicted & (batch["input_ids"] == tokenizer.mask_id)
    right = masked & (jnp.argmax(logits, axis=-1) == labels)
    return {
        "predicted": jnp.sum(predicted),
        "nats": jnp.sum(nats, where=predicted),
        "masked": jnp.sum(masked),
        "masked_nats": jnp.sum(nats, where=masked),
        "masked_right": jnp.sum(right),
    }
