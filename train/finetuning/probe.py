"""A linear model on frozen embeddings."""

import pathlib
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from caduceus_jax.inference import embed
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.model.heads import CaduceusForMaskedLM, CaduceusForSequenceClassification
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import Examples, Task, split
from caduceus_jax.train.finetuning.metrics import better, check_defined, score
from caduceus_jax.train.finetuning.start import Start

# Inverse strengths of the penalty that are tried; validation chooses.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


class Probe:
    """Fits linear models to the embeddings of one frozen model, which are computed once.

    Args:
        config: the settings; a model that is made from scratch keeps its random weights.
        task: the task to learn.
        start: the model, or the architecture of a random one.
    """

    def __init__(self, config: FinetuneConfig, task: Task, start: Start):
        self.config, self.task, self.start = config, task, start
        self._embedded: dict[bytes, np.ndarray] = {}  # by the stored model, whatever the seed

    def run(self, seed: int, folder: pathlib.Path) -> tuple[dict[str, Any], np.ndarray]:
        """Fits a logistic or ridge regression to mean-pooled states, averaged over both strands.

        Args:
            seed: the seed of the validation part, and of a model from scratch.
            folder: gets model/, the classifier, and probe.npz: weight (outputs, channels) and bias
                (outputs,), of raw embeddings.

        Returns:
            The result, and the outputs (examples, outputs) for the test sequences.
        """
        begun = time.monotonic()
        config, task = self.config, self.task
        train, validation = task.train, task.validation
        if validation is None:
            train, validation = split(train, config.data.validation_fraction, seed)
        metric = config.metric or task.metric
        check_defined(metric, validation.labels, task.classes)
        model = self._model(seed)
        scaler = StandardScaler()
        inputs = np.asarray(scaler.fit_transform(self._features(model, train)))
        held = np.asarray(scaler.transform(self._features(model, validation)))
        best = None
        for strength in STRENGTHS:
            weight, bias = fit(inputs, train.labels, task, strength, config.class_weights)
            scores = score(held @ weight.T + bias, validation.labels, task.kind)
            if better(scores[metric], best[0] if best else None, metric):
                best = scores[metric], strength, weight, bias, scores
        assert best is not None  # the score is defined
        _, strength, weight, bias, scores = best
        scaled = weight / np.asarray(scaler.scale_)
        shifted = bias - scaled @ np.asarray(scaler.mean_)
        outputs = np.empty((0, 0))
        if task.test.sequences:
            outputs = self._features(model, task.test) @ scaled.T + shifted
        np.savez(folder / "probe.npz", weight=scaled, bias=shifted)
        self._export(model, scaled, shifted, folder / "model")
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

    def _model(self, seed: int) -> CaduceusForMaskedLM:
        """Makes the model: the stored one, or that of a seed."""
        start = self.start
        if start.stored is None:
            return CaduceusForMaskedLM(
                start.architecture, tokenizer=start.tokenizer, rngs=nnx.Rngs(seed)
            )
        model = nnx.eval_shape(
            lambda: CaduceusForMaskedLM(
                start.architecture, tokenizer=start.tokenizer, rngs=nnx.Rngs(0)
            )
        )
        flat = [(p, x) for p, x in nnx.to_flat_state(start.stored.state) if p[0] == "caduceus"]
        if model.lm_head is not None:  # not read, but there
            model.lm_head = nnx.Param(jnp.zeros(model.lm_head.shape, jnp.float32))
        nnx.update(model, nnx.from_flat_state(flat))
        return model

    def _features(self, model: CaduceusForMaskedLM, examples: Examples) -> np.ndarray:
        cut = [sequence[: self.task.max_length] for sequence in examples.sequences]
        if self.start.stored is None:  # every seed has a model of its own
            return embed(model, cut, tokenizer=self.start.tokenizer)
        if missing := [x for x in dict.fromkeys(cut) if x not in self._embedded]:
            vectors = embed(model, missing, tokenizer=self.start.tokenizer)
            self._embedded.update(zip(missing, vectors, strict=True))
        return np.stack([self._embedded[sequence] for sequence in cut])

    def _export(
        self,
        model: CaduceusForMaskedLM,
        weight: np.ndarray,
        bias: np.ndarray,
        folder: pathlib.Path,
    ) -> None:
        """Stores the classifier that the probe is, for predictions as of any other."""
        architecture, task = self.start.architecture, self.task
        description = TaskDescription(
            kind=task.kind,
            max_length=task.max_length,
            rc_mode=None if architecture.rcps else "posthoc",
            labels=task.classes,
        )
        found = nnx.eval_shape(
            lambda: CaduceusForSequenceClassification(
                architecture,
                num_labels=len(task.classes),
                rc_mode=description.rc_mode,
                labels=task.classes,
                head_bias=True,
                tokenizer=self.start.tokenizer,
                task=description,
                rngs=nnx.Rngs(0),
            )
        )
        found.caduceus = model.caduceus
        found.score = nnx.Param(jnp.asarray(weight, jnp.float32))
        found.score_bias = nnx.Param(jnp.asarray(bias, jnp.float32))
        found.save_pretrained(folder)


def fit(
    inputs: np.ndarray, labels: np.ndarray, task: Task, strength: float, class_weights: str
) -> tuple[np.ndarray, np.ndarray]:
    """Fits a ridge regression, or a logistic one.

    Args:
        inputs: (examples, channels) embeddings.
        labels: labels of the examples, in the form of `Examples`.
        task: the task, with its kind and classes.
        strength: inverse strength of the penalty.
        class_weights: "balanced" counts all classes alike.

    Returns:
        Weight (outputs, channels) and bias (outputs,).
    """
    if task.kind == "regression":
        fitted = Ridge(alpha=1 / strength).fit(inputs, labels)
        return fitted.coef_.reshape(labels.shape[1], -1), np.atleast_1d(fitted.intercept_)
    balanced = "balanced" if class_weights == "balanced" else None
    logistic = LogisticRegression(C=strength, max_iter=1000, class_weight=balanced)
    if task.kind == "multi_label":
        several = MultiOutputClassifier(logistic).fit(inputs, labels.astype(int))
        rows = [(model.coef_[0], model.intercept_[0]) for model in several.estimators_]
        return np.stack([w for w, _ in rows]), np.stack([b for _, b in rows])
    fitted = logistic.fit(inputs, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(task.classes) == 2:  # one row stands for the difference of two
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
