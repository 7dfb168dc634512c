"""How far from the original implementation: the errors that the tests bound, and a table of them.

    python -m tests.parity

prints the table of the README, over the cases in `tests/golden`. Errors of logits and hidden states
are largest absolute differences; all others are relative to the largest magnitude.
"""

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.optimizer import make_optimizer, make_schedule
from caduceus_jax.train.step import init_state, make_train_step
from tests import tolerances
from tests.tolerances import relative_error

GOLDEN = pathlib.Path(__file__).parent / "golden"
LANGUAGE_MODELS = ["ps", "ps_unfused", "ps_vocabulary8", "ph", "unidirectional_layernorm"]
CLASSIFIERS = ["ps_classifier", "ph_classifier_conjoin"]


class Errors(NamedTuple):
    """Of one case."""

    logits: float
    losses: float
    gradients: dict[str, float]  # by the original's names
    hidden_states: dict[str, float]


def language_model(folder: pathlib.Path) -> Errors:
    """One forward and backward pass of a masked language model."""
    case = load_file(folder / "golden.safetensors")
    model = cj.CaduceusForMaskedLM.from_pretrained(str(folder))
    ids, labels = _int32(case["input_ids"]), _int32(case["labels"])
    weights = jnp.asarray(case["loss_weights"])
    ignored = model.config.pad_token_id
    graphdef, params = nnx.split(model, nnx.Param)

    @jax.jit
    def run(params):
        def loss(params):
            out = nnx.merge(graphdef, params)(ids, output_hidden_states=True)
            return cj.masked_lm_loss(out.logits, labels, ignore_index=ignored), out

        (loss, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        weighted = cj.masked_lm_loss(out.logits, labels, weights, ignore_index=ignored)
        return jnp.stack([loss, weighted]), out, gradients

    losses, out, gradients = run(params)
    stored = [f"hidden_states.{i}" for i in range(len(case)) if f"hidden_states.{i}" in case]
    return Errors(
        logits=_largest(out.logits - case["logits"]),
        losses=relative_error(losses, np.concatenate([case["loss"], case["weighted_loss"]])),
        gradients=_gradient_errors(model.config, gradients, case),
        hidden_states={
            name: _largest(hidden - case[name])
            for name, hidden in zip(stored, out.hidden_states, strict=True)
        },
    )


def classifier(folder: pathlib.Path) -> Errors:
    """One forward and backward pass of a classifier; a conjoined one gets one strand only."""
    case = load_file(folder / "golden.safetensors")
    ids, labels = case["input_ids"], jnp.asarray(case["labels"])
    conjoined = ids.ndim == 3
    model = cj.CaduceusForSequenceClassification.from_pretrained(
        str(folder), rc_mode="posthoc" if conjoined else None
    )
    if conjoined:
        complement = np.asarray(model.config.complement_map)
        np.testing.assert_array_equal(complement[ids[:, ::-1, 0]], ids[..., 1])
        ids = ids[..., 0]
    labels = labels if jnp.issubdtype(labels.dtype, jnp.floating) else _int32(labels)

    @jax.jit
    def run(model):
        def loss(model):
            logits = model(_int32(ids)).logits
            return cj.classification_loss(logits, labels), logits

        return jax.value_and_grad(loss, has_aux=True)(model)

    (loss, logits), gradients = run(model)
    return Errors(
        logits=_largest(logits - case["logits"]),
        losses=relative_error(loss, case["loss"][0]),
        gradients=_gradient_errors(model.config, gradients, case),
        hidden_states={},
    )


def training(folder: pathlib.Path) -> dict[str, float]:
    """Thirty steps of the optimizer: errors of every step's metrics, and of the final weights."""
    trace = json.loads((folder / "trace.json").read_text())
    arrays = load_file(folder / "golden.safetensors")
    config = OptimizerConfig(
        lr=trace["peak_lr"],
        lr_init=trace["warmup_lr_init"],
        lr_min=trace["lr_min"],
        warmup_fraction=trace["warmup_steps"] / trace["steps"],
        beta1=trace["betas"][0],
        beta2=trace["betas"][1],
        epsilon=trace["eps"],
        weight_decay=trace["weight_decay"],
        clip_norm=trace["grad_clip_norm"],
    )
    steps = trace["steps"]
    model = cj.CaduceusForMaskedLM.from_pretrained(str(folder))
    graphdef, params = nnx.split(model, nnx.Param)
    optimizer = make_optimizer(config, steps)
    step_fn = make_train_step(graphdef, optimizer, make_schedule(config, steps), cj.Tokenizer())
    state = init_state(params, optimizer)
    rows = []
    for ids, labels in zip(arrays["input_ids"], arrays["labels"], strict=True):
        batch = {
            "input_ids": _int32(ids),
            "labels": _int32(labels),
            "weights": jnp.ones(labels.shape, jnp.float32),
        }
        state, metrics = step_fn(state, batch)
        rows.append(jax.device_get(metrics))

    def largest_relative(key, name):
        found = np.array([row[key] for row in rows], np.float64)
        return float(np.abs(found / arrays[name] - 1).max())

    final = cj.convert.to_torch(model.config, state.params)
    return {
        "loss": largest_relative("loss", "losses"),
        "learning rate": largest_relative("lr", "learning_rates"),
        "gradient norm": largest_relative("grad_norm", "grad_norms"),
        "final weights": worst(
            {name: relative_error(array, arrays[f"final.{name}"]) for name, array in final.items()}
        ),
    }


def worst(errors) -> float:
    """The largest of a case's errors; NaN if one is."""
    return float(np.max(list(errors.values())))


def _gradient_errors(config, found, case) -> dict[str, float]:
    expected = {k.removeprefix("grad."): v for k, v in case.items() if k.startswith("grad.")}
    found = cj.convert.to_torch(config, found)
    assert found.keys() == expected.keys()
    return {name: relative_error(found[name], expected[name]) for name in expected}


def _int32(array) -> jax.Array:
    return jnp.asarray(array, jnp.int32)


def _largest(difference) -> float:
    return float(np.abs(difference).max())


def main() -> None:
    """Prints the largest error of each kind over all cases, as a Markdown table."""
    models = [language_model(GOLDEN / name) for name in LANGUAGE_MODELS]
    cases = models + [classifier(GOLDEN / name) for name in CLASSIFIERS]
    steps = training(GOLDEN / "ps_training")
    rows = {
        "logits": ([case.logits for case in cases], tolerances.PARITY_LOGITS),
        "hidden states": ([worst(m.hidden_states) for m in models], tolerances.PARITY_LOGITS),
        "losses": ([case.losses for case in cases], tolerances.PARITY_LOSS),
        "gradients": ([worst(case.gradients) for case in cases], tolerances.PARITY_GRADIENT),
    }
    for name, error in steps.items():
        rows[f"30 training steps: {name}"] = ([error], tolerances.PARITY_TRAINING)
    print("| compared with the original | largest difference | tests allow |")
    print("| --- | --- | --- |")
    for name, (errors, allowed) in rows.items():
        print(f"| {name} | {np.max(errors):.1e} | {allowed:.0e} |")


if __name__ == "__main__":
    main()
