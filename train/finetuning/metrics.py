"""Scores of predictions, by scikit-learn and SciPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special
import scipy.stats
from sklearn import metrics

from caduceus_jax.errors import UserError
from caduceus_jax.train.finetuning.config import Kind

# Of these, less is better.
ERRORS = ("loss", "mse", "mae")
CLASSIFICATION = ("accuracy", "mcc", "f1", "f1_macro", "auroc", "auprc", "loss")
MULTI_LABEL = ("auroc", "auprc", "accuracy", "exact", "f1", "f1_macro", "loss")
REGRESSION = ("pearson", "spearman", "r2", "mse", "mae", "loss")
METRICS: dict[Kind, Sequence[str]] = {
    "classification": CLASSIFICATION,
    "multi_label": MULTI_LABEL,
    "regression": REGRESSION,
    "tracks": REGRESSION,
}


def score(outputs: np.ndarray, labels: np.ndarray, kind: Kind) -> dict[str, float]:
    """Computes the scores of one set of sequences.

    Args:
        outputs: (examples, classes) logits, (examples, values), or (examples, bins, tracks).
        labels: (examples,) class ids, or like the outputs.
        kind: "classification", "multi_label", "regression" or "tracks".

    Returns:
        Classification: accuracy; Matthews' correlation coefficient, mcc; f1 (of class 1 if there
        are two, otherwise averaged over classes) and f1_macro; auroc and auprc (of class 1;
        averaged over classes, one against the rest); loss, the cross-entropy in nats.
        Several labels: auroc and auprc, averaged over labels; accuracy over all labels; exact, the
        share of sequences all of whose labels are right; f1 over all labels, and f1_macro averaged
        over labels; loss, the binary cross-entropy in nats. Regression and tracks (over all bins),
        averaged over values: Pearson's and Spearman's correlation, r2, mse, mae; loss is mse. NaN
        if a score is not defined, as with one class only.
    """
    if kind in ("regression", "tracks"):
        values = labels.shape[-1]
        return _regression(outputs.reshape(-1, values), labels.reshape(-1, values))
    found = _multi_label(outputs, labels) if kind == "multi_label" else _classes(outputs, labels)
    return {name: float(value) for name, value in found.items()}


def _classes(outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    log_p = scipy.special.log_softmax(outputs, axis=1)
    guess, classes = log_p.argmax(axis=1), outputs.shape[1]
    # scikit-learn warns otherwise if a class is never guessed, or there is one class only.
    silent: Any = {"zero_division": 0.0}
    several = len(np.unique(np.concatenate([labels, guess]))) > 1
    found = {
        "accuracy": metrics.accuracy_score(labels, guess),
        "mcc": metrics.matthews_corrcoef(labels, guess) if several else 0.0,
        "f1_macro": metrics.f1_score(labels, guess, average="macro", **silent),
        "loss": -log_p[np.arange(len(labels)), labels].mean(),
    }
    found["f1"] = found["f1_macro"]
    if classes == 2:
        found["f1"] = metrics.f1_score(labels, guess, **silent)
    shown = [1] if classes == 2 else list(range(classes))
    return found | _areas(log_p[:, shown], np.stack([labels == c for c in shown], axis=1))


def _multi_label(outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    truth, guess = labels > 0.5, outputs > 0
    silent: Any = {"zero_division": 0.0}
    return {
        **_areas(outputs, truth),
        "accuracy": (truth == guess).mean(),
        "exact": (truth == guess).all(axis=1).mean(),
        "f1": metrics.f1_score(truth, guess, average="micro", **silent),
        "f1_macro": metrics.f1_score(truth, guess, average="macro", **silent),
        "loss": -scipy.special.log_expit(np.where(truth, outputs, -outputs)).mean(),
    }


def _areas(outputs: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Averages the areas under the curves over the columns that have both sorts of rows."""
    seen = [c for c in range(truth.shape[1]) if 0 < truth[:, c].mean() < 1]
    areas = (("auroc", metrics.roc_auc_score), ("auprc", metrics.average_precision_score))
    return {
        name: np.mean([area(truth[:, c], outputs[:, c]) for c in seen]) if seen else np.nan
        for name, area in areas
    }


def _regression(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    columns = list(zip(outputs.T, labels.T, strict=True))
    squared = float(np.mean((outputs - labels) ** 2))
    return {
        "pearson": float(np.mean([_correlation(scipy.stats.pearsonr, x, y) for x, y in columns])),
        "spearman": float(np.mean([_correlation(scipy.stats.spearmanr, x, y) for x, y in columns])),
        "r2": float(metrics.r2_score(labels, outputs)) if len(labels) > 1 else np.nan,
        "mse": squared,
        "mae": float(np.mean(np.abs(outputs - labels))),
        "loss": squared,
    }


def _correlation(function: Any, x: np.ndarray, y: np.ndarray) -> float:
    constant = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
    return np.nan if constant else float(function(x, y).statistic)


def check_metric(name: str, kind: Kind) -> None:
    """Checks that there is such a score.

    Raises:
        UserError: there is none for this kind of task.
    """
    if name not in METRICS[kind]:
        raise UserError(f"metric is {name}; a {kind} has {', '.join(METRICS[kind])}")


def check_defined(name: str, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Checks that a score can be computed from the validation labels.

    Args:
        name: the name of the score.
        labels: (examples,) class ids, (examples, labels) zeros and ones, or values.
        classes: names of the classes, labels or values.

    Raises:
        UserError: the metric is not defined; the message says what is missing.
    """
    advice = "raise data.validation_fraction, name other data.validation, or choose another metric"
    if name in ("auroc", "auprc"):
        columns = labels if labels.ndim == 2 else np.eye(len(classes))[labels]
        if not ((columns.mean(axis=0) > 0) & (columns.mean(axis=0) < 1)).any():
            kinds = "" if labels.ndim == 2 else f", of class {classes[int(labels[0])]}"
            raise UserError(
                f"metric is {name}, which cannot be computed: the {len(labels)} validation "
                f"sequences are all of one sort{kinds}; {advice}"
            )
    flat = labels.reshape(-1, labels.shape[-1]) if labels.ndim > 1 else labels[:, None]
    if name in ("pearson", "spearman", "r2"):
        constant = np.flatnonzero(np.ptp(flat, axis=0) == 0)
        if len(constant) or len(flat) < 2:
            value = classes[int(constant[0])] if len(constant) else classes[0]
            raise UserError(
                f"metric is {name}, which cannot be computed: {value} is the same in all "
                f"validation sequences; {advice}"
            )


def better(value: float, best: float | None, metric: str) -> bool:
    """Tells whether a score is better than the best so far; NaN never is."""
    if np.isnan(value):
        return False
    return best is None or (value < best if metric in ERRORS else value > best)
