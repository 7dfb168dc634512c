"""Skipping of steps whose loss or gradient is not finite or, if asked for, is a spike.

The decision is made inside the step, on the device, so the host does not wait for a number.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caduceus_jax.train.processes import AgreedError

WINDOW = 128  # recent steps that a step is compared with
ENOUGH = 64  # with fewer of them nothing is a spike


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guard:
    """Holds what is remembered from step to step.

    Args:
        skipped: number of steps that were skipped so far.
        in_a_row: number of the newest steps that were skipped in a row.
        last_good: the newest step that was not skipped; 0 before there is one.
        recent: losses, and logarithms of the gradient norms, of the newest `WINDOW` steps that
            were not skipped, in any order.
    """

    skipped: Int[Array, ""]
    in_a_row: Int[Array, ""]
    last_good: Int[Array, ""]
    recent: Float[Array, "2 window"]


class TooManySkipped(AgreedError):
    """Too many steps were skipped one after the other."""

    exit_status = 1


def init_guard() -> Guard:
    """Makes the guard before the first step."""
    # An array each: a step consumes its state, and cannot consume an array twice.
    skipped, in_a_row, last_good = (jnp.zeros((), jnp.int32) for _ in range(3))
    return Guard(skipped, in_a_row, last_good, jnp.zeros((2, WINDOW), jnp.float32))


def should_apply(
    guard: Guard,
    step: Int[Array, ""],
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    sigma: float | None = None,
) -> tuple[Bool[Array, ""], Guard]:
    """Decides whether a step changes the parameters.

    Args:
        guard: before the step.
        step: its number, from 1.
        loss: loss of the step's batch.
        grad_norm: norm of its gradient; finite only if every element is.
        sigma: a loss, or logarithm of a gradient norm, is a spike if it lies more than this many
            standard deviations above the mean of the recent steps that were taken, once there are
            `ENOUGH`; None: nothing is a spike.

    Returns:
        Whether to apply the step, and the guard after it.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    # Norms are positive and skewed: a clean one among a thousand can lie seven of their standard
    # deviations above their mean, but not of their logarithms'.
    seen = jnp.stack([loss, jnp.log(grad_norm)])
    taken = step - 1 - guard.skipped
    if sigma is not None:
        # The logarithm of 0, of a batch with nothing to predict, does not count.
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
    """Makes the error that ends a run which skips one step after the other.

    Args:
        in_a_row: number of steps that were skipped.
        last_good: the newest step that was not skipped; 0 if there is none.
        checkpoint: step of the newest checkpoint, or None.
        folder: the run's folder.
    """
    good = f"the last good step was {last_good}" if last_good else "no step was good"
    fix = (
        "no checkpoint has been saved yet: start again, for example with a lower --optimizer.lr"
        if checkpoint is None
        else f"the same command continues from the checkpoint of step {checkpoint} in {folder}, "
        "with a higher --max_skipped to get past bad data"
    )
    return TooManySkipped(
        f"{in_a_row} steps in a row had a loss or gradient that is not finite, or a spike; {good}; "
        f"{fix}"
    )
