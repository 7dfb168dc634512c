"""Steps that are not taken: what is not finite, and, where asked, what is far out of the ordinary.

All of it happens inside the step, on the device: nobody waits for a number to decide.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caduceus_jax.train.processes import AgreedError

WINDOW = 128  # steps that say what is ordinary
ENOUGH = 64  # fewer say nothing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guard:
    """What is remembered from step to step.

    Args:
        skipped: how many steps were skipped so far.
        in_a_row: how many of these are the newest ones.
        last_good: the newest step that was not; 0 before there is one.
        recent: losses, and logarithms of the gradient norms, of the newest `WINDOW` steps that
            were not, in no order.
    """

    skipped: Int[Array, ""]
    in_a_row: Int[Array, ""]
    last_good: Int[Array, ""]
    recent: Float[Array, "2 window"]


class TooManySkipped(AgreedError):
    """Steps were skipped one after the other, and the run ends."""

    exit_status = 1


def init_guard() -> Guard:
    """The guard before the first step."""
    # An array each: a step consumes its state, and no array twice.
    skipped, in_a_row, last_good = (jnp.zeros((), jnp.int32) for _ in range(3))
    return Guard(skipped, in_a_row, last_good, jnp.zeros((2, WINDOW), jnp.float32))


def judge(
    guard: Guard,
    step: Int[Array, ""],
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    sigma: float | None = None,
) -> tuple[Bool[Array, ""], Guard]:
    """Whether a step is to be taken, and the guard after it.

    Args:
        guard: before the step.
        step: its number, from 1.
        loss: of the step's batch.
        grad_norm: of its gradient; finite only if every element is.
        sigma: skip also a loss, or logarithm of a gradient norm, that lies more than this many
            standard deviations above the mean of the steps before it that were taken, once there
            are `ENOUGH`; None: never.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    # Norms are positive and skewed: a clean one among a thousand can lie seven of their standard
    # deviations above their mean, but not of their logarithms'.
    seen = jnp.stack([loss, jnp.log(grad_norm)])
    taken = step - 1 - guard.skipped
    if sigma is not None:
        # The logarithm of 0, of a batch with nothing to predict, says nothing.
        past = (jnp.arange(WINDOW)[None] < taken) & jnp.isfinite(guard.recent)
        mean = jnp.mean(guard.recent, axis=1, where=past)
        spread = jnp.std(guard.recent, axis=1, where=past)
        spike = (seen > mean + sigma * spread) & (past.sum(axis=1) >= ENOUGH)
        good &= ~spike.any()
    after = Guard(
        skipped=guard.skipped + ~good,
        in_a_row=jnp.where(good, 0, guard.in_a_row + 1),
        last_good=jnp.where(good, step, guard.last_good),
        recent=jnp.where(good, guard.recent.at[:, taken % WINDOW].set(seen), guard.recent),
    )
    return good, after


def too_many(in_a_row: int, last_good: int, checkpoint: int | None, folder: str) -> TooManySkipped:
    """What to say at the end of a run's patience.

    Args:
        in_a_row: steps that were skipped.
        last_good: the newest one that was not; 0: none.
        checkpoint: the newest one's step, or None.
        folder: of the run.
    """
    good = f"the last good step was {last_good}" if last_good else "no step was good"
    way_out = (
        "there is no checkpoint yet: begin anew, with a lower --optimizer.lr for one"
        if checkpoint is None
        else f"the same command continues from the checkpoint of step {checkpoint} in {folder}, "
        "with a higher --max_skipped past bad data"
    )
    return TooManySkipped(
        f"{in_a_row} steps in a row had a loss or gradient that is not finite, or a spike where "
        f"these are skipped; {good}; {way_out}"
    )
