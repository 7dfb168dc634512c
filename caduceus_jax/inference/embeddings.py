"""Embeddings: the hidden states of many sequences, pooled or one a token."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, plan, run
from caduceus_jax.inference.loading import AnyModel, checked_tokenizer
from caduceus_jax.model.typing import PaddingMask, TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

Pooling = Literal["mean", "center", "window"]
StrandMode = Literal["average", "concatenate", "forward"]
AnySequence = str | bytes | memoryview | np.ndarray

# Stretches of sequences, counted in half-bases: base i is the half-bases 2 i and 2 i + 1. So a base
# in the middle of two overlapping tiles can belong to both.
Spans = Int[np.ndarray, "sequences 2"]


def embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    pool_window: int | None = None,
    strands: StrandMode = "average",
    layer: int | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "sequences channels"]:
    """One vector a sequence: the hidden states, pooled.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        tokenizer: of the model; the original's by default.
        pooling: "mean" over the sequence; the "center" token, index length // 2 (0-based); or the
            mean over a "window" in the middle, see `pool_window`.
        pool_window: tokens of the window, whose index pool_window // 2 is the sequence's index
            length // 2 (0-based); all of a sequence that is shorter.
        strands: "average" of both strands, both side by side ("concatenate": strand 1's channels
            are in the order of strand 0's), or the strand given alone ("forward"). The average of
            mean-pooled states is the same for a sequence and its reverse complement.
        layer: K, the residual stream after the first K blocks (the sum of the embedding and of
            these blocks' outputs) as the model's final norm sees it: what a model of K blocks
            with the same parameters returns. By default all blocks, the model's final states;
            negative numbers count from the last block, which is -1. This is not the original's
            `hidden_states[K]`, which is a block's output before it is added to the stream. In
            released Caduceus-PS weights (`config.strand_swap`) each block exchanges the strands
            and reverses the channels, so that they are exchanged and reversed where K is odd.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (sequences, d_model) float32; (sequences, 2 * d_model) for "concatenate".

    Raises:
        UserError: an unknown option, a layer that the model does not have, an empty sequence, or
            a tokenizer that is not the model's.
    """
    lengths = sequence_lengths(sequences)
    embeddings = np.empty((len(sequences), channels(model, strands)), np.float32)
    results = iterate_embeddings(
        model,
        sequences,
        pooled_spans(lengths, pooling, pool_window),
        tokenizer=tokenizer,
        strands=strands,
        layer=layer,
        batch_size=batch_size,
    )
    for row, pooled in _tracked(results, len(sequences), show_progress):
        embeddings[row] = pooled
    return embeddings


def embed_tokens(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    strands: StrandMode = "average",
    layer: int | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> list[Float[np.ndarray, "length channels"]]:
    """One vector a token: the hidden states of each sequence.

    Args:
        model: as for `embed`.
        sequences: as for `embed`.
        tokenizer: as for `embed`.
        strands: as for `embed`; position i of either strand is base i, 0-based, of the sequence.
        layer: as for `embed`.
        batch_size: as for `embed`.
        show_progress: as for `embed`.

    Returns:
        (length, d_model) float32 for each sequence; (length, 2 * d_model) for "concatenate".

    Raises:
        UserError: as for `embed`.
    """
    states: list[Any] = [None] * len(sequences)
    results = iterate_embeddings(
        model,
        sequences,
        None,
        tokenizer=tokenizer,
        strands=strands,
        layer=layer,
        batch_size=batch_size,
    )
    for row, tokens in _tracked(results, len(sequences), show_progress):
        states[row] = tokens.copy()
    return states


def iterate_embeddings(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    spans: Spans | None,
    *,
    tokenizer: Tokenizer | None = None,
    strands: StrandMode = "average",
    layer: int | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "*length channels"]]]:
    """The embeddings of sequences one at a time, as they are computed: the longest come first.

    Args:
        model: as for `embed`.
        sequences: as for `embed`.
        spans: (sequences, 2) first half-base of each sequence that counts and the one after the
            last (base i is the half-bases 2 i and 2 i + 1, 0-based): the mean over these is taken.
            None takes no mean.
        tokenizer: as for `embed`.
        strands: as for `embed`.
        layer: as for `embed`.
        batch_size: as for `embed`.

    Returns:
        (number of the sequence, its vector (channels,) float32; or, where `spans` is None, its
        states (length, channels), a view of those of its batch).

    Raises:
        UserError: as for `embed`, before anything is computed.
    """
    _check_choice("strands", strands, get_args(StrandMode))
    tokenizer = checked_tokenizer(model, tokenizer, both_strands=strands != "forward")
    n_blocks = resolve_layer(model, layer)
    lengths = sequence_lengths(sequences)
    mixed = len(np.unique(lengths)) > 1

    def inputs(batch: Batch) -> tuple[np.ndarray, tuple[np.ndarray | None, np.ndarray | None]]:
        ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
        for i, row in enumerate(batch.rows):
            sequence = sequences[row]
            encoded = sequence if isinstance(sequence, np.ndarray) else tokenizer.encode(sequence)
            ids[i, : len(encoded)] = encoded
        real = np.arange(batch.length) < lengths[batch.rows][:, None]
        # No mask where nothing is padded: models have a faster path for that.
        return ids, (real if mixed else None, None if spans is None else spans[batch.rows])

    results = run(
        _embed_batch,
        model,
        plan(lengths, batch_size),
        inputs,
        strands=strands,
        n_blocks=n_blocks,
    )
    if spans is not None:
        return results
    return ((row, states[: lengths[row]]) for row, states in results)


def sequence_lengths(sequences: Sequence[AnySequence]) -> Int[np.ndarray, " sequences"]:
    """Tokens of each sequence.

    Raises:
        UserError: a sequence is empty.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if not lengths.all():
        raise UserError(f"sequence {int(lengths.argmin())} (0-based) is empty")
    return lengths


def pooled_spans(
    lengths: Int[np.ndarray, " sequences"], pooling: Pooling, pool_window: int | None
) -> Spans:
    """The half-bases of each sequence that a pooling takes the mean of; see `embed`.

    Raises:
        UserError: an unknown pooling, or a `pool_window` without "window" or the reverse.
    """
    _check_choice("pooling", pooling, get_args(Pooling))
    if (pooling == "window") != (pool_window is not None):
        raise UserError("pooling window and a pool_window, its length in bases, go together")
    if pool_window is not None and pool_window < 1:
        raise UserError(f"pool_window is {pool_window}; it must be at least 1")
    if pooling == "mean":
        start, end = np.zeros_like(lengths), lengths
    else:
        window = pool_window or 1
        start = lengths // 2 - window // 2
        start, end = np.maximum(start, 0), np.minimum(start + window, lengths)
    return 2 * np.stack([start, end], axis=1)


def channels(model: AnyModel, strands: StrandMode) -> int:
    """Length of an embedding."""
    return model.config.d_model * (2 if strands == "concatenate" else 1)


def resolve_layer(model: AnyModel, layer: int | None) -> int:
    """The number of blocks that `layer` stands for; see `embed`.

    Raises:
        UserError: the model does not have that many.
    """
    depth = model.config.n_layer
    n_blocks = depth if layer is None else layer + (depth + 1 if layer < 0 else 0)
    if not 0 < n_blocks <= depth:
        raise UserError(
            f"layer is {layer} and the model has {depth} blocks: it is from 1 to {depth}, or from "
            f"-{depth} to -1"
        )
    return n_blocks


def _tracked(
    results: Iterator[tuple[int, np.ndarray]], total: int, show_progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    if not show_progress:
        return results
    return track(results, total=total, what="embedding", unit="sequences")


def _embed_batch(
    model: AnyModel,
    ids: TokenIds,
    mask_and_spans: tuple[PaddingMask | None, Int[jax.Array, "batch 2"] | None],
    *,
    strands: StrandMode,
    n_blocks: int,
) -> jax.Array:
    padding_mask, spans = mask_and_spans
    hidden, _ = model.caduceus(
        ids, padding_mask, both_strands=strands != "forward", n_blocks=n_blocks
    )
    hidden = hidden.astype(jnp.float32)
    if strands == "average":
        hidden = hidden.mean(axis=1)
    elif strands == "concatenate":
        hidden = rearrange(hidden, "b s l d -> b l (s d)")
    else:
        hidden = hidden[:, 0]
    if spans is None:
        return hidden
    # How many of each base's two halves lie in the span.
    first = 2 * jnp.arange(ids.shape[1])[None]
    start, end = spans[:, :1], spans[:, 1:]
    halves = jnp.minimum(first + 2, end) - jnp.maximum(first, start)
    weights = jnp.clip(halves, 0) / (end - start)
    return jnp.sum(jnp.where(halves[..., None] > 0, hidden * weights[..., None], 0), axis=1)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; it is one of: {', '.join(choices)}")
