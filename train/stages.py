"""The stages of a run: each with its own windows, batch, steps and learning rate."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import optax

from caduceus_jax.errors import UserError
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig

# What a stage may set, beside its steps.
OPTIMIZER = ("lr", "lr_init", "lr_min", "schedule", "warmup_fraction", "decay_fraction")
DATA = ("weights", "stride", "temperature", "mask_probability", "soft_mask_weight")
DATA += ("validation_windows",)
STEP = ("max_length", "batch_size", "microbatches", "sequence", "remat")


class Stage(NamedTuple):
    """One stage of a run."""

    index: int  # from 0
    start: int  # steps of the run before it
    end: int  # steps of the run at its end
    examples: int  # windows that were read before it
    config: PretrainConfig  # settings of the stage alone; its `steps` are its own

    def schedule_of(self, state: Any, done: int) -> Any:
        """Returns the state in which the stage begins or goes on.

        Args:
            state: the training state, from the run's checkpoint.
            done: steps of the run that are done. At the start of a later stage its learning
                rate's schedule starts over; the optimizer's moments stay.
        """
        if not self.index or done != self.start:
            return state
        return dataclasses.replace(state, opt_state=restart_schedule(state.opt_state))


def stages_of(config: PretrainConfig) -> list[Stage]:
    """Lists the stages of a run: the settings themselves, and each of `stages` after them.

    A stage has the settings of the one before it, but for those that it sets.

    Args:
        config: the settings of the run.

    Raises:
        UserError: a stage sets what it cannot, or has no steps.
    """
    current = dataclasses.replace(config, stages=None)
    found = [Stage(0, 0, config.steps, 0, current)]
    for index, changes in enumerate(config.stages or (), start=1):
        current = _changed(current, changes, index)
        before = found[-1]
        examples = before.examples + before.config.steps * before.config.batch_size
        end = before.end + current.steps
        # Each stage draws its own order and masks.
        own = dataclasses.replace(current, seed=(config.seed + index) % 2**32)
        found.append(Stage(index, before.end, end, examples, own))
    return found


def devices_in_use(stages: list[Stage]) -> int:
    """Returns a number of devices that every stage can share its windows among."""
    return math.gcd(*(s.config.batch_size * s.config.sequence * s.config.tensor for s in stages))


def restart_schedule(opt_state: Any) -> Any:
    """Sets the learning rate's schedule back to its first step; all else stays."""

    def restart(part: Any) -> Any:
        scheduled = isinstance(part, optax.ScaleByScheduleState)
        return part._replace(count=part.count * 0) if scheduled else part

    return jax.tree.map(
        restart, opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState)
    )


def _changed(config: PretrainConfig, changes: dict[str, Any], index: int) -> PretrainConfig:
    known = ("steps", *STEP, *OPTIMIZER, *DATA)
    if unknown := [name for name in changes if name not in known]:
        raise UserError(
            f"stages has {unknown[0]} in stage {index}; a stage sets {', '.join(known)}"
        )
    if not isinstance(changes.get("steps"), int):
        raise UserError(f"stages has no number of steps in stage {index}")

    def of(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: changes[name] for name in names if name in changes}

    optimizer: OptimizerConfig = dataclasses.replace(
        config.optimizer, **{"decay_steps": None, **of(OPTIMIZER)}
    )
    data: DataConfig = dataclasses.replace(config.data, **of(DATA))
    try:
        return dataclasses.replace(
            config, optimizer=optimizer, data=data, steps=changes["steps"], **of(STEP)
        )
    except UserError as error:
        raise UserError(f"stages, stage {index}: {error}") from None
