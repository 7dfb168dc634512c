"""A linear model on frozen embeddings."""

import pathlib
import time
from typing import Any

import numpy as np
from flax import nnx
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from caduceus_jax.inference import embed
from caduceus_jax.model.heads import CaduceusForMaskedLM
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Examples, Task, split
from caduceus_jax.train.finetuning.metrics import better, score

# Inverse strengths of the penalty that are tried; validation chooses.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def probe(
    config: FinetuneConfig, task: Task, tokenizer: Tokenizer, seed: int, folder: pathlib.Path
) -> tuple[dict[str, Any], np.ndarray]:
    """Fits a logistic or ridge regression to mean-pooled states, averaged over both strands.

    Args:
        config: the fine-tuning; a model that is made from scratch keeps its random weights.
        task: what is to be learnt.
        tokenizer: the model's.
        seed: of the validation part, and of a model from scratch.
        folder: gets probe.npz: weight (outputs, channels), bias (outputs,), of raw embeddings.

    Returns:
        The result, and the outputs (examples, outputs) for the test sequences.
    """
    begun = time.monotonic()
    train, validation = task.train, task.validation
    if validation is None:
        train, validation = split(train, config.data.validation_fraction, seed)
    if config.model:
        model = CaduceusForMaskedLM.from_pretrained(config.model)
    else:
        model = CaduceusForMaskedLM(config.architecture, rngs=nnx.Rngs(seed))

    def features(examples: Examples) -> np.ndarray:
        cut = [sequence[: task.max_length] for sequence in examples.sequences]
        return embed(model, cut, tokenizer=tokenizer)

    scaler = StandardScaler()
    inputs = np.asarray(scaler.fit_transform(features(train)))
    held = np.asarray(scaler.transform(features(validation)))
    metric = config.metric or task.metric
    best = None
    for strength in STRENGTHS:
        weight, bias = _fit(inputs, train.labels, task, strength)
        scores = score(held @ weight.T + bias, validation.labels, task.kind)
        if best is None or better(scores[metric], best[0], metric):
            best = scores[metric], strength, weight, bias, scores
    assert best is not None
    _, strength, weight, bias, scores = best
    outputs = np.empty((0, 0))
    if task.test.sequences:
        outputs = np.asarray(scaler.transform(features(task.test))) @ weight.T + bias
    scaled = weight / np.asarray(scaler.scale_)
    np.savez(folder / "probe.npz", weight=scaled, bias=bias - scaled @ np.asarray(scaler.mean_))
    result = {
        "seed": seed,
        "strength": strength,
        "seconds": round(time.monotonic() - begun, 1),
        "trained_parameters": int(weight.size + bias.size),
        "training_sequences": len(train.sequences),
        "validation": scores,
        "test": score(outputs, task.test.labels, task.kind) if len(outputs) else {},
    }
    return result, outputs


def _fit(
    inputs: np.ndarray, labels: np.ndarray, task: Task, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (outputs, channels) and bias (outputs,)."""
    if task.kind == "regression":
        fitted = Ridge(alpha=1 / strength).fit(inputs, labels)
        return fitted.coef_.reshape(labels.shape[1], -1), np.atleast_1d(fitted.intercept_)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit(inputs, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(task.classes) == 2:  # one row stands for the difference of two
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
