import pytest

import caduceus_jax as cj
from caduceus_jax.train.finetuning.config import (
    FinetuneConfig,
    GenesConfig,
    LabelledConfig,
    TracksConfig,
)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FinetuneConfig, {"seeds": []}, "seeds are"),
        (FinetuneConfig, {"seeds": [1, 1]}, "none twice"),
        (FinetuneConfig, {"seeds": [-1]}, "a seed is -1"),
        (FinetuneConfig, {"epochs": 0}, "epochs is 0; it is at least 1"),
        (
            FinetuneConfig,
            {"class_weights": "balanced", "data": LabelledConfig(kind="regression")},
            "class_weights is balanced, but data.kind regression has no classes",
        ),
        (LabelledConfig, {"validation_fraction": 1.0}, "data.validation_fraction is 1.0"),
        (LabelledConfig, {"max_length": 0}, "data.max_length is 0"),
        (LabelledConfig, {"task": "a/b", "train": "c.csv"}, "leave data.train and data.test out"),
        (LabelledConfig, {"kind": "tracks"}, "use data.task tracks"),
        (TracksConfig, {"stride": 0}, "data.tracks.stride is 0"),
        (TracksConfig, {"length": 100, "bin_size": 30}, "not a multiple of bin_size 30"),
        (GenesConfig, {"length": 0}, "data.genes.length is 0"),
    ],
)
def test_values_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(cj.UserError, match=message):
        kind(**settings)
