"""Long work in blocks: computed in order, kept in a journal, written as it goes.

A block is some consecutive rows of the input. Which batches a block runs in depends on nothing but
the input and the options. So a run that continues from its journal, and a run in shards, compute
the very numbers of an uninterrupted run in one piece.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int

from caduceus_jax.inference.batches import Batch, Inputs, run_batches
from caduceus_jax.progress import track

R = TypeVar("R")
_FEWEST_BLOCKS = 32
_MOST_COUNTED = 10_000_000  # rows that a progress bar counts one by one


@runtime_checkable
class Journal(Protocol):
    """Keeps the values of batches in the order in which they are computed."""

    def next(self, count: int | None = None) -> np.ndarray | None:
        """Returns the values of the next batch, flat; None where the next one is to be computed.

        Args:
            count: number of its values; an entry of another number is dropped.
        """
        ...

    def append(self, values: np.ndarray) -> None:
        """Keeps the values of a batch."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Block(Generic[R]):
    """Rows of the input that are computed together.

    Attributes:
        rows: number of rows, for the progress bar.
        batches: the batches that they run in.
        inputs: makes the arguments of the forward pass for a batch.
        item: shape of the result of one row of a batch.
        finish: makes the result of the block from the results of its batches.
    """

    rows: int
    batches: Sequence[Batch]
    inputs: Inputs
    item: Callable[[Batch], tuple[int, ...]]
    finish: Callable[[list[tuple[Batch, np.ndarray]]], R]


def run_blocks(
    forward: Callable[..., jax.Array],
    model: Any,
    blocks: Iterable[Block[R]],
    *,
    journal: Journal | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    **static: Any,
) -> Iterator[R]:
    """Computes blocks in order.

    Args:
        forward: (model, *inputs, **static) -> (rows, ...).
        model: its first argument.
        blocks: made when they are needed.
        journal: has what was computed before, and gets what is computed now.
        advance: called with the number of input rows that are done since the last call.
        **static: further arguments, for which `forward` is compiled, as `run_batches` takes them.

    Yields:
        The result of each block.
    """
    blocks = iter(blocks)
    begun: deque[Block[R]] = deque()
    found: list[tuple[Batch, np.ndarray]] = []
    if journal is not None:
        for block in blocks:
            found = _replayed(block, journal)
            if len(found) < len(block.batches):
                begun.append(block)
                break
            advance(block.rows)
            yield block.finish(found)
            found = []
    first = len(found)

    def batches() -> Iterator[tuple[Batch, Inputs]]:
        """Yields the batches of all blocks, in order."""
        for block in begun:
            yield from ((batch, block.inputs) for batch in block.batches[first:])
        for block in blocks:
            begun.append(block)
            yield from ((batch, block.inputs) for batch in block.batches)

    done = 0
    for batch, values in run_batches(forward, model, batches(), **static):
        if journal is not None:
            journal.append(values)
        while len(found) == len(begun[0].batches):  # a block without batches
            yield _finished(begun.popleft(), found, done, advance)
            found, done = [], 0
        found.append((batch, values))
        block = begun[0]
        if len(found) == len(block.batches):
            yield _finished(begun.popleft(), found, done, advance)
            found, done = [], 0
        else:
            share = len(found) * block.rows // len(block.batches)
            advance(share - done)
            done = share
    while begun:
        yield _finished(begun.popleft(), found, done, advance)
        found, done = [], 0


def _replayed(block: Block[Any], journal: Journal) -> list[tuple[Batch, np.ndarray]]:
    found = []
    for batch in block.batches:
        shape = (len(batch.rows), *block.item(batch))
        values = journal.next(math.prod(shape))
        if values is None:
            break
        found.append((batch, values.reshape(shape)))
    return found


def _finished(
    block: Block[R],
    found: list[tuple[Batch, np.ndarray]],
    done: int,
    advance: Callable[[int], None],
) -> R:
    advance(block.rows - done)
    return block.finish(found)


@runtime_checkable
class Work(Protocol[R]):
    """Computes for a verb, divided into blocks that depend on the input and the options alone."""

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


class Counts(Sequence[int]):
    """Numbers that are counted when they are first asked for, such as the work of each block.

    Args:
        count: counts the number of this index.
        length: number of numbers.
    """

    def __init__(self, count: Callable[[int], int], length: int):
        self._count, self._known = count, [-1] * length

    def __len__(self) -> int:
        return len(self._known)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        """Returns one number, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if self._known[index] < 0:
            self._known[index] = self._count(index)
        return self._known[index]


class Part(NamedTuple, Generic[R]):
    """The result of some consecutive rows, a table for example."""

    rows: range
    frame: R


def run_work(
    model: Any,
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
        model: the model that computes.
        work: the work to compute.
        what: name of the work on the progress bar.
        unit: name of its rows on the progress bar.
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
        index: number of the shard, from 1 to `count`.
        count: number of shards.
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


def cut(
    work: Int[np.ndarray, " rows"], smallest: int, largest: int, keep: np.ndarray | None = None
) -> list[range]:
    """Divides rows into blocks of about equal work.

    Args:
        work: (rows,) of each row, in whatever unit.
        smallest: work that is worth a block of its own.
        largest: work of a block at most, where it has several rows.
        keep: (rows,) number of the group that each row belongs to, ascending; no group is divided.

    Returns:
        The rows of each block. Work that is large enough makes at least 32 blocks.
    """
    if not len(work):
        return []
    total = int(work.sum())
    target = min(max(total // _FEWEST_BLOCKS, smallest), largest)
    reached = np.cumsum(work) - work  # work before each row
    number = reached // max(target, 1)
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    if keep is not None:
        begins = np.unique(np.searchsorted(keep, keep[begins], side="left"))
    ends = [*begins[1:].tolist(), len(work)]
    return [range(a, b) for a, b in zip(begins.tolist(), ends, strict=True)]


def meter(show: bool, total: int, what: str, unit: str) -> Callable[[int], None]:
    """Makes a progress bar that is advanced by numbers of rows.

    Args:
        show: whether there is one.
        total: rows altogether.
        what: the work, for example "embedding".
        unit: name of the rows, for example "sequences".
    """
    if not show or not total:
        return lambda rows: None
    each = 1
    if total > _MOST_COUNTED:  # a bar that moves on for every base of a genome costs hours
        each, unit = 1000, f"thousand {unit}"
    steps = -(-total // each)
    bar = track(range(steps), total=steps, what=what, unit=unit)
    state = {"done": 0}
    next(bar, None)  # it begins when it is first asked

    def advance(rows: int) -> None:
        """Moves the progress bar on."""
        before, state["done"] = state["done"], state["done"] + rows
        reached = steps if state["done"] >= total else state["done"] // each
        for _ in range(before // each, reached):
            next(bar, None)

    return advance
