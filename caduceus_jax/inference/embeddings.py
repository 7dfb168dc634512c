"""Embeddings: the hidden states of many sequences, pooled or one per token."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, Inputs, Lengths, Shapes, run
from caduceus_jax.inference.loading import AnyModel, RcMode, checked_tokenizer, resolve_rc_mode
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.typing import PaddingMask, TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Pooling = Literal["mean", "center", "window"]
AnySequence = str | bytes | memoryview | np.ndarray

# Parts of sequences, counted in half-bases: base i is the half-bases 2 i and 2 i + 1. So a base in
# the middle of two overlapping tiles can belong to both.
Spans = Int[np.ndarray, "sequences 2"]


class Reading(NamedTuple):
    """Sets how hidden states are read from a model; checked, and the same for every batch.

    Attributes:
        tokenizer: the model's.
        strands: "mean" of both strands, both "side by side", or the "first" alone.
        n_blocks: blocks that are run.
        channels: number of channels of one vector.
    """

    tokenizer: Tokenizer
    strands: Literal["mean", "side by side", "first"]
    n_blocks: int
    channels: int


def reading(
    model: AnyModel,
    tokenizer: Tokenizer | None,
    *,
    rc_mode: RcMode | None = None,
    concatenate: bool = False,
    layer: int | None = None,
) -> Reading:
    """Checks how hidden states are to be read.

    Args:
        model: any model with a Caduceus backbone.
        tokenizer: the model's; by default the original's.
        rc_mode: "posthoc" or "equivariant" reads both strands and takes their mean, "none" the
            strand as given; None chooses by the model.
        concatenate: keep both strands' states side by side in place of their mean.
        layer: number of blocks to run, from the last one if negative; None runs all.

    Raises:
        UserError: a mode that contradicts the model, a layer that the model does not have, or a
            tokenizer that is not the model's.
    """
    rc_mode = resolve_rc_mode(model.config, rc_mode, scores=False)
    if concatenate and rc_mode == "none":
        raise UserError("concatenate needs both strands, and rc_mode is 'none': leave one out")
    tokenizer = checked_tokenizer(model, tokenizer, both_strands=rc_mode != "none")
    if not isinstance(model, CaduceusForMaskedLM):
        log.info("the model was fine-tuned: its hidden states are read, without the head")
    strands = "first" if rc_mode == "none" else "side by side" if concatenate else "mean"
    width = model.config.d_model * (2 if concatenate else 1)
    return Reading(tokenizer, strands, resolve_layer(model, layer), width)


def embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    window: int | None = None,
    rc_mode: RcMode | None = None,
    concatenate: bool = False,
    layer: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "sequences channels"]:
    """Computes one vector per sequence: its hidden states, pooled.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        tokenizer: the model's; by default the original's.
        pooling: "mean" over the sequence; the "center" token, index length // 2 (0-based); or the
            mean over a "window" in the middle.
        window: tokens of the window in the middle, whose index window // 2 is the sequence's index
            length // 2 (0-based); all of a sequence that is shorter.
        rc_mode: "posthoc" (a model that is not equivariant reads both strands) and "equivariant"
            give the mean of both strands, which is the same for a sequence and its reverse
            complement where it is pooled over all of it; "none" the strand as given. None chooses
            the one of the first two that fits the model.
        concatenate: both strands side by side in place of their mean; strand 1's channels are in
            the order of strand 0's.
        layer: K, the residual stream after the first K blocks (the sum of the embedding and of
            these blocks' outputs) as the model's final norm sees it: what a model of K blocks
            with the same parameters returns. By default all blocks, the model's final states;
            negative numbers count from the last block, which is -1. This is not the original's
            `hidden_states[K]`, which is a block's output before it is added to the stream. In
            released Caduceus-PS weights (`config.strand_swap`) each block exchanges the strands
            and reverses the channels, so that they are exchanged and reversed where K is odd.
        batch_size: sequences per batch; by default as many as keep the device busy.
        progress: show on standard error how far it is.

    Returns:
        (sequences, d_model) float32; (sequences, 2 * d_model) with `concatenate`.

    Raises:
        UserError: an unknown option, a mode that contradicts the model, a layer that the model
            does not have, an empty sequence, or a tokenizer that is not the model's.
    """
    how = reading(model, tokenizer, rc_mode=rc_mode, concatenate=concatenate, layer=layer)
    spans = pooled_spans(sequence_lengths(sequences), pooling, window)
    embeddings = np.empty((len(sequences), how.channels), np.float32)
    results = iterate_embeddings(model, sequences, spans, how, batch_size=batch_size)
    for row, pooled in _tracked(results, len(sequences), progress):
        embeddings[row] = pooled
    return embeddings


def embed_tokens(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    rc_mode: RcMode | None = None,
    concatenate: bool = False,
    layer: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> list[Float[np.ndarray, "length channels"]]:
    """Computes one vector per token: the hidden states of each sequence.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        tokenizer: the model's; by default the original's.
        rc_mode: "posthoc" and "equivariant" give the mean of both strands, "none" the strand as
            given; None chooses by the model. Position i of either strand is base i, 0-based, of
            the sequence.
        concatenate: both strands side by side in place of their mean.
        layer: number of blocks to run, from the last one if negative; by default all.
        batch_size: sequences per batch; by default as many as keep the device busy.
        progress: show on standard error how far it is.

    Returns:
        (length, d_model) float32 for each sequence; (length, 2 * d_model) with `concatenate`.

    Raises:
        UserError: an unknown option, a mode that contradicts the model, a layer that the model
            does not have, an empty sequence, or a tokenizer that is not the model's.
    """
    how = reading(model, tokenizer, rc_mode=rc_mode, concatenate=concatenate, layer=layer)
    states: list[Any] = [None] * len(sequences)
    results = iterate_embeddings(model, sequences, None, how, batch_size=batch_size)
    for row, tokens in _tracked(results, len(sequences), progress):
        states[row] = tokens.copy()
    return states


def iterate_embeddings(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    spans: Spans | None,
    how: Reading,
    *,
    batch_size: int | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "*length channels"]]]:
    """Computes the embeddings of sequences one at a time: the longest come first.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        spans: (sequences, 2) first half-base of each sequence that counts and the one after the
            last (base i is the half-bases 2 i and 2 i + 1, 0-based): the mean over these is taken.
            None takes no mean.
        how: the states are read.
        batch_size: sequences per batch; by default as many as keep the device busy.

    Yields:
        (number of the sequence, its vector (channels,) float32; or, where `spans` is None, its
        states (length, channels), a view of those of its batch).

    Raises:
        UserError: an empty sequence.
    """
    lengths = sequence_lengths(sequences)
    shapes = Shapes(lengths, batch_size)
    results = run(
        pooled_states,
        model,
        shapes.plan(lengths),
        embedding_inputs(sequences, lengths, spans, how.tokenizer, padded=shapes.padded),
        strands=how.strands,
        n_blocks=how.n_blocks,
    )
    if spans is not None:
        return results
    return ((row, states[: lengths[row]]) for row, states in results)


def embedding_inputs(
    sequences: Sequence[AnySequence],
    lengths: Lengths,
    spans: Spans | None,
    tokenizer: Tokenizer,
    *,
    padded: bool,
) -> Inputs:
    """Makes what makes the arguments of `pooled_states` for a batch.

    Args:
        sequences: DNA, or token ids (length,).
        lengths: (sequences,) tokens of each.
        spans: (sequences, 2) half-bases over which the mean is taken; None for all states.
        tokenizer: the model's.
        padded: whether there is padding to be masked, in this batch or in any other.
    """

    def inputs(batch: Batch) -> tuple[np.ndarray, tuple[np.ndarray | None, np.ndarray | None]]:
        """Makes ids, padding mask and spans of a batch."""
        ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
        for i, row in enumerate(batch.rows.tolist()):
            sequence = sequences[row]
            encoded = sequence if isinstance(sequence, np.ndarray) else tokenizer.encode(sequence)
            ids[i, : len(encoded)] = encoded
        real = np.arange(batch.length) < lengths[batch.rows][:, None]
        # No mask where nothing is padded: models have a faster path for that.
        return ids, (real if padded else None, None if spans is None else spans[batch.rows])

    return inputs


def sequence_lengths(sequences: Sequence[AnySequence]) -> Lengths:
    """Counts the tokens of each sequence.

    Raises:
        UserError: a sequence is empty.
    """
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if not lengths.all():
        raise UserError(f"sequence {int(lengths.argmin())} (0-based) is empty")
    return lengths


def pooled_spans(lengths: Lengths, pooling: Pooling, window: int | None) -> Spans:
    """Finds the half-bases of each sequence over which a pooling takes the mean.

    Args:
        lengths: (sequences,) tokens of each.
        pooling: "mean", "center" or "window", as `embed` describes them.
        window: tokens of the window in the middle.

    Raises:
        UserError: an unknown pooling, or a `window` without pooling "window" or the reverse.
    """
    if pooling not in get_args(Pooling):
        raise UserError(f"pooling is {pooling!r}; it is one of: {', '.join(get_args(Pooling))}")
    if (pooling == "window") != (window is not None):
        raise UserError("pooling window and a window, its length in bases, go together")
    if window is not None and window < 1:
        raise UserError(f"window is {window}; it must be at least 1")
    if pooling == "mean":
        start, end = np.zeros_like(lengths), lengths
    else:
        start = lengths // 2 - (window or 1) // 2
        start, end = np.maximum(start, 0), np.minimum(start + (window or 1), lengths)
    return 2 * np.stack([start, end], axis=1)


def resolve_layer(model: AnyModel, layer: int | None) -> int:
    """Finds the number of blocks that `layer` stands for.

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
    results: Iterator[tuple[int, np.ndarray]], total: int, progress: bool
) -> Iterator[tuple[int, np.ndarray]]:
    if not progress:
        return results
    return track(results, total=total, what="embedding", unit="sequences")


def pooled_states(
    model: AnyModel,
    ids: TokenIds,
    mask_and_spans: tuple[PaddingMask | None, Int[jax.Array, "batch 2"] | None],
    *,
    strands: Literal["mean", "side by side", "first"],
    n_blocks: int,
) -> Float[jax.Array, "batch *length channels"]:
    """Computes the states of a batch, and their means over spans.

    Args:
        model: any model with a Caduceus backbone.
        ids: (batch, length) token ids.
        mask_and_spans: which tokens are real, None where all are; and the half-bases (batch, 2)
            over which the mean is taken, None for all states.
        strands: "mean" averages the two strands, "side by side" concatenates their channels, and
            "first" reads the given strand alone.
        n_blocks: blocks that are run.
    """
    padding_mask, spans = mask_and_spans
    hidden, _ = model.caduceus(
        ids, padding_mask, both_strands=strands != "first", n_blocks=n_blocks
    )
    hidden = hidden.astype(jnp.float32)
    if strands == "mean":
        hidden = hidden.mean(axis=1)
    elif strands == "side by side":
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
