"""Batches for the masked language model: any step's, without those before it."""

import collections
import dataclasses
import itertools
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import grain
import numpy as np
from absl import flags

from caduceus_jax.errors import UserError
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.masking import CounterRng, letter_table, mask_tokens
from caduceus_jax.train.data.windows import Windows

T = TypeVar("T")
S = TypeVar("S")
Batch = dict[str, np.ndarray]  # input_ids, labels int32 and weights float32, all (rows, length)

VALIDATION_TOKENS = 1 << 24  # of a validation, unless the number of windows is given
_TRAIN, _VALIDATION = 0, 1  # purposes of random numbers
_AT_ONCE = 1 << 17  # tokens that are masked together: their numbers stay in cache


@dataclasses.dataclass(frozen=True)
class Examples:
    """Makes examples of windows, as narrow as they can be.

    Args:
        windows: windows that the sequence comes from.
        config: masking and strands.
        tokenizer: letters to token ids.
        seed: the seed of the masks and strands.
        purpose: purpose of the random numbers.
    """

    windows: Windows
    config: DataConfig
    tokenizer: Tokenizer
    seed: int
    purpose: int

    def make(self, numbers: Iterable[tuple[int, int, int]]) -> Batch:
        """Returns rows of a batch: `input_ids`, `labels` uint8 and `soft` bool, all (rows, length).

        Args:
            numbers: window, example and mask of each row.
        """
        numbers, length = list(numbers), self.windows.length
        batch = {
            "input_ids": np.empty((len(numbers), length), np.uint8),
            "labels": np.empty((len(numbers), length), np.uint8),
            "soft": np.empty((len(numbers), length), bool),
        }
        at_once = max(1, _AT_ONCE // length)
        ids, draws = (np.empty((at_once, length), dtype) for dtype in (np.uint8, np.uint32))
        chance = CounterRng(self.seed, self.purpose)
        tables = [letter_table(self.tokenizer, complement=other) for other in (False, True)]
        augmented = self.purpose == _TRAIN and self.config.rc_mode == "augment"
        for first in range(0, len(numbers), at_once):
            rows = slice(first, first + at_once)
            for i, (window, example, mask) in enumerate(numbers[rows]):
                letters = self.windows[window]
                coin, draws[i] = chance.of(example, length, mask=mask)
                turned = augmented and coin
                way = slice(None, None, -1 if turned else 1)
                found = letters.tobytes().translate(tables[turned])
                ids[i] = np.frombuffer(found, np.uint8)[way]
                batch["soft"][first + i] = (letters >= ord("a"))[way]
            count = len(numbers[rows])
            batch["input_ids"][rows], batch["labels"][rows] = mask_tokens(
                ids[:count],
                draws[:count],
                probability=self.config.mask_probability,
                tokenizer=self.tokenizer,
            )
        return batch

    def widen(self, batch: Batch) -> Batch:
        """Returns a batch in the form that the model's step takes."""
        weight = np.where(batch["soft"], np.float32(self.config.soft_mask_weight), np.float32(1))
        return {
            "input_ids": batch["input_ids"].astype(np.int32),
            "labels": batch["labels"].astype(np.int32),
            "weights": weight,
        }


class Steps:
    """This process's rows of every step's batch; a random-access source for grain.

    Args:
        examples: makes them.
        batch_size: over all processes.
        process: index of this process.
        processes: number of processes.
    """

    def __init__(self, examples: Examples, *, batch_size: int, process: int, processes: int):
        self.examples, self.batch_size = examples, batch_size
        rows = batch_size // processes
        self.rows = range(process * rows, (process + 1) * rows)
        windows, config, seed = examples.windows, examples.config, examples.seed
        if weights := genome_weights(windows, config):
            order = [_shuffled(windows.of_genome(i), seed + i) for i in range(len(weights))]
            self.order = grain.MapDataset.mix(order, weights)
        else:
            self.order = _shuffled(range(len(windows)), seed)

    def __len__(self) -> int:
        return sys.maxsize // self.batch_size

    def __getitem__(self, index: int) -> Batch:
        """Returns the rows of a step, counted from 0."""
        numbers = [index * self.batch_size + row for row in self.rows]
        # Grain's datasets may have gaps; these have none.
        windows = [cast(int, self.order[number]) for number in numbers]
        return self.examples.make((w, n, 0) for w, n in zip(windows, numbers, strict=True))


def _shuffled(windows: range, seed: int) -> grain.MapDataset[int]:
    """Orders every window once per epoch, anew in each."""
    return grain.MapDataset.range(windows.start, windows.stop).seed(seed).shuffle().repeat()


def genome_weights(windows: Windows, config: DataConfig) -> list[float]:
    """Returns how often each genome is drawn from, or nothing where all windows count alike.

    Args:
        windows: windows to train on.
        config: has weights, or a temperature: a genome of n windows then weighs n ** (1 / t), and
            one without windows nothing.
    """
    if config.weights or config.temperature == 1 or len(windows.stores) == 1:
        return config.weights
    counts = np.array([len(windows.of_genome(i)) for i in range(len(windows.stores))], float)
    if not counts.all():
        empty = windows.stores[int(np.argmin(counts))].name
        raise UserError(
            f"{empty} has no sequence to train on, so data.temperature cannot weigh it: leave it "
            "out"
        )
    powers = counts ** (1 / config.temperature)
    return (powers / powers.sum()).tolist()


def check_drawable(windows: Windows, config: DataConfig) -> None:
    """Makes sure that there is something to draw.

    Raises:
        UserError: no window is left, or none of a genome that has a weight.
    """
    if not len(windows):
        raise UserError("the genome has no sequence to train on: it is all N, or all held out")
    genome_weights(windows, config)
    for i in range(len(config.weights)):
        if not len(windows.of_genome(i)):
            raise UserError(
                f"{windows.stores[i].name} has a weight and no sequence to train on: leave it out"
            )


def train_batches(
    windows: Windows,
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    batch_size: int,
    first_step: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """Makes endless batches: every window once per epoch, in a new order and with new masks.

    What an example of a step looks like depends on the seed, the step and its number in the batch
    alone, whatever the number of processes, workers and threads. The place in the data is the
    step: to continue, pass the number of steps that are done.

    Args:
        windows: windows that the sequence comes from.
        config: masking, strands, weights of the genomes, workers and threads.
        tokenizer: letters to token ids.
        seed: the seed of the order, the strands and the masks.
        batch_size: over all processes.
        first_step: steps that are left out at the beginning.
        process: index of this process, which reads the batch's rows from
            `process * batch_size / processes`.
        processes: number of processes.

    Raises:
        UserError: see `check_drawable`.
    """
    check_drawable(windows, config)
    examples = Examples(windows, config, tokenizer, seed, _TRAIN)
    steps = Steps(examples, batch_size=batch_size, process=process, processes=processes)
    reading = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=2 * config.threads)
    batches = grain.MapDataset.source(steps)[first_step:].to_iter_dataset(reading)
    if config.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, of which there are none here
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=config.workers)
        batches = batches.mp_prefetch(options, worker_init_fn=_settle)
    return iter(batches.map(examples.widen))


