"""Inputs of models: token ids, soft one-hot bases or embeddings, each checked and embedded."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from caduceus_jax.errors import UserError
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.rcps import embed_strands, from_original_layout, mix_strands
from caduceus_jax.model.typing import PaddingMask, SegmentIds, Strands, TokenIds
from caduceus_jax.tokenizer import Tokenizer

ArrayInput = jax.Array | np.ndarray | Sequence  # checked below, and not by its annotation


class Inputs(NamedTuple):
    """Holds what a model reads, in one of three forms, after all checks."""

    ids: TokenIds | None
    one_hot: Float[Array, "batch length tokens"] | None
    embeds: Float[Array, "batch length hidden"] | None
    padding_mask: PaddingMask | None
    segment_ids: SegmentIds | None


def checked(
    config: CaduceusConfig,
    tokenizer: Tokenizer | None,
    input_ids: ArrayInput | None,
    padding_mask: ArrayInput | None,
    inputs_one_hot: ArrayInput | None = None,
    inputs_embeds: ArrayInput | None = None,
    segment_ids: ArrayInput | None = None,
) -> Inputs:
    """Checks what is given to a model.

    Shapes and types are looked at while a function is traced; values of token ids only where they
    are known then, so that a compiled function does nothing more.

    Args:
        config: the architecture.
        tokenizer: the model's tokenizer, which tells the tokens of the four columns of
            `inputs_one_hot`.
        input_ids: (batch, length) integers.
        padding_mask: (batch, length) bool, or numbers that are 0 on padding.
        inputs_one_hot: (batch, length, 4) weights of A, C, G, T, or (batch, length, vocab).
        inputs_embeds: (batch, length, d_model), or 2 * d_model with rcps.
        segment_ids: (batch, length) integers, one per sequence packed into a row.

    Raises:
        UserError: a wrong type, shape or token id; the sentence names the argument.
    """
    named = {
        "input_ids": input_ids,
        "inputs_one_hot": inputs_one_hot,
        "inputs_embeds": inputs_embeds,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) if given else "none of them"
        raise UserError(f"a model reads one of {', '.join(named)}, and {what} is given")
    array = _array(given[0], named[given[0]])
    if given[0] == "input_ids":
        _check_ids(array, config.vocab_size)
        array = jnp.asarray(array)
    else:
        array = _check_channels(given[0], array, config, tokenizer)
    if isinstance(array.shape[1], int) and array.shape[1] == 0:
        raise UserError(f"{given[0]} has length 0; a model reads at least one token")
    mask = None
    if padding_mask is not None:
        mask = checked_mask(padding_mask, array.shape[:2])
    segments = None
    if segment_ids is not None:
        segments = checked_segments(segment_ids, array.shape[:2])
    forms = [array if name == given[0] else None for name in named]
    return Inputs(*forms, padding_mask=mask, segment_ids=segments)


def embed(
    inputs: Inputs,
    embedding: Float[Array, "vocab d_model"],
    config: CaduceusConfig,
    tokenizer: Tokenizer | None,
    complement: jax.Array | None,
) -> Strands:
    """Embeds each base on strand 0 and, where `complement` is given, its complement on strand 1.

    Args:
        inputs: the checked inputs, from `checked`.
        embedding: (vocab, d_model).
        config: the architecture.
        tokenizer: tells which tokens the four columns of a one-hot input are.
        complement: complement of each token id, (vocab,); None where one strand is read.

    Returns:
        (batch, strand, length, d_model) float32.

    Raises:
        UserError: embeddings are given, of one strand alone, to a model that reads both.
    """
    if inputs.ids is not None:
        return embed_strands(embedding, inputs.ids, complement)
    if inputs.one_hot is not None:
        tokens = np.arange(config.vocab_size)
        if inputs.one_hot.shape[-1] != config.vocab_size and tokenizer is not None:
            tokens = np.asarray(tokenizer.base_ids)
        return mix_strands(embedding, inputs.one_hot, tokens, complement)
    assert inputs.embeds is not None
    strands = 2 if config.rcps else 1
    if complement is not None and strands == 1:
        raise UserError(
            "inputs_embeds tells nothing of the other strand, which rc_mode='posthoc' reads too: "
            "pass input_ids or inputs_one_hot"
        )
    return from_original_layout(inputs.embeds.astype(jnp.float32), strands)


def checked_mask(padding_mask: ArrayInput, shape: tuple) -> PaddingMask:
    """Checks a padding mask.

    Args:
        padding_mask: (batch, length) bool, or numbers that are 0 on padding.
        shape: (batch, length) of the inputs.

    Returns:
        The mask as bool.

    Raises:
        UserError: padding_mask has another shape.
    """
    mask = _array("padding_mask", padding_mask)
    if mask.shape != tuple(shape):
        raise UserError(
            f"padding_mask has shape {mask.shape}; it is (batch, length) like the inputs, "
            f"{tuple(shape)}"
        )
    return jnp.asarray(mask if mask.dtype == bool else mask != 0)


def checked_segments(segment_ids: ArrayInput, shape: tuple) -> SegmentIds:
    """Checks the numbers of packed sequences.

    Args:
        segment_ids: (batch, length) integers.
        shape: (batch, length) of the inputs.

    Raises:
        UserError: segment_ids has another shape or type.
    """
    segments = _array("segment_ids", segment_ids)
    if not jnp.issubdtype(segments.dtype, jnp.integer):
        raise UserError(f"segment_ids is {segments.dtype}; it numbers sequences with integers")
    if segments.shape != tuple(shape):
        raise UserError(
            f"segment_ids has shape {segments.shape}; it is (batch, length) like the inputs, "
            f"{tuple(shape)}"
        )
    segments = jnp.asarray(segments)
    # So that one counts further than a byte does.
    return segments.astype(jnp.int32) if segments.dtype.itemsize < 4 else segments


def checked_count(num_segments: Any, segments: SegmentIds) -> int:
    """Checks the largest number of sequences in a row, and the numbers of those that are there.

    Args:
        num_segments: the number.
        segments: (batch, length) integers, from 1 on, 0 on padding.

    Raises:
        UserError: num_segments is not a positive integer that is known while a function is traced,
            or a sequence has another number than 0 to `num_segments`, where these are known.
    """
    try:
        count, given = operator.index(num_segments), repr(num_segments)
    except TypeError:  # that of a tracer is one too
        count, given = 0, type(num_segments).__name__
    if count < 1 or isinstance(num_segments, bool):
        raise UserError(
            f"num_segments is {given}; it is a positive integer, known while a function is traced"
        )
    what = "the sequences of a row (0 is padding, num_segments the last)"
    check_values("segment_ids", segments, count + 1, what)
    return count


def check_bins(segment_ids: ArrayInput, bin_size: int) -> None:
    """Checks that no bin holds tokens of two packed sequences, where their numbers are known.

    Args:
        segment_ids: (batch, length) integers.
        bin_size: tokens of a bin, which divide the length.

    Raises:
        UserError: a sequence begins or ends within a bin.
    """
    segments = _array("segment_ids", segment_ids)
    if isinstance(segments, jax.core.Tracer) or segments.size == 0:
        return
    if isinstance(segments, jax.Array) and not segments.is_fully_addressable:
        return
    bins = np.asarray(segments).reshape(-1, bin_size)
    if (bins != bins[:, :1]).any():
        raise UserError(
            f"segment_ids changes within a bin of {bin_size} tokens: begin every sequence, and the "
            "padding after it, at a multiple of bin_size"
        )


def check_values(name: str, values: Any, below: int, what: str) -> None:
    """Checks integers that are known while a function is traced, and does nothing for others.

    Args:
        name: the name of the argument.
        values: an array, or a tracer.
        below: the integers are from 0 up to this one, which is not among them.
        what: name of the integers in the sentence.

    Raises:
        UserError: one is out of range.
    """
    if isinstance(values, jax.core.Tracer) or values.size == 0:
        return
    if isinstance(values, jax.Array) and not values.is_fully_addressable:
        return
    known = np.asarray(values)
    low, high = int(known.min()), int(known.max())
    if low < 0 or high >= below:
        wrong = low if low < 0 else high
        raise UserError(f"{name} holds {wrong}, and {what} are 0 to {below - 1}")


def _array(name: str, value: Any) -> Any:
    """Returns the value as an array; lists of equal length count as one."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    try:
        return np.asarray(value)
    except ValueError:
        raise UserError(f"{name} is a list of lists of different lengths; pad them") from None


