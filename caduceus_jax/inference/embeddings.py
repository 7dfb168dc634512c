"""Embeddings: the final hidden states of many sequences, pooled or one a token."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, plan, run
from caduceus_jax.inference.loading import AnyModel, checked_tokenizer
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.typing import PaddingMask, TokenIds

Pooling = Literal["mean", "center"]
StrandMode = Literal["average", "concatenate", "forward"]
AnySequence = str | bytes | np.ndarray


def embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    pooling: Pooling = "mean",
    strands: StrandMode = "average",
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "sequences channels"]:
    """One vector a sequence: the final hidden states, pooled.

    Args:
        model: any model with a Caduceus backbone.
        sequences: DNA, or token ids (length,); of any lengths.
        tokenizer: of the model; the original's by default.
        pooling: "mean" over the sequence, or the "center" token: index length // 2, 0-based.
        strands: "average" of both strands, both side by side ("concatenate": strand 1's channels
            are in the order of strand 0's), or the strand given alone ("forward"). The average of
            mean-pooled states is the same for a sequence and its reverse complement.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (sequences, d_model) float32; (sequences, 2 * d_model) for "concatenate".

    Raises:
        UserError: an unknown option, an empty sequence, or a tokenizer that is not the model's.
    """
    _check_choice("pooling", pooling, get_args(Pooling))
    channels = model.config.d_model * (2 if strands == "concatenate" else 1)
    embeddings = np.empty((len(sequences), channels), np.float32)
    for row, pooled in _embed(
        model, sequences, tokenizer, pooling, strands, batch_size, show_progress
    ):
        embeddings[row] = pooled
    return embeddings


def embed_tokens(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    *,
    tokenizer: Tokenizer | None = None,
    strands: StrandMode = "average",
    batch_size: int | None = None,
    show_progress: bool = False,
) -> list[Float[np.ndarray, "length channels"]]:
    """One vector a token: the final hidden states of each sequence.

    Args:
        model: as for `embed`.
        sequences: as for `embed`.
        tokenizer: as for `embed`.
        strands: as for `embed`; position i of either strand is base i, 0-based, of the sequence.
        batch_size: as for `embed`.
        show_progress: as for `embed`.

    Returns:
        (length, d_model) float32 for each sequence; (length, 2 * d_model) for "concatenate".

    Raises:
        UserError: as for `embed`.
    """
    states: list[Any] = [None] * len(sequences)
    for row, tokens in _embed(
        model, sequences, tokenizer, None, strands, batch_size, show_progress
    ):
        states[row] = tokens[: len(sequences[row])].copy()
    return states


def _embed(
    model: AnyModel,
    sequences: Sequence[AnySequence],
    tokenizer: Tokenizer | None,
    pooling: Pooling | None,
    strands: StrandMode,
    batch_size: int | None,
    show_progress: bool,
) -> Iterable[tuple[int, np.ndarray]]:
    """(number, result) of each sequence, in the order in which they are computed."""
    _check_choice("strands", strands, get_args(StrandMode))
    tokenizer = checked_tokenizer(model, tokenizer, both_strands=strands != "forward")
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    if not lengths.all():
        raise UserError(f"sequence {int(lengths.argmin())} (0-based) is empty")

    def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
        ids = np.full((len(batch.rows), batch.length), tokenizer.pad_id, np.int32)
        for i, row in enumerate(batch.rows):
            sequence = sequences[row]
            encoded = sequence if isinstance(sequence, np.ndarray) else tokenizer.encode(sequence)
            ids[i, : len(encoded)] = encoded
        real = np.arange(batch.length) < lengths[batch.rows][:, None]
        # No mask where nothing is padded: models have a faster path for that.
        return ids, None if len(np.unique(lengths)) == 1 else real

    batches = plan(lengths, batch_size)
    results = run(_embed_batch, model, batches, inputs, pooling=pooling, strands=strands)
    if show_progress:
        results = track(results, total=len(sequences), what="embedding", unit="sequences")
    return results


def _embed_batch(
    model: AnyModel,
    ids: TokenIds,
    padding_mask: PaddingMask | None,
    *,
    pooling: Pooling | None,
    strands: StrandMode,
) -> jax.Array:
    hidden, _ = model.caduceus(ids, padding_mask, both_strands=strands != "forward")
    hidden = hidden.astype(jnp.float32)
    if strands == "average":
        hidden = hidden.mean(axis=1)
    elif strands == "concatenate":
        hidden = rearrange(hidden, "b s l d -> b l (s d)")
    else:
        hidden = hidden[:, 0]
    if pooling is None:
        return hidden
    real = jnp.ones(ids.shape, bool) if padding_mask is None else padding_mask
    if pooling == "mean":
        return jnp.mean(hidden, axis=1, where=real[:, :, None])
    # Padding is on the right.
    return hidden[jnp.arange(len(ids)), real.sum(axis=1) // 2]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; it is one of: {', '.join(choices)}")
