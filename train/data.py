"""From FASTA files to batches for the masked language model.

Positions are 0-based and half-open throughout.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np

from caduceus_jax.configs import find
from caduceus_jax.errors import UserError
from caduceus_jax.genomics.fasta import read_genome
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import DataConfig, names

Genome = dict[str, np.ndarray]  # contig -> (length,) uint8 letters; lower case is soft-masked
Batch = dict[str, np.ndarray]  # input_ids, labels int32 and weights float32, all (batch, length)
_N = ord("N")


class Block(NamedTuple):
    """A contiguous stretch of one contig that belongs to one split."""

    contig: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Splits:
    """The genome and which blocks of it are for what; the two lists do not overlap."""

    genome: Genome
    train: list[Block]
    validation: list[Block]


class Windows:
    """Windows of one length, in order: a random-access source for grain.

    Args:
        genome: contig -> letters.
        blocks: where windows may lie; none crosses a block's end.
        length: tokens per window. Where a block ends first, N completes the window.
        stride: bases from one window's start to the next.
        tokenizer: letters to token ids.
        soft_mask_weight: weight of lower-case bases.
    """

    def __init__(
        self,
        genome: Genome,
        blocks: list[Block],
        *,
        length: int,
        stride: int,
        tokenizer: Tokenizer,
        soft_mask_weight: float = 1.0,
    ):
        self.genome, self.length, self.tokenizer = genome, length, tokenizer
        self.soft_mask_weight = soft_mask_weight
        found = [_windows(genome[block.contig], block, length, stride) for block in blocks]
        self.contigs = [block.contig for block in blocks]
        self.block = np.repeat(np.arange(len(blocks)), [len(w) for w in found])
        self.start, self.end = np.concatenate([np.empty((0, 2), np.int64), *found]).T

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (length,) int32 and loss weights (length,) float32 of a window."""
        letters = np.full(self.length, _N, np.uint8)
        start, end = self.start[index], self.end[index]
        letters[: end - start] = self.genome[self.contigs[self.block[index]]][start:end]
        soft = letters >= ord("a")
        weights = np.where(soft, self.soft_mask_weight, 1.0).astype(np.float32)
        return self.tokenizer.encode(letters.tobytes()), weights


def read_splits(config: DataConfig) -> Splits:
    """Reads the FASTA files and splits them by contig, or by position on each contig.

    Raises:
        UserError: no file, unreadable files, contigs of the same name, names of contigs that do
            not exist, or a split that is empty.
    """
    if not names(config.fasta):
        raise UserError("no genome to train on: name one with --data.fasta genome.fa")
    genome: Genome = {}
    for path in names(config.fasta):
        for name, letters in read_genome(find(path)):
            if name in genome:
                raise UserError(
                    f"{path} has a contig {name}, and so has a file before it: rename one"
                )
            genome[name] = letters
    validated, tested = names(config.validation_contigs), names(config.test_contigs)
    if unknown := [name for name in (*validated, *tested) if name not in genome]:
        some = ", ".join(list(genome)[:9]) + (" ..." if len(genome) > 9 else "")
        raise UserError(f"there is no contig {unknown[0]} to hold out; there are {some}")
    train, validation = [], []
    for name, letters in genome.items():
        if name in tested:
            continue
        # One cut a contig: neighbouring windows share repeats and genes, so splits that
        # interleave would leak.
        cut = len(letters)
        if validated:
            cut = 0 if name in validated else cut
        else:
            cut -= round(cut * config.validation_fraction)
        train += [Block(name, 0, cut)] if cut else []
        validation += [Block(name, cut, len(letters))] if cut < len(letters) else []
    return Splits(genome, train, validation)


