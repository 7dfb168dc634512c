"""Which sequences run together, and running them on all local devices."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from caduceus_jax.errors import UserError
from caduceus_jax.inference.loading import AnyModel

# Tokens of a batch on each device when the caller names no batch size. A CPU core is fastest with
# what its cache holds; an accelerator needs many to be busy, and a large model still fits.
_TOKENS_A_DEVICE = {"cpu": 1_024}
_TOKENS_A_DEVICE_ELSEWHERE = 65_536
_SHORTEST_BUCKET = 32
# Padding tokens that take no longer than compiling one more shape.
_TOKENS_A_SHAPE = {"cpu": 32_768}
_TOKENS_A_SHAPE_ELSEWHERE = 1_048_576


@runtime_checkable
class TokenRows(Protocol):
    """Rows of token ids, all of one length: an array, or what makes them when they are needed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, length)."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """The token ids (k, length) of the k row numbers `rows`."""
        ...


class Batch(NamedTuple):
    """Which sequences run together."""

    rows: np.ndarray  # their numbers; at most `size`
    size: int  # rows that are run
    length: int  # tokens that are run of each


def plan(lengths: np.ndarray, batch_size: int | None) -> list[Batch]:
    """Batches of few shapes, the longest sequences first: what does not fit fails at once."""
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    buckets = np.array([_bucket(length) for length in lengths.tolist()], np.int64)
    buckets = _merged(np.minimum(buckets, lengths.max(initial=1)))
    batches = []
    for length in np.unique(buckets)[::-1].tolist():
        rows = np.flatnonzero(buckets == length)
        size = min(batch_size or _default_size(length), 1 << (len(rows) - 1).bit_length())
        batches += [Batch(rows[i : i + size], size, length) for i in range(0, len(rows), size)]
    return batches


def _bucket(length: int) -> int:
    """The next of 32, 48, 64, 96, 128, ...: from 32 up at most a third of a row is padding."""
    power = max(1 << (length - 1).bit_length(), _SHORTEST_BUCKET)
    return power * 3 // 4 if length <= power * 3 // 4 and power > _SHORTEST_BUCKET else power


def _merged(buckets: np.ndarray) -> np.ndarray:
    """Each row's bucket, or the next longer one where filling that up costs less than a shape."""
    most = _TOKENS_A_SHAPE.get(jax.default_backend(), _TOKENS_A_SHAPE_ELSEWHERE)
    buckets = buckets.copy()
    ladder = np.unique(buckets).tolist()
    for length, longer in zip(ladder[:-1], ladder[1:], strict=True):
        rows = buckets == length
        if rows.sum() * (longer - length) <= most:
            buckets[rows] = longer
    return buckets


def _default_size(length: int) -> int:
    tokens = _TOKENS_A_DEVICE.get(jax.default_backend(), _TOKENS_A_DEVICE_ELSEWHERE)
    return max(1, tokens // length) * jax.local_device_count()


def run(
    forward: Callable[..., jax.Array],
    model: AnyModel,
    batches: list[Batch],
    inputs: Callable[[Batch], tuple],
    **static: Any,
) -> Iterator[tuple[int, np.ndarray]]:
    """(number, result) of every sequence of every batch; the host prepares while devices work."""
    placed: dict[tuple, AnyModel] = {}
    running: tuple[Batch, jax.Array] | None = None
    for batch in batches:
        devices = tuple(jax.local_devices())
        devices = devices if batch.size % len(devices) == 0 else devices[:1]
        compiled, replicated, split = _compiled(forward, devices, **static)
        if devices not in placed:
            placed[devices] = jax.device_put(model, replicated)
        # Rows that only fill the last batch repeat its first one.
        fill = np.resize(np.arange(len(batch.rows)), batch.size)
        arguments = jax.device_put(jax.tree.map(lambda x: x[fill], inputs(batch)), split)  # noqa: B023
        started = batch, compiled(placed[devices], *arguments)
        if running is not None:
            yield from _rows(*running)
        running = started
    if running is not None:
        yield from _rows(*running)


def _rows(batch: Batch, results: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
    # Rows that fill the batch stay behind: there are more results than rows.
    return zip(batch.rows.tolist(), np.asarray(results), strict=False)


@functools.lru_cache
def _compiled(forward: Callable[..., jax.Array], devices: tuple[Any, ...], **static: Any):
    """The jitted forward pass, and how its model and its inputs are placed on the devices."""
    # Every device runs its rows on its own: kernels never see a mesh, and nothing is communicated.
    mesh = jax.make_mesh((len(devices),), ("batch",), (AxisType.Auto,), devices=devices)
    replicated, split = PartitionSpec(), PartitionSpec("batch")
    mapped = jax.shard_map(
        functools.partial(forward, **static),
        mesh=mesh,
        in_specs=(replicated, split, split),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped), NamedSharding(mesh, replicated), NamedSharding(mesh, split)
