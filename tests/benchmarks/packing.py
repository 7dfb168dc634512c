"""Measures what packing short sequences into rows saves against padding each to the window.

python tests/benchmarks/packing.py

Two cases, each a gradient of all parameters: a classifier on rows of 200 bases in a window of
1,024, and a masked language model on contigs of 200 to 4,096 bases in a window of 4,096. Every form
of a case computes the same losses of the same sequences:

- padded: a sequence per row, padded to the window;
- own length: rows of 200 bases, as `finetune` makes them (the classifier only);
- packed: as many sequences per row as fit, told apart by `segment_ids`.

Prints the share of tokens that are bases, and seconds of processor time, of all threads, per
million bases: by the clock a machine that is busy with other work says little. The loss of each
form is printed too: they agree.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import caduceus_jax as cj

_PAD = 4
_SHORT, _ROW, _SHORTEST, _WINDOW = 200, 1_024, 200, 4_096


class Rows(NamedTuple):
    """Sequences in rows."""

    ids: np.ndarray  # (rows, length) token ids
    segments: np.ndarray  # (rows, length) int32: 1, 2, ... in each row, 0 on padding
    members: np.ndarray  # (rows, most sequences of a row): number of the sequence, or -1


def place(lengths: np.ndarray, window: int) -> list[list[int]]:
    """Packs sequences into rows, the longest first, each into the first row that has room."""
    rows, room = [], []
    for i in np.argsort(-lengths, kind="stable"):
        row = next((k for k, left in enumerate(room) if left >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(window)
        rows[row].append(int(i))
        room[row] -= lengths[i]
    return rows


def fill(sequences: list[np.ndarray], rows: list[list[int]], window: int) -> Rows:
    """Writes sequences into rows."""
    ids = np.full((len(rows), window), _PAD, np.int32)
    segments = np.zeros((len(rows), window), np.int32)
    members = np.full((len(rows), max(map(len, rows))), -1)
    for row, numbers in enumerate(rows):
        start = 0
        for k, number in enumerate(numbers):
            end = start + len(sequences[number])
            ids[row, start:end], segments[row, start:end] = sequences[number], k + 1
            members[row, k], start = number, end
    return Rows(ids, segments, members)


def classifier_loss(model: Any, rows: Rows, labels: jax.Array) -> jax.Array:
    """Computes the mean loss of all sequences in rows."""
    count = rows.members.shape[1]
    if count == 1:
        logits = model(rows.ids, rows.segments > 0).logits
    else:
        logits = model(rows.ids, segment_ids=rows.segments, num_segments=count).logits
    members = rows.members.reshape(-1)
    logits = logits.reshape(len(members), -1)
    weights = (members >= 0).astype(jnp.float32)
    return cj.classification_loss(logits, labels[jnp.maximum(members, 0)], weights=weights)


def mask(rows: Rows, share: np.ndarray) -> np.ndarray:
    """Tells which bases are masked, (rows, length): by their places in their sequences."""
    starts = np.concatenate([np.ones((len(rows.ids), 1), bool), np.diff(rows.segments) != 0], 1)
    index = np.arange(rows.ids.shape[1])
    place = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
    return share[place] & (rows.segments > 0)


def language_loss(model: Any, rows: Rows, hidden: jax.Array) -> jax.Array:
    """Computes the mean loss of the masked bases."""
    ids = jnp.where(hidden, 3, rows.ids)
    if rows.members.shape[1] == 1:
        logits = model(ids, rows.segments > 0).logits
    else:
        logits = model(ids, segment_ids=rows.segments).logits
    return cj.masked_lm_loss(logits, jnp.where(hidden, rows.ids, _PAD))


def measure(
    name: str, loss: Callable[..., jax.Array], model: Any, rows: Rows, given: Any, repeats: int
) -> None:
    """Prints what a gradient of the loss takes."""
    share = (rows.segments > 0).mean()
    run = jax.jit(jax.value_and_grad(loss))
    value, _ = jax.block_until_ready(run(model, rows, given))
    start = time.process_time()
    for _ in range(repeats):
        jax.block_until_ready(run(model, rows, given))
    seconds = (time.process_time() - start) / repeats
    rate = seconds / (share * rows.ids.size) * 1e6
    print(
        f"{name}: {len(rows.ids)} rows of {rows.ids.shape[1]:,}, {100 * share:.0f} % bases, "
        f"{rate:.1f} s of processor time per million bases, loss {value:.6f}",
        flush=True,
    )


def main() -> None:
    """Measures both cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--n-layer", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config = cj.CaduceusConfig(d_model=arguments.d_model, n_layer=arguments.n_layer, rcps=True)
    rng = np.random.default_rng(0)
    count, repeats = arguments.sequences, arguments.repeats

    classifier = cj.CaduceusForSequenceClassification(config, rngs=nnx.Rngs(0))
    sequences = [rng.integers(7, 11, _SHORT) for _ in range(count)]
    labels, alone = jnp.asarray(rng.integers(0, 2, count)), [[i] for i in range(count)]
    packed = place(np.full(count, _SHORT), _ROW)
    for name, rows, length in (
        ("padded", alone, _ROW),
        ("own length", alone, _SHORT),
        ("packed", packed, _ROW),
    ):
        filled = fill(sequences, rows, length)
        measure(f"classifier, {name}", classifier_loss, classifier, filled, labels, repeats)

    model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    # As many contigs of 200 to 400 bases as of 2,000 to 4,000: so it is in many assemblies.
    lengths = np.exp(rng.uniform(np.log(_SHORTEST), np.log(_WINDOW), count // 2)).astype(int)
    sequences = [rng.integers(7, 11, n) for n in lengths]
    masked = rng.random(_WINDOW) < 0.15
    alone, packed = [[i] for i in range(len(lengths))], place(lengths, _WINDOW)
    for name, rows in (("padded", alone), ("packed", packed)):
        filled = fill(sequences, rows, _WINDOW)
        measure(
            f"language model, {name}", language_loss, model, filled, mask(filled, masked), repeats
        )


if __name__ == "__main__":
    main()