def train_dataset(
    windows: Windows,
    config: DataConfig,
    *,
    seed: int,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
) -> grain.IterDataset:
    """Endless batches: every window once an epoch, in a new order and under new masks each time.

    What an example of a step looks like depends on the seed and its number alone, whatever the
    number of processes and threads. Iterators know where they are and can be saved.

    Args:
        windows: where the sequence comes from.
        config: masking and strands.
        seed: of the order, the strands and the masks.
        batch_size: over all processes.
        process: index of this process, whose share of each batch is read.
        processes: how many there are.

    Raises:
        UserError: there is no window.
    """
    if not len(windows):
        raise UserError("the genome has no sequence to train on: it is all N, or all held out")

    def example(window: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> Batch:
        ids, weights = window
        if config.rc_mode == "augment" and rng.random() < 0.5:
            ids, weights = windows.tokenizer.reverse_complement(ids), weights[::-1]
        input_ids, labels = mask_tokens(
            ids, rng, probability=config.mask_probability, tokenizer=windows.tokenizer
        )
        return {"input_ids": input_ids, "labels": labels, "weights": weights}

    examples = (
        grain.MapDataset.source(windows)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(example)[process::processes]
    )
    batches = examples.batch(batch_size // processes)
    return batches.to_iter_dataset(
        grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=2 * config.threads)
    )


def validation_batches(
    windows: Windows,
    config: DataConfig,
    *,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """The held-out windows under masks that never change, each base counted the same everywhere.

    The last batch is completed with rows that have nothing to predict.

    Args:
        windows: where the sequence comes from.
        config: masking, how many windows, how many masks.
        batch_size: over all processes.
        process: index of this process.
        processes: how many there are.
    """
    count = min(len(windows), config.validation_windows or len(windows))
    chosen = np.linspace(0, len(windows), count, endpoint=False).astype(int)
    rows = [(i, mask) for mask in range(config.validation_masks) for i in chosen]
    pad = windows.tokenizer.pad_id
    for first in range(0, len(rows), batch_size):
        batch = {
            "input_ids": np.full((batch_size, windows.length), pad, np.int32),
            "labels": np.full((batch_size, windows.length), pad, np.int32),
            "weights": np.ones((batch_size, windows.length), np.float32),
        }
        for row, (index, mask) in enumerate(rows[first : first + batch_size]):
            batch["input_ids"][row], batch["labels"][row] = mask_tokens(
                windows[index][0],
                np.random.default_rng((index, mask)),
                probability=config.mask_probability,
                tokenizer=windows.tokenizer,
            )
        yield {name: array[process::processes] for name, array in batch.items()}


def mask_tokens(
    ids: np.ndarray, rng: np.random.Generator, *, probability: float, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Hides some tokens, as the original does (Devlin et al. 2019, section 3.1).

    Each token is chosen with the same probability, special ones too. Of the chosen, 80 % become
    [MASK], 10 % any token of the vocabulary and 10 % stay. N is [PAD] in what the model reads and
    in what it is asked for, so it never counts.

    Args:
        ids: token ids of any shape.
        rng: where chance comes from.
        probability: of a token to be chosen.
        tokenizer: the vocabulary.

    Returns:
        What the model reads, and what it should say: [PAD] where nothing is asked. Both like
        `ids`, int32.
    """
    pad = np.int32(tokenizer.pad_id)
    ids = np.where(ids == tokenizer.n_id, pad, ids)
    # One draw decides all: [0, 80 %) of the chosen are hidden, [80, 90 %) replaced, the rest kept.
    draw = rng.random(ids.shape) / probability
    anything = rng.integers(tokenizer.vocab_size, size=ids.shape, dtype=np.int32)
    read = np.where(draw < 0.8, np.int32(tokenizer.mask_id), np.where(draw < 0.9, anything, ids))
    return read, np.where(draw < 1, ids, pad)


def _windows(letters: np.ndarray, block: Block, length: int, stride: int) -> np.ndarray:
    """(windows, 2) starts and ends within a block, without those of N alone."""
    # A start whose window would add nothing to the one before it is left out.
    last = max(block.end - block.start - length + stride, 1)
    starts = np.arange(block.start, block.start + last, stride)
    ends = np.minimum(starts + length, block.end)
    known = (letters != _N) & (letters != ord("n"))
    # Alternating starts and ends: every second result covers one window. The appended element
    # makes the contig's end a valid index.
    pairs = np.stack([starts, ends], axis=1)
    some = np.logical_or.reduceat(np.append(known, False), pairs.ravel())[::2]
    return pairs[some]
