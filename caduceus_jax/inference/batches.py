"""Batches: groups sequences, and runs them on all local devices."""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Int

from caduceus_jax.devices import idle_cores
from caduceus_jax.errors import UserError
from caduceus_jax.kernels.meshes import CHANNELS

log = logging.getLogger(__name__)

# Tokens of a batch on each device when the caller names no batch size. A CPU core is fastest with
# what its cache holds; an accelerator needs many to be busy, and a large model still fits.
_TOKENS_PER_DEVICE = {"cpu": 1_024}
_TOKENS_PER_DEVICE_ELSEWHERE = 65_536
_SHORTEST_BUCKET = 32
# Padding tokens that take no longer than compiling one more shape.
_TOKENS_PER_SHAPE = {"cpu": 32_768}
_TOKENS_PER_SHAPE_ELSEWHERE = 1_048_576
# Batches that devices work on, or wait for, while the host reads the results of the one before.
_AHEAD = 1
# Tokens of a sequence that CPU cores share: of a shorter one each core's part is too small.
_SHARED_TOKENS = 8_192
# Batches after which it is worth knowing that cores are idle.
_MANY_BATCHES = 64

Lengths = Int[np.ndarray, " sequences"]


@runtime_checkable
class TokenRows(Protocol):
    """Rows of token ids, all of one length: an array, or what makes them when they are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns (rows, length)."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Returns the token ids (k, length) of the k row numbers `rows`."""
        ...


class Batch(NamedTuple):
    """Says which sequences run together."""

    rows: np.ndarray  # their numbers; at most `size`
    size: int  # rows that are run
    length: int  # tokens that are run of each


class Shapes:
    """The few shapes that sequences of some lengths run in.

    Args:
        lengths: (sequences,) tokens of all sequences there are.
        batch_size: sequences per batch; by default as many as keep the devices busy.

    Attributes:
        padded: whether some sequences run as part of longer rows, so that padding is to be masked.

    Raises:
        UserError: a batch size below 1.
    """

    def __init__(self, lengths: Lengths, batch_size: int | None):
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        different, counts = np.unique(lengths, return_counts=True)
        buckets = np.array([_bucket(length) for length in different.tolist()], np.int64)
        buckets = np.minimum(buckets, lengths.max(initial=1))
        buckets = _merged(np.repeat(buckets, counts))[np.cumsum(counts) - counts]
        self.padded = bool((buckets != different).any())
        self._bucket = dict(zip(different.tolist(), buckets.tolist(), strict=True))
        self._size = {
            length: min(
                batch_size or _default_size(length),
                1 << (int(counts[buckets == length].sum()) - 1).bit_length(),
            )
            for length in np.unique(buckets).tolist()
        }

    def plan(self, lengths: Lengths) -> list[Batch]:
        """Divides sequences into batches, the longest first: what does not fit fails at once.

        Args:
            lengths: (sequences,) tokens of some of the sequences.
        """
        order = np.argsort(-lengths, kind="stable")
        buckets = np.array([self._bucket[length] for length in lengths.tolist()], np.int64)
        batches, first = [], 0
        while first < len(order):
            length = int(buckets[order[first]])
            size = self._size[length]
            rows = order[first : first + size]
            # What is much shorter runs by itself rather than as padding.
            rows = rows[(buckets[rows] == length) | (2 * lengths[rows] > length)]
            batches.append(Batch(np.sort(rows), size, length))
            first += len(rows)
        return batches


def plan(lengths: Lengths, batch_size: int | None) -> list[Batch]:
    """Divides sequences into batches of few shapes, the longest first.

    Args:
        lengths: (sequences,) tokens of each.
        batch_size: sequences per batch; by default as many as keep the devices busy.

    Raises:
        UserError: a batch size below 1.
    """
    return Shapes(lengths, batch_size).plan(lengths)


def _bucket(length: int) -> int:
    """Returns the next of 32, 48, 64, 96, 128, ...: at most a third of a row is padding."""
    power = max(1 << (length - 1).bit_length(), _SHORTEST_BUCKET)
    return power * 3 // 4 if length <= power * 3 // 4 and power > _SHORTEST_BUCKET else power


def _merged(buckets: np.ndarray) -> np.ndarray:
    """Moves rows to the next longer bucket where filling it up costs less than a shape."""
    most = _TOKENS_PER_SHAPE.get(jax.default_backend(), _TOKENS_PER_SHAPE_ELSEWHERE)
    buckets = buckets.copy()
    ladder = np.unique(buckets).tolist()
    for length, longer in zip(ladder[:-1], ladder[1:], strict=True):
        rows = buckets == length
        if rows.sum() * (longer - length) <= most:
            buckets[rows] = longer
    return buckets


