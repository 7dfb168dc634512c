"""Scores of predictions, by scikit-learn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from caduceus_jax.errors import UserError
from caduceus_jax.train.finetuning.config import Kind

# Of these, less is better.
ERRORS = ("loss", "mse", "mae")
CLASSIFICATION = ("accuracy", "mcc", "f1", "f1_macro", "auroc", "auprc", "loss")
REGRESSION = ("pearson", "spearman", "r2", "mse", "mae", "loss")


def score(outputs: np.ndarray, labels: np.ndarray, kind: Kind) -> dict[str, float]:
    """The scores of one set of sequences.

    Args:
        outputs: (examples, classes) logits, (examples, values), or (examples, bins, tracks).
        labels: (examples,) class ids, or like the outputs.
        kind: "classification", "regression" or "tracks".

    Returns:
        Classification: accuracy; Matthews' correlation coefficient, mcc; f1 (of class 1 where
        there are two, otherwise averaged over classes) and f1_macro; auroc and auprc (of class 1;
        averaged over classes, one against the rest); loss, the cross-entropy in nats. Regression
        and tracks (over all bins), averaged over values: Pearson's and Spearman's correlation, r2,
        mse, mae; loss is mse. NaN where a score is not defined, as with one class only.
    """
    if kind != "classification":
        values = labels.shape[-1]
        return _regression(outputs.reshape(-1, values), labels.reshape(-1, values))
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    guess, classes = log_p.argmax(axis=1), outputs.shape[1]
    # scikit-learn warns otherwise where a class is never guessed.
    silent: Any = {"zero_division": 0.0}
    found = {
        "accuracy": metrics.accuracy_score(labels, guess),
        "mcc": metrics.matthews_corrcoef(labels, guess),
        "f1_macro": metrics.f1_score(labels, guess, average="macro", **silent),
        "loss": -log_p[np.arange(len(labels)), labels].mean(),
    }
    found["f1"] = found["f1_macro"]
    if classes == 2:
        found["f1"] = metrics.f1_score(labels, guess, **silent)
    seen = [c for c in ([1] if classes == 2 else range(classes)) if 0 < (labels == c).mean() < 1]
    for name, area in (
        ("auroc", metrics.roc_auc_score),
        ("auprc", metrics.average_precision_score),
    ):
        areas = [area(labels == c, log_p[:, c]) for c in seen]
        found[name] = np.mean(areas) if areas else np.nan
    return {name: float(value) for name, value in found.items()}


def _regression(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        constant = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
        return np.nan if constant else float(np.corrcoef(x, y)[0, 1])

    def ranks(x: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(x, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    columns = list(zip(outputs.T, labels.T, strict=True))
    squared = float(np.mean((outputs - labels) ** 2))
    return {
        "pearson": float(np.mean([correlation(x, y) for x, y in columns])),
        "spearman": float(np.mean([correlation(ranks(x), ranks(y)) for x, y in columns])),
        "r2": float(metrics.r2_score(labels, outputs)) if len(labels) > 1 else np.nan,
        "mse": squared,
        "mae": float(np.mean(np.abs(outputs - labels))),
        "loss": squared,
    }


def check_metric(name: str, kind: Kind) -> None:
    """Makes sure that there is such a score.

    Raises:
        UserError: there is none for this kind of task.
    """
    known: Sequence[str] = CLASSIFICATION if kind == "classification" else REGRESSION
    if name not in known:
        raise UserError(f"metric is {name}; a {kind} has {', '.join(known)}")


def better(value: float, best: float | None, metric: str) -> bool:
    """Whether a score is better than the best so far; NaN never is."""
    if np.isnan(value):
        return False
    return best is None or (value < best if metric in ERRORS else value > best)
