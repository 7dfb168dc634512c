"""Masked log-probabilities: what a model predicts for bases that it does not see."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.inference.batches import Batch, Inputs, TokenRows, plan, run
from caduceus_jax.inference.loading import RcMode, checked_tokenizer, resolve_rc_mode
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.mamba import take
from caduceus_jax.model.typing import TokenIds
from caduceus_jax.progress import track
from caduceus_jax.tokenizer import Tokenizer

# Masks this near to the middle of a sequence share a program, which ends the last block there.
_BAND = 64
_SHORTEST = 512  # tokens of a sequence that is worth it
# Passes that save more time than compiling the last block apart takes.
_WORTH_COMPILING = {"cpu": 1_024}
_WORTH_COMPILING_ELSEWHERE = 65_536

Positions = Int[np.ndarray, " rows"] | Int[np.ndarray, "rows masks"]


def masked_log_probabilities(
    model: CaduceusForMaskedLM,
    ids: TokenRows,
    positions: Positions,
    *,
    tokenizer: Tokenizer | None = None,
    rc_mode: RcMode | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Float[np.ndarray, "rows 4"] | Float[np.ndarray, "rows masks 4"]:
    """Predicts masked positions of each sequence.

    Args:
        model: a masked language model.
        ids: (rows, length) token ids.
        positions: (rows,) index of the token that is masked, 0-based; or (rows, masks), which are
            masked together, -1 where a sequence has fewer.
        tokenizer: the model's; by default the original's.
        rc_mode: "equivariant", which sums both strands' logits as the model does; "posthoc", which
            averages the log-probabilities of both strands (Schiff et al. 2024, section 4.2);
            "none", the strand as given. None chooses by the model.
        batch_size: sequences per batch; by default as many as keep the device busy.
        progress: show on standard error how far it is.

    Returns:
        (rows, 4) or (rows, masks, 4) float32 natural logarithms for A, C, G and T, normalised over
        the vocabulary; NaN where a position is -1.

    Raises:
        UserError: a position outside its sequence, a mode that contradicts the model, or a
            tokenizer that is not the model's.
    """
    log_probabilities = np.empty((*positions.shape, 4), np.float32)
    results = iterate_masked_log_probabilities(
        model, ids, positions, tokenizer=tokenizer, rc_mode=rc_mode, batch_size=batch_size
    )
    if progress:
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
    rc_mode: RcMode | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[int, Float[np.ndarray, "*masks 4"]]]:
    """Predicts masked positions, one sequence at a time as they are computed.

    Args:
        model: a masked language model.
        ids: (rows, length) token ids.
        positions: (rows,) or (rows, masks) indices of masked tokens, 0-based.
        tokenizer: the model's; by default the original's.
        rc_mode: "equivariant", "posthoc" or "none", as in `masked_log_probabilities`; None chooses
            by the model.
        batch_size: sequences per batch; by default as many as keep the device busy.

    Yields:
        (row, log-probabilities) of every row, in the order of the rows.

    Raises:
        UserError: a position outside its sequence, a mode that contradicts the model, or a
            tokenizer that is not the model's; raised before anything is computed.
    """
    rows, length = ids.shape
    static = masked_options(model, tokenizer, rc_mode, passes=rows)
    single = positions.ndim == 1
    least = 0 if single else -1
    if len(positions) != rows or not ((least <= positions) & (positions < length)).all():
        raise UserError(
            f"positions must be {rows} indices from 0 to {length - 1}, one per sequence"
        )
    masks = positions[:, None] if single else positions
    batches = plan(np.full(rows, length), batch_size)
    results = run(masked_batch, model, batches, masked_inputs(ids, masks), **static)
    return ((row, values[0]) for row, values in results) if single else results


def masked_options(
    model: CaduceusForMaskedLM,
    tokenizer: Tokenizer | None,
    rc_mode: RcMode | None,
    *,
    passes: int = 0,
) -> dict[str, object]:
    """Checks how masked positions are predicted: the keyword arguments of `masked_batch`.

    Args:
        model: a masked language model.
        tokenizer: the model's; by default the original's.
        rc_mode: None chooses by the model.
        passes: sequences that will be run, in all processes.

    Raises:
        UserError: not a language model, a mode that contradicts the model, or a tokenizer that is
            not the model's.
    """
    if not isinstance(model, CaduceusForMaskedLM):
        raise UserError(
            "the model was fine-tuned and has no language-model head, which predicts masked bases: "
            "name a masked language model, such as the one that it was fine-tuned from"
        )
    rc_mode = resolve_rc_mode(model.config, rc_mode, scores=True)
    tokenizer = checked_tokenizer(model, tokenizer, both_strands=rc_mode != "none")
    worth = _WORTH_COMPILING.get(jax.default_backend(), _WORTH_COMPILING_ELSEWHERE)
    return {
        "mask_id": tokenizer.mask_id,
        "base_ids": tokenizer.base_ids,
        "both_strands": rc_mode == "posthoc",
        "within": _band if passes >= worth else None,
    }


def _band(ids: TokenRows, positions: Int[np.ndarray, "rows masks"]) -> tuple[int, int] | None:
    """Returns bounds (first, stop) near the middle that all masks of a batch are in, if they are.

    They are the same for most batches, as each pair of bounds is compiled for.
    """
    middle = ids.shape[1] // 2 // _BAND * _BAND
    first, stop = middle - _BAND, middle + 2 * _BAND
    near = (positions < 0) | ((positions >= first) & (positions < stop))
    return (first, stop) if ids.shape[1] >= _SHORTEST and near.all() else None


def masked_inputs(ids: TokenRows, masks: Int[np.ndarray, "rows masks"]) -> Inputs:
    """Makes what makes the arguments of `masked_batch` for a batch.

    Args:
        ids: (rows, length) token ids.
        masks: (rows, masks) indices of masked tokens, 0-based; -1 where there are fewer.
    """

    def inputs(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Makes ids and masked positions of a batch."""
        return np.asarray(ids[batch.rows], np.int32), masks[batch.rows].astype(np.int32)

    return inputs