def _settle(worker: int, workers: int) -> None:
    """Prepares a worker: only its parent decides when it ends."""
    # Schedulers and terminals signal all processes, and the last step is yet to be saved.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def end_with(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent.sentinel,), daemon=True).start()


def validation_batches(
    windows: Windows,
    config: DataConfig,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
    genome: int | None = None,
) -> Iterator[Batch]:
    """Yields the held-out windows under masks that never change; each base counts the same.

    The last batch is completed with rows that have nothing to predict.

    Args:
        windows: windows that the sequence comes from.
        config: masking, how many windows, how many masks.
        tokenizer: letters to token ids.
        batch_size: over all processes.
        process: index of this process.
        processes: number of processes.
        genome: only the windows of this one; None takes those of all.
    """
    chosen = np.array(validated(windows, config))
    if genome is not None:
        here = windows.of_genome(genome)
        chosen = chosen[(chosen >= here.start) & (chosen < here.stop)]
    rows = [(i, i, mask) for mask in range(config.validation_masks) for i in chosen.tolist()]
    examples = Examples(
        windows, dataclasses.replace(config, soft_mask_weight=1.0), tokenizer, 0, _VALIDATION
    )
    share = batch_size // processes
    for first in range(process * share, len(rows) + process * share, batch_size):
        batch = examples.widen(examples.make(rows[first : first + share]))
        missing = share - len(batch["labels"])
        for name, fill in (("input_ids", tokenizer.pad_id), ("labels", tokenizer.pad_id)):
            batch[name] = np.pad(batch[name], ((0, missing), (0, 0)), constant_values=fill)
        batch["weights"] = np.ones(batch["labels"].shape, np.float32)
        yield batch


def validated(windows: Windows, config: DataConfig) -> list[int]:
    """Returns the numbers of the windows that are validated on, spread evenly.

    Args:
        windows: the held-out windows.
        config: settings with the number of windows; by default `VALIDATION_TOKENS` of tokens.
    """
    most = config.validation_windows
    if most is None:
        most = max(VALIDATION_TOKENS // windows.length, 1)
    count = min(len(windows), most or len(windows))
    return np.linspace(0, len(windows), count, endpoint=False).astype(int).tolist()


def prefetch_to_device(
    batches: Iterable[T], place: Callable[[T], S], count: int = 2
) -> Iterator[S]:
    """Places batches on devices before they are asked for.

    Args:
        batches: batches on the host.
        place: begins the transfer of one and returns without waiting.
        count: number of batches on their way while one is worked on.
    """
    source = iter(batches)
    waiting = collections.deque(map(place, itertools.islice(source, count)))
    while waiting:
        yield waiting.popleft()
        waiting.extend(map(place, itertools.islice(source, 1)))
