"""Baselines: linear models of plain features, which a fine-tuned model has to beat."""

from typing import Any

import numpy as np
import scipy.special
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from caduceus_jax.train.finetuning.examples import Examples, Task
from caduceus_jax.train.finetuning.metrics import score

KMER = 4
MIDDLE = 80
_CODES = np.full(256, 4)
_CODES[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3] * 2


def baselines(task: Task) -> dict[str, dict[str, float]]:
    """Scores logistic (or ridge) regression on features that know no context, on the test rows.

    Args:
        task: trained on its training and validation sequences together; nothing is chosen.

    Returns:
        Scores, as of `metrics.score`, by name: on counts of 4-mers; and, where all training
        sequences are of one length, on the bases of the middle 80 positions, one-hot. Of tracks:
        on the share of G and C of the bin and of its window, and on the bin's counts of 3-mers.
    """
    train = task.train
    if task.validation is not None:
        train = Examples(
            train.names + task.validation.names,
            [*train.sequences, *task.validation.sequences],
            np.concatenate([train.labels, task.validation.labels]),
        )
    if task.kind == "tracks":
        return _tracks(train, task)
    counts = CountVectorizer(analyzer="char", ngram_range=(KMER, KMER), dtype=np.int64)
    inputs = counts.fit_transform(_texts(train, task))
    features = {f"{KMER}-mer counts, linear": (inputs, counts.transform(_texts(task.test, task)))}
    if len({len(sequence) for sequence in (*train.sequences, *task.test.sequences)}) == 1:
        name = f"bases of the middle {MIDDLE}, linear"
        features[name] = (_one_hot(train), _one_hot(task.test))
    return {name: _fit(*x, train.labels, task) for name, x in features.items()}


def _fit(inputs: Any, test: Any, labels: np.ndarray, task: Task) -> dict[str, float]:
    scaler = StandardScaler(with_mean=False)  # counts are sparse
    truth = task.test.labels, task.kind
    if task.kind == "regression":
        outputs = make_pipeline(scaler, Ridge()).fit(inputs, labels).predict(test)
        return score(outputs.reshape(len(task.test.labels), -1), task.test.labels, task.kind)
    if task.kind == "multi_label":
        several = MultiOutputClassifier(LogisticRegression(C=0.01, max_iter=2000))
        fitted = make_pipeline(scaler, several).fit(inputs, labels.astype(int))
        odds = [p[:, 1] if p.shape[1] > 1 else p[:, 0] * 0 for p in fitted.predict_proba(test)]
        return score(scipy.special.logit(np.clip(np.stack(odds, 1), 1e-12, 1 - 1e-12)), *truth)
    model = make_pipeline(scaler, LogisticRegression(C=0.01, max_iter=2000)).fit(inputs, labels)
    seen = np.log(np.maximum(model.predict_proba(test), 1e-12))
    outputs = np.full((len(seen), len(task.classes)), np.log(1e-12))
    outputs[:, model.classes_] = seen
    return score(outputs, task.test.labels, task.kind)


def _tracks(train: Examples, task: Task) -> dict[str, dict[str, float]]:
    """Fits each bin on its own."""

    def content(examples: Examples) -> np.ndarray:
        letters = np.stack([np.frombuffer(bases, np.uint8) for bases in examples.sequences])
        strong = np.isin(_CODES[letters], (1, 2))
        bins = strong.reshape(len(strong), -1, task.bin_size).mean(axis=2)
        window = np.broadcast_to(bins.mean(axis=1, keepdims=True), bins.shape)
        return np.stack([bins.ravel(), window.ravel()], axis=1)

    def texts(examples: Examples) -> list[str]:
        size = task.bin_size
        return [
            bases[i : i + size].decode().upper()
            for bases in examples.sequences
            for i in range(0, len(bases), size)
        ]

    def flat(labels: np.ndarray) -> np.ndarray:
        return labels.reshape(-1, labels.shape[-1])

    counts = CountVectorizer(analyzer="char", ngram_range=(3, 3))
    features = {
        "G + C of bin and window, linear": (content(train), content(task.test)),
        "3-mer counts of the bin, linear": (
            counts.fit_transform(texts(train)),
            counts.transform(texts(task.test)),
        ),
    }
    found = {}
    for name, (inputs, test) in features.items():
        model = make_pipeline(StandardScaler(with_mean=False), Ridge())
        outputs = model.fit(inputs, flat(train.labels)).predict(test)
        truth = flat(task.test.labels)
        found[name] = score(outputs.reshape(truth.shape), truth, "regression")
    return found


def _texts(examples: Examples, task: Task) -> list[str]:
    return [bases[: task.max_length].decode().upper() for bases in examples.sequences]


def _one_hot(examples: Examples) -> np.ndarray:
    letters = np.frombuffer(b"".join(examples.sequences), np.uint8)
    letters = letters.reshape(len(examples.sequences), -1)
    middle = letters.shape[1] // 2
    letters = letters[:, max(0, middle - MIDDLE // 2) : middle + MIDDLE // 2]
    return np.eye(5, dtype=np.float32)[_CODES[letters]][..., :4].reshape(len(letters), -1)