def _check_ids(ids: Any, vocab_size: int) -> None:
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"input_ids is {ids.dtype}; token ids are integers")
    if ids.ndim != 2:
        how = "; add the axis with input_ids[None]" if ids.ndim == 1 else ""
        raise UserError(f"input_ids has shape {ids.shape}; it is (batch, length){how}")
    check_values("input_ids", ids, vocab_size, "the model's tokens (is it another's tokenizer?)")


def _check_channels(
    name: str, array: Any, config: CaduceusConfig, tokenizer: Tokenizer | None
) -> jax.Array:
    width = config.d_model * (2 if config.rcps else 1)
    widths = (4, config.vocab_size) if name == "inputs_one_hot" else (width,)
    if array.ndim != 3 or array.shape[-1] not in widths:
        shown = " or ".join(map(str, widths))
        raise UserError(f"{name} has shape {array.shape}; it is (batch, length, {shown})")
    if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != bool:
        raise UserError(f"{name} is {array.dtype}; it holds numbers")
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise UserError(f"{name} is {array.dtype}; it holds real numbers")
    if name == "inputs_one_hot" and array.shape[-1] == 4 != config.vocab_size and tokenizer is None:
        raise UserError(
            "inputs_one_hot has 4 columns, and the model has no tokenizer that tells which tokens "
            f"A, C, G and T are: pass all {config.vocab_size} columns"
        )
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return jnp.asarray(array, None if floating else jnp.float32)