def tokens_per_batch(length: int, batch_size: int | None) -> int:
    """Returns the number of tokens of a batch of sequences of this length.

    Args:
        length: tokens of each.
        batch_size: sequences per batch; by default as many as keep the devices busy.
    """
    return (batch_size or _default_size(length)) * length


def _default_size(length: int) -> int:
    tokens = _TOKENS_PER_DEVICE.get(jax.default_backend(), _TOKENS_PER_DEVICE_ELSEWHERE)
    return max(1, tokens // length) * jax.local_device_count()


Inputs = Callable[[Batch], tuple]


def run(
    forward: Callable[..., jax.Array],
    model: Any,
    batches: Iterable[Batch],
    inputs: Inputs,
    **static: Any,
) -> Iterator[tuple[int, np.ndarray]]:
    """Runs sequences and yields their results one by one.

    Args:
        forward: (model, *inputs, **static) -> (rows, ...).
        model: its first argument.
        batches: batches of the sequences.
        inputs: makes the other arguments of `forward`, arrays with a row per sequence of a batch.
        **static: further arguments, for which it is compiled: values, or functions that make one
            of a batch's inputs.

    Yields:
        (number, result) of every sequence of every batch.
    """
    pairs = ((batch, inputs) for batch in batches)
    for batch, results in run_batches(forward, model, pairs, **static):
        yield from zip(batch.rows.tolist(), results, strict=True)


def run_batches(
    forward: Callable[..., jax.Array],
    model: Any,
    batches: Iterable[tuple[Batch, Inputs]],
    **static: Any,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Runs batches in order; the host prepares the next one while devices work.

    Args:
        forward: (model, *inputs, **static) -> (rows, ...).
        model: its first argument.
        batches: each with what makes the other arguments of `forward`.
        **static: further arguments, for which it is compiled: values, or functions that make one
            of a batch's inputs.

    Yields:
        (batch, results), a row per sequence of the batch.
    """
    placed: dict[tuple, Any] = {}
    running: deque[tuple[Batch, jax.Array]] = deque()
    for number, (batch, inputs) in enumerate(batches):
        if number == _MANY_BATCHES:
            _name_idle_cores()
        devices, axis = _sharing(batch)
        given = inputs(batch)
        fixed = {name: x(*given) if callable(x) else x for name, x in static.items()}
        compiled, replicated, split = _compiled(forward, devices, axis, **fixed)
        if devices not in placed:
            placed[devices] = jax.device_put(model, replicated)
        # Rows that only fill the last batch repeat its first one.
        fill = np.resize(np.arange(len(batch.rows)), batch.size)
        arguments = jax.device_put(jax.tree.map(lambda x: x[fill], given), split)  # noqa: B023
        running.append((batch, compiled(placed[devices], *arguments)))
        if len(running) > _AHEAD:
            yield _fetched(*running.popleft())
    while running:
        yield _fetched(*running.popleft())


@functools.cache  # once per process
def _name_idle_cores() -> None:
    if idle := idle_cores():
        log.warning(
            f"JAX has one device for {idle + 1} cores of this CPU: from caduceus_jax.devices "
            "import use_cores, and call use_cores() before anything is computed, to use them all"
        )


def _sharing(batch: Batch) -> tuple[tuple[Any, ...], str]:
    """Returns the devices that run a batch, and what they share: its rows, or their channels."""
    devices = tuple(jax.local_devices())
    if batch.size % len(devices) == 0:
        return devices, "batch"
    # The cores of a CPU share one memory, so that they need not send each other anything far.
    if devices[0].platform == "cpu" and batch.length >= _SHARED_TOKENS:
        return devices, CHANNELS
    return devices[:1], "batch"


def _fetched(batch: Batch, results: jax.Array) -> tuple[Batch, np.ndarray]:
    # Rows that fill the batch stay behind: there are more results than rows.
    return batch, np.asarray(results)[: len(batch.rows)]


@functools.lru_cache
def _compiled(
    forward: Callable[..., jax.Array], devices: tuple[Any, ...], axis: str, **static: Any
) -> tuple[Callable[..., Any], NamedSharding, NamedSharding]:
    """Compiles the forward pass, and places its model and its inputs on the devices."""
    mesh = jax.make_mesh((len(devices),), (axis,), (AxisType.Auto,), devices=devices)
    replicated, split = PartitionSpec(), PartitionSpec("batch")
    whole = functools.partial(forward, **static)
    if axis == CHANNELS:
        jitted, everywhere = jax.jit(whole), NamedSharding(mesh, replicated)

        def shared(*arguments: Any) -> jax.Array:
            with jax.set_mesh(mesh):
                return jitted(*arguments)

        return shared, everywhere, everywhere
    # Every device runs its rows on its own: kernels never see a mesh, and nothing is communicated.
    mapped = jax.shard_map(
        whole,
        mesh=mesh,
        in_specs=(replicated, split, split),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped), NamedSharding(mesh, replicated), NamedSharding(mesh, split)