def masked_batch(
    model: CaduceusForMaskedLM,
    ids: TokenIds,
    positions: Int[jax.Array, "batch masks"],
    *,
    mask_id: int,
    base_ids: tuple[int, ...],
    both_strands: bool,
    within: tuple[int, int] | None = None,
) -> Float[jax.Array, "batch masks 4"]:
    """Predicts the masked positions of a batch.

    Args:
        model: a masked language model.
        ids: (batch, length) token ids.
        positions: (batch, masks) indices of tokens to mask, 0-based; -1 where there are fewer.
        mask_id: id of the mask.
        base_ids: ids of A, C, G and T.
        both_strands: a model that is not equivariant reads both strands.
        within: bounds (first, stop) of all positions that are not -1: the last block is computed
            only as far as they need it.

    Returns:
        (batch, masks, 4) natural logarithms of probabilities, NaN where a position is -1.
    """
    rows, rcps, real = jnp.arange(len(ids))[:, None], model.config.rcps, positions >= 0
    # A write beyond the end is dropped.
    outside = ids.shape[1]
    masked = ids.at[rows, jnp.where(real, positions, outside)].set(mask_id, mode="drop")
    backbone, first = model.caduceus, 0 if within is None else within[0]
    places = jnp.where(real, positions, first)
    if within is None:
        at_masks = take(backbone(masked, both_strands=both_strands).state, places)
    else:
        at_masks = backbone.states_at(masked, places, within=within, both_strands=both_strands)
    logits = model.head(at_masks)
    if rcps:
        logits = logits.sum(axis=1, keepdims=True)
    expected = jax.nn.log_softmax(logits).mean(axis=1)[..., jnp.array(base_ids)]
    return jnp.where(real[..., None], expected, jnp.nan)
