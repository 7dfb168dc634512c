"""Attributions: how much each base of a sequence adds to a model's likelihood or output.

The model reads weights of tokens in place of token ids, so that its output has a gradient by base
at every position. Both strands read the same weights, which makes the attributions of an
equivariant model's reverse complement the mirror image of those of the sequence.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from caduceus_jax.errors import UserError
from caduceus_jax.inference.loading import AnyModel, checked_tokenizer, resolve_rc_mode
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.model.tracks import CaduceusForTracks
from caduceus_jax.model.typing import PaddingMask, TokenIds
from caduceus_jax.tokenizer import Tokenizer

Method = Literal["gradient", "gradient_x_input", "integrated_gradients", "mutagenesis"]
Baseline = Literal["uniform", "zeros", "n"]
Weights = Float[Array, "batch length vocab"]


class Target(NamedTuple):
    """Names what is attributed, of which model: hashable, since a forward pass is compiled for it.

    Attributes:
        kind: "likelihood" of a language model; of a fine-tuned model, an output as it is
            ("value"), the log-odds of a class against all others ("odds"), or the mean of a track.
        base_ids: token ids of A, C, G and T.
        mask_id: token id of a language model's mask.
        n_id: token id of N.
        both_strands: a language model that is not equivariant reads both strands.
        output: index of the fine-tuned model's output.
        scale: units of a step of 1 in that output.
        centre: value, in units, that an output of 0 stands for.
        masked: the bases within the window are masked together.
    """

    kind: Literal["likelihood", "value", "odds", "track"]
    base_ids: tuple[int, ...]
    mask_id: int
    n_id: int
    both_strands: bool = False
    output: int = 0
    scale: float = 1.0
    centre: float = 0.0
    masked: bool = False


def attribution_target(
    model: AnyModel,
    tokenizer: Tokenizer | None = None,
    *,
    output: str | int | None = None,
    rc_mode: str | None = None,
    masked: bool = False,
) -> Target:
    """Finds what of a model is attributed.

    Args:
        model: a language model, a classifier or a track model.
        tokenizer: the model's; by default the original's.
        output: name or index (from 0) of a class, value or track of a fine-tuned model; by default
            the only one, or the second of two classes.
        rc_mode: strands that a language model reads; by default as fits the model.
        masked: mask the bases of a window; for language models.

    Raises:
        UserError: an output that the model does not have, or an option that does not go with it.
    """
    known = checked_tokenizer(model, tokenizer, both_strands=True)
    ids = {
        "base_ids": tuple(known.base_ids),
        "mask_id": known.mask_id,
        "n_id": known.n_id,
    }
    if isinstance(model, CaduceusForMaskedLM):
        if output is not None:
            raise UserError("output is for fine-tuned models: a language model has its likelihood")
        both = resolve_rc_mode(model.config, rc_mode, scores=True) == "posthoc"
        return Target("likelihood", **ids, both_strands=both, masked=masked)
    if rc_mode is not None:
        raise UserError(
            "rc_mode is for language models: a fine-tuned model reads strands as it was trained to"
        )
    if model.signals is not None:
        raise UserError(
            "the model reads signals beside the sequence, which attributions do not know of"
        )
    task, tracks = model.task, isinstance(model, CaduceusForTracks)
    if masked and not tracks:
        raise UserError("window is for language models and for models of tracks")
    names = task.labels or tuple(f"LABEL_{i}" for i in range(model.score.shape[0]))
    index = output_index(output, names)
    kind = "track" if tracks else "odds" if task.kind == "classification" else "value"
    scale = task.scale[index] if task.scale else 1.0
    centre = task.centre[index] if task.centre else 0.0
    return Target(kind, **ids, output=index, scale=scale, centre=centre)


def output_index(output: str | int | None, names: tuple[str, ...]) -> int:
    """Returns the index of an output that is meant by its name or its number.

    Args:
        output: name or number (from 0); None for the only output, or the second of two.
        names: names of the outputs.

    Raises:
        UserError: the model has no such output, or has several and none was named.
    """
    if output is None and len(names) <= 2:
        return len(names) - 1
    if isinstance(output, str) and output in names:
        return names.index(output)
    number = int(output) if output is not None and str(output).isdigit() else -1
    if 0 <= number < len(names):
        return number
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if output is None:
        raise UserError(f"pass `output`, one of several; the model's outputs are: {listed}")
    raise UserError(f"output is {output!r}; the model's outputs are: {listed}")


def attributed_batch(
    model: AnyModel,
    ids: TokenIds,
    mask_and_spans: tuple[PaddingMask | None, Int[jax.Array, "batch 2"]],
    *,
    target: Target,
    method: Method,
    baseline: Baseline,
    steps: int,
) -> Float[jax.Array, "batch rows 4"]:
    """Attributes a target to the bases of a batch of sequences.

    Args:
        model: a language model, a classifier or a track model.
        ids: (batch, length) token ids.
        mask_and_spans: which tokens are real, None where all are; and the first token and the one
            after the last of each window, 0-based.
        target: the model's output that is attributed.
        method: "gradient" and "gradient_x_input" at the sequence; "integrated_gradients" along the
            straight line from the baseline (Sundararajan et al. 2017); "mutagenesis": the target
            of every changed sequence.
        baseline: baseline of integrated gradients, which replaces the bases and no other token: a
            quarter of each base, no base at all, or N.
        steps: points of integrated gradients, by Gauss and Legendre.

    Returns:
        (batch, length + 1, 4): contributions of A, C, G and T at each position, relative to the
        baseline, or to their mean where there is none; and in the last row the target of the
        sequence and that of its baseline, of integrated gradients, then two zeros.
    """
    vocab = model.config.vocab_size
    value = functools.partial(_value, model, target=target, mask_and_spans=mask_and_spans)
    bases = jnp.array(target.base_ids)
    there = jax.nn.one_hot(ids, vocab)
    total = value(there)
    start = jnp.zeros_like(total)
    if method == "mutagenesis":
        four = _changed(value, ids, bases, vocab)
        four = four - four.mean(axis=-1, keepdims=True)
    elif method == "integrated_gradients":
        nothing = _baseline(ids, there, target, baseline)
        start = value(nothing)
        gradient = _integrated(value, nothing, there, steps)
        four = gradient[..., bases] - (gradient * nothing).sum(axis=-1, keepdims=True)
    else:
        four = jax.grad(lambda x: value(x).sum())(there)[..., bases]
        four = four - four.mean(axis=-1, keepdims=True)
    nothing = jnp.zeros_like(total)
    ends = jnp.stack([total, start, nothing, nothing], axis=-1)
    return jnp.concatenate([four, ends[:, None]], axis=1)


def _value(
    model: Any,
    x: Weights,
    *,
    target: Target,
    mask_and_spans: tuple[PaddingMask | None, Int[jax.Array, "batch 2"]],
) -> Float[Array, " batch"]:
    """Computes the target of each sequence."""
    padding_mask, spans = mask_and_spans
    at = jnp.arange(x.shape[1])[None]
    within = (spans[:, :1] <= at) & (at < spans[:, 1:])
    if target.kind == "likelihood":
        return _likelihood(model, x, padding_mask, within, target)
    logits = model(inputs_one_hot=x, padding_mask=padding_mask).logits.astype(jnp.float32)
    if target.kind == "odds":
        others = np.delete(np.arange(logits.shape[-1]), target.output)
        if not len(others):
            return logits[:, 0]
        return logits[:, target.output] - jax.nn.logsumexp(logits[:, others], axis=-1)
    if target.kind == "track":
        size = x.shape[1] // logits.shape[1]
        share = within.reshape(len(x), -1, size).mean(axis=-1)
        logits = (logits * share[..., None]).sum(axis=1) / share.sum(axis=1, keepdims=True)
    return logits[:, target.output] * target.scale + target.centre


def _likelihood(
    model: CaduceusForMaskedLM,
    x: Weights,
    padding_mask: PaddingMask | None,
    within: jax.Array,
    target: Target,
) -> Float[Array, " batch"]:
    """Sums the log-probabilities of the bases of the windows."""
    read = x
    if target.masked:
        mask = jax.nn.one_hot(target.mask_id, x.shape[-1])
        read = jnp.where(within[..., None], mask[None, None], x)
    hidden, _ = model.caduceus(
        inputs_one_hot=read, padding_mask=padding_mask, both_strands=target.both_strands
    )
    logits = model.head(hidden)
    if model.config.rcps:
        logits = logits.sum(axis=1, keepdims=True)
    expected = jax.nn.log_softmax(logits).mean(axis=1)
    bases = jnp.array(target.base_ids)
    of_bases = (x[..., bases] * expected[..., bases]).sum(axis=-1)
    return jnp.where(within, of_bases, 0).sum(axis=1)


def _baseline(ids: TokenIds, there: Weights, target: Target, baseline: Baseline) -> Weights:
    """Replaces the bases; N, padding and other tokens stay."""
    nothing = np.zeros(there.shape[-1], np.float32)
    if baseline == "uniform":
        nothing[list(target.base_ids)] = 0.25
    elif baseline == "n":
        nothing[target.n_id] = 1
    known = (ids[..., None] == jnp.array(target.base_ids)[None, None]).any(axis=-1)
    return jnp.where(known[..., None], jnp.asarray(nothing)[None, None], there)


def _integrated(
    value: Callable[[Weights], jax.Array], start: Weights, end: Weights, steps: int
) -> Weights:
    """Averages the gradient along the straight line between two inputs."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    gradient = jax.grad(lambda x: value(x).sum())

    def add(total: Weights, point: tuple[jax.Array, jax.Array]) -> tuple[Weights, None]:
        where, weight = point
        return total + weight * gradient(start + where * (end - start)), None

    # The norms change fastest near the baseline: there the points are dense, at t = s^3.
    s = (points + 1) / 2
    line = (jnp.asarray(s**3, jnp.float32), jnp.asarray(weights / 2 * 3 * s**2, jnp.float32))
    return jax.lax.scan(add, jnp.zeros_like(end), line)[0]


def _changed(
    value: Callable[[Weights], jax.Array], ids: TokenIds, bases: jax.Array, vocab: int
) -> Float[Array, "batch length 4"]:
    """Computes the target with each of the four bases at each position."""

    def at(position: jax.Array) -> Float[Array, "4 batch"]:
        def with_base(base: jax.Array) -> jax.Array:
            return value(jax.nn.one_hot(ids.at[:, position].set(base), vocab))

        return jax.vmap(with_base)(bases)

    return jnp.moveaxis(jax.lax.map(at, jnp.arange(ids.shape[1])), -1, 0)
