"""What a long run will take: passes, time and disk, from a sample and a short calibration."""

import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from caduceus_jax.genomics.scoring.per_base import PerBaseWork
from caduceus_jax.inference.batches import Batch, Inputs, run_batches

log = logging.getLogger(__name__)

_SAMPLED = 64  # blocks
_SECONDS, _MOST_BATCHES = 10.0, 200  # of the calibration
_FEWEST_BATCHES = 500  # that are worth one


class Estimate(NamedTuple):
    """Tells what some blocks will take.

    Attributes:
        passes: forward passes, about.
        seconds: seconds on this machine, once compiled; None where the work is too small to tell.
        megabytes: approximate size of the scores.
    """

    passes: int
    seconds: float | None
    megabytes: float

    def __str__(self) -> str:
        took = ""
        if self.seconds is not None:
            minutes, seconds = divmod(round(self.seconds), 60)
            hours, minutes = divmod(minutes, 60)
            took = f", about {hours}:{minutes:02}:{seconds:02} on this machine"
        return f"about {self.passes:,} passes{took}, {self.megabytes:,.1f} MB of scores"


def estimate(model: Any, work: PerBaseWork, numbers: range) -> Estimate:
    """Estimates what it takes to compute some blocks.

    Args:
        model: the model that computes.
        work: the work to compute.
        numbers: numbers of the blocks.
    """
    step = max(len(numbers) // _SAMPLED, 1)
    sample = numbers[step // 2 :: step]
    counted = sum(work.passes(number) for number in sample)
    bases = sum(len(work.parts[number]) for number in sample)
    whole = sum(len(work.parts[number]) for number in numbers)
    passes = round(counted * whole / max(bases, 1))
    some = next((number for number in sample if work.passes(number)), None)
    seconds = None
    if some is not None:
        padded = work.padded
        block = next(work.blocks(range(some, some + 1)))
        work.padded = padded
        if block.batches and passes > _FEWEST_BATCHES * block.batches[0].size:
            seconds = passes / _rate(model, work, [(b, block.inputs) for b in block.batches])
    return Estimate(passes, seconds, passes * work.masks_per_pass * 8 / 1e6)


def _rate(model: Any, work: PerBaseWork, batches: list[tuple[Batch, Inputs]]) -> float:
    """Measures how many passes are computed in a second."""
    first = batches[0]

    def repeated() -> Iterator[tuple[Batch, Inputs]]:
        """Yields the batches of a block until the time is up."""
        yield first  # compiles
        for number in range(_MOST_BATCHES):
            yield batches[number % len(batches)]
            if number > 2 and time.monotonic() - begun[0] > _SECONDS:
                return

    begun = [float("inf")]
    passes = -1
    for batch, _ in run_batches(work.forward, model, repeated(), **work.static):
        if passes < 0:
            begun[0], passes = time.monotonic(), 0
        else:
            passes += len(batch.rows)
    return passes / (time.monotonic() - begun[0])


def say_estimate(model: Any, work: PerBaseWork, of_shard: range, kept: int) -> None:
    """Logs what a run will take.

    Args:
        model: the model that computes.
        work: the work to compute.
        of_shard: numbers of the blocks that this process computes.
        kept: bytes that an earlier run has kept of them.
    """
    found = estimate(model, work, of_shard)
    bases = sum(len(work.parts[number]) for number in of_shard)
    log.info(f"{bases:,} bases: {found}, and as many in the journal until all is written")
    if kept:
        left = max(1 - kept / max(found.megabytes * 1e6, 1), 0)
        log.info(f"about {100 * left:.0f} % of that is left")
