"""Running the work of a verb: all of it or a shard, from where a journal stops, block by block."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax

from caduceus_jax.inference.blocks import Block, Journal, meter, run_blocks
from caduceus_jax.inference.loading import AnyModel

R = TypeVar("R")


class Work(Protocol[R]):
    """What a verb computes, divided into blocks that depend on the input and the options alone."""

    forward: Callable[..., jax.Array]
    static: dict[str, Any]

    @property
    def parts(self) -> Sequence[range]:
        """Returns the rows of each block."""
        ...

    @property
    def weights(self) -> Sequence[int]:
        """Returns the work of each block."""
        ...

    def blocks(self, numbers: range) -> Iterator[Block[R]]:
        """Returns the blocks of these numbers."""
        ...


class Part(NamedTuple, Generic[R]):
    """The result of some consecutive rows, a table for example."""

    rows: range
    frame: R


def run_work(
    model: AnyModel,
    work: Work[R],
    *,
    what: str,
    unit: str,
    progress: bool = False,
    journal: Journal | None = None,
    of_shards: tuple[int, int] | None = None,
) -> Iterator[Part[R]]:
    """Computes the blocks of a work.

    Args:
        model: that computes.
        work: what is computed.
        what: the work is, for the progress bar.
        unit: what is counted there.
        progress: show on standard error how far it is.
        journal: has what was computed before, and gets what is computed now.
        of_shards: number of a shard, from 1, and of all; by default everything is computed.

    Yields:
        The tables of the blocks, in order.
    """
    numbers = range(len(work.parts)) if of_shards is None else shard(work.weights, *of_shards)
    rows = sum(len(work.parts[number]) for number in numbers)
    progress = progress and any(work.weights[number] for number in numbers)
    frames = run_blocks(
        work.forward,
        model,
        work.blocks(numbers),
        journal=journal,
        advance=meter(progress, rows, what, unit),
        **work.static,
    )
    for number, frame in zip(numbers, frames, strict=True):
        yield Part(work.parts[number], frame)


def shard(weights: Sequence[int], index: int, count: int) -> range:
    """Returns the blocks of one shard: consecutive ones, with about the same work in all shards.

    Args:
        weights: work of each block.
        index: of the shard, from 1 to `count`.
        count: of shards.
    """
    total = max(sum(weights), 1)
    middles, reached = [], 0
    for weight in weights:
        middles.append(reached + weight / 2)
        reached += weight
    of = [min(int(middle * count / total), count - 1) for middle in middles]
    first = next((i for i, shard in enumerate(of) if shard >= index - 1), len(of))
    last = next((i for i, shard in enumerate(of) if shard >= index), len(of))
    return range(first, last)
