"""Masked log-probabilities: what a model expects where it sees nothing."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, TokenRows, plan, run
from caduceus_jax.inference.loading import checked_tokenizer
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.typing import TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

Positions = Int[np.ndarray, " rows"] | Int[np.ndarray, "rows masks"]


def masked_log_probabilities(
    model: CaduceusForMaskedLM,
    ids: TokenRows,
    positions: Positions,
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
    show_progress: bool = False,
) -> Float[np.ndarray, "rows 4"] | Float[np.ndarray, "rows masks 4"]:
    """What the model expects at masked positions of each sequence.

    Caduceus-PS sums both strands' logits; of any other model the log-probabilities of both strands
    are averaged ("post-hoc conjoining", Schiff et al. 2024).

    Args:
        model: a masked language model.
        ids: (rows, length) token ids.
        positions: (rows,) index of the token that is masked, 0-based; or (rows, masks), which are
            masked together, -1 where a sequence has fewer.
        tokenizer: of the model; the original's by default.
        batch_size: sequences a batch; by default as many as the device keeps busy.
        show_progress: say on standard error how far it is.

    Returns:
        (rows, 4) or (rows, masks, 4) float32 natural logarithms for A, C, G and T, normalised over
        the vocabulary; NaN where a position is -1.

    Raises:
        UserError: a position outside its sequence, or a tokenizer that is not the model's.
    """
    log_probabilities = np.empty((*positions.shape, 4), np.float32)
    results = iterate_masked_log_probabilities(
        model, ids, positions, tokenizer=tokenizer, batch_size=batch_size
    )
    if show_progress:
        results = track(results, total=len(positions), what="scoring", unit="positions")
    for row, values in results:
        log_probabilities[row] = values
    return log_probabilities


def iterate_masked_log_probabilities(
    model: CaduceusForMaskedLM,
    ids: TokenRows,
    positions: Positions,
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "*masks 4"]]]:
    """`masked_log_probabilities`, one sequence at a time as they are computed.

    Returns:
        (row, log-probabilities) of every row, in the order of the rows.
    """
    rows, length = ids.shape
    tokenizer = checked_tokenizer(model, tokenizer, both_strands=True)
    single = positions.ndim == 1
    least = 0 if single else -1
    if len(positions) != rows or not ((least <= positions) & (positions < length)).all():
        raise UserError(f"positions must be {rows} indices from 0 to {length - 1}, one a sequence")
    masks = positions[:, None] if single else positions
    batches = plan(np.full(rows, length), batch_size)

    def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(ids[batch.rows], np.int32), masks[batch.rows].astype(np.int32)

    results = run(
        _masked_batch,
        model,
        batches,
        inputs,
        mask_id=tokenizer.mask_id,
        base_ids=tokenizer.base_ids,
    )
    return ((row, values[0]) for row, values in results) if single else results


def _masked_batch(
    model: CaduceusForMaskedLM,
    ids: TokenIds,
    positions: Int[jax.Array, "batch masks"],
    *,
    mask_id: int,
    base_ids: tuple[int, ...],
) -> Float[jax.Array, "batch masks 4"]:
    rows, rcps, real = jnp.arange(len(ids))[:, None], model.config.rcps, positions >= 0
    # A write beyond the end is dropped.
    outside = ids.shape[1]
    masked = ids.at[rows, jnp.where(real, positions, outside)].set(mask_id, mode="drop")
    hidden, _ = model.caduceus(masked, both_strands=not rcps)
    at_masks = hidden[rows, :, jnp.where(real, positions, 0)]
    logits = model.head(rearrange(at_masks, "b m s d -> b s m d"))
    if rcps:
        logits = logits.sum(axis=1, keepdims=True)
    expected = jax.nn.log_softmax(logits).mean(axis=1)[..., jnp.array(base_ids)]
    return jnp.where(real[..., None], expected, jnp.nan)
