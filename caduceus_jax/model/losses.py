"""Losses of the two heads."""

from typing import Literal

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from caduceus_jax.errors import UserError
from caduceus_jax.model.inputs import check_values

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


def masked_lm_loss(
    logits: Float[Array, "batch length vocab"],
    labels: Int[Array, "batch length"],
    weights: Float[Array, "batch length"] | None = None,
    ignore_index: int = 4,
) -> Float[Array, ""]:
    """Computes the cross-entropy in nats, averaged over the labels that count.

    Args:
        logits: (batch, length, vocab).
        labels: (batch, length) token ids; `ignore_index` where there is nothing to predict.
        weights: (batch, length) weight of each label, for example less on repeats. The average is
            a weighted one: the weights need no scale.
        ignore_index: the label that does not count, by convention the padding token.

    Returns:
        A float32 scalar; 0 with zero gradients, not NaN, where no label counts.

    Raises:
        UserError: labels of another shape or type, or, where their values are known while a
            function is traced, a label that is not a token id; a compiled function gives NaN.

    >>> logits = jnp.log(jnp.asarray([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    >>> labels = jnp.asarray([[1, 4]])  # the second is ignored
    >>> print(masked_lm_loss(logits, labels).round(4))  # log(4)
    1.3863
    """
    nats, weight = masked_lm_sums(logits, labels, weights, ignore_index)
    return nats / jnp.where(weight == 0, 1, weight)


def masked_lm_sums(
    logits: Float[Array, "batch length vocab"],
    labels: Int[Array, "batch length"],
    weights: Float[Array, "batch length"] | None = None,
    ignore_index: int = 4,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes what `masked_lm_loss` divides: both sums add up over the parts of a batch.

    Args:
        logits: (batch, length, vocab).
        labels: (batch, length) token ids; `ignore_index` where there is nothing to predict.
        weights: (batch, length) weight of each label.
        ignore_index: the label that does not count.

    Returns:
        Weighted nats, and the sum of the weights that count.

    Raises:
        UserError: labels of another shape or type, or a label that is known not to be a token id.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UserError(f"labels is {labels.dtype}; labels are token ids, which are integers")
    for name, array in (("labels", labels), ("weights", weights)):
        if array is not None and array.shape != logits.shape[:-1]:
            raise UserError(
                f"{name} has shape {array.shape}; it is (batch, length), {logits.shape[:-1]}"
            )
    _check_labels(labels, logits.shape[-1], ignore_index)
    logits = logits.astype(jnp.float32)
    real = labels != ignore_index
    counted = real.astype(jnp.float32)
    if weights is not None:
        counted = counted * weights
    # The ignored label need not be a token at all (-100, by another convention).
    targets = jnp.where(real, labels, 0)[..., None]
    at_label = jnp.take_along_axis(jax.nn.log_softmax(logits), targets, axis=-1)[..., 0]
    return -jnp.sum(counted * at_label), jnp.sum(counted)


def classification_loss(
    logits: Float[Array, "batch labels"],
    labels: Num[Array, "batch ..."],
    problem_type: ProblemType | None = None,
    weights: Float[Array, "..."] | None = None,
) -> Float[Array, ""]:
    """Computes the loss of a classifier, chosen as Hugging Face models choose it.

    Args:
        logits: (batch, labels).
        labels: (batch,) class ids; (batch,) or (batch, labels) values to regress; (batch, labels)
            zeros and ones for several labels at once.
        problem_type: kind of loss: by default regression for one output, single-label
            classification for integer labels, multi-label classification otherwise.
        weights: (batch,) weight of each sequence in the average: 0 for rows of padding alone, and
            for those places of packed rows that no sequence takes; whatever logits and labels are
            there.

    Returns:
        A float32 scalar; 0 with zero gradients, not NaN, where all weights are 0.

    Raises:
        UserError: labels or weights whose shape or type does not fit, or a class that is known to
            be out of range; a compiled function gives NaN for one.

    >>> logits = jnp.asarray([[0.0, 0.0], [0.0, 0.0]])
    >>> print(classification_loss(logits, jnp.asarray([0, 1])).round(4))  # log(2)
    0.6931
    """
    if weights is not None:
        logits, labels = _where_counted(logits, labels, weights)
    logits = logits.astype(jnp.float32)
    integer = jnp.issubdtype(labels.dtype, jnp.integer)
    if problem_type is None:
        if logits.shape[-1] == 1:
            problem_type = "regression"
        else:
            problem_type = (
                "single_label_classification" if integer else "multi_label_classification"
            )
    if problem_type == "single_label_classification":
        if not integer or labels.ndim != 1:
            raise UserError(
                f"single-label classification takes integer labels (batch,), not "
                f"{labels.dtype} {labels.shape}"
            )
        if labels.shape[0] != logits.shape[0]:
            raise UserError(f"labels has {labels.shape[0]} classes for {logits.shape[0]} sequences")
        check_values("labels", labels, logits.shape[-1], "the classes of this head")
        at_label = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
        return _average(-at_label, weights)
    if labels.size != logits.size:
        raise UserError(
            f"{problem_type} takes one value per logit: {logits.shape}, not {labels.shape}"
        )
    labels = labels.reshape(logits.shape).astype(jnp.float32)
    if problem_type == "regression":
        return _average((logits - labels) ** 2, weights)
    # Binary cross-entropy from logits, stable for either sign.
    nats = jnp.maximum(logits, 0) - logits * labels + jax.nn.softplus(-jnp.abs(logits))
    return _average(nats, weights)


def _average(losses: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Averages losses (batch, labels), each row with its weight."""
    if weights is None:
        return jnp.mean(losses)
    total = jnp.sum(weights)
    summed = jnp.sum(losses * weights[:, None])
    return summed / (losses.shape[1] * jnp.where(total == 0, 1, total))


def _where_counted(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns logits and labels with 0 in the rows that do not count, which may hold NaN."""
    if weights.shape != logits.shape[:1]:
        raise UserError(f"weights has shape {weights.shape}; it is (batch,), {logits.shape[:1]}")
    if labels.shape[:1] != logits.shape[:1]:
        raise UserError(f"labels has {len(labels)} rows for {logits.shape[0]} sequences")
    counts = weights != 0

    def zeroed(x: jax.Array) -> jax.Array:
        """Sets the rows that do not count to 0."""
        return jnp.where(counts.reshape(-1, *(1 for _ in x.shape[1:])), x, 0)

    return zeroed(logits), zeroed(labels)


def _check_labels(labels: jax.Array, vocab: int, ignore_index: int) -> None:
    """Refuses labels that are known not to be token ids."""
    if isinstance(labels, jax.core.Tracer):
        return
    counted = np.asarray(labels)[np.asarray(labels) != ignore_index]
    hint = "the model's tokens (pass ignore_index for labels that do not count)"
    check_values("labels", counted, vocab, hint)
