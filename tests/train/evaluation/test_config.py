import pytest

import caduceus_jax as cj
from caduceus_jax.train.evaluation.config import EqtlEvaluation, EvaluateConfig, MaskedEvaluation
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig


def test_settings_that_would_not_be_read_are_refused():
    cases = {
        "tuning.model is not read here: set model or models": {"tuning": FinetuneConfig(model="m")},
        "tuning.out is not read here: set out": {"tuning": FinetuneConfig(out="elsewhere")},
        "tuning.data.train is not read here": {
            "tuning": FinetuneConfig(data=LabelledConfig(train="a.csv"))
        },
        "model and models are both given": {"model": "m", "models": ["a=b"]},
    }
    for message, settings in cases.items():
        with pytest.raises(cj.UserError, match=message):
            EvaluateConfig(**settings)


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (EqtlEvaluation, {"window": 4}, "window is 4; it must be an odd number"),
        (EqtlEvaluation, {"context_length": 0}, "context_length is 0"),
        (EqtlEvaluation, {"seeds": []}, "seeds is empty"),
        (MaskedEvaluation, {"windows": 0}, "windows is 0"),
        (MaskedEvaluation, {"mask_probability": 0.0001}, "masks none of the 1024 bases"),
    ],
)
def test_values_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(cj.UserError, match=message):
        kind("model", **settings)
