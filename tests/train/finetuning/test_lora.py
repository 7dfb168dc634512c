import jax
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.lora import partition_params

ARCHITECTURE = cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=True)


def params():
    model = cj.CaduceusForSequenceClassification(ARCHITECTURE, num_labels=3, rngs=nnx.Rngs(0))
    return nnx.state(model, nnx.Param)


@pytest.mark.parametrize("method", ["all", "lora"])
def test_the_division_puts_together_what_there_was(method):
    before = params()
    tuning = partition_params(before, FinetuneConfig(method=method, lora_rank=2), seed=1)
    after = tuning.combine(tuning.frozen, tuning.trained)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        np.testing.assert_array_equal(other, one, err_msg=str(path))
    if method == "all":
        assert not tuning.frozen and not tuning.trained["low_rank"]


def test_low_rank_changes_are_added_to_each_layer():
    before = params()
    tuning = partition_params(
        before, FinetuneConfig(method="lora", lora_rank=2, lora_alpha=6.0), seed=1
    )
    assert set(tuning.trained["whole"]) == {"score"}
    name = "caduceus/layers/mixer/in_proj/kernel"
    assert {key.removesuffix("/a") for key in tuning.trained["low_rank"] if key[-1] == "a"} == {
        name,
        "caduceus/layers/mixer/out_proj/kernel",
        "caduceus/layers/mixer/fwd/x_proj",
        "caduceus/layers/mixer/rev/x_proj",
    }
    factors = dict(tuning.trained["low_rank"])
    b = np.random.default_rng(0).normal(size=factors[f"{name}/b"].shape).astype(np.float32)
    factors[f"{name}/b"] = b
    after = tuning.combine(tuning.frozen, {**tuning.trained, "low_rank": factors})
    kernel = before["caduceus"]["layers"]["mixer"]["in_proj"]["kernel"][...]
    expected = kernel + 3 * np.einsum("lir,lro->lio", factors[f"{name}/a"], b)
    found = after["caduceus"]["layers"]["mixer"]["in_proj"]["kernel"][...]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    count = sum(array.size for array in factors.values())
    assert count == 2 * 2 * ((8 + 32) + (16 + 8) + 2 * (16 + 9))


def test_a_rank_beyond_a_projection_is_refused():
    with pytest.raises(cj.UserError, match="lora_rank is 9, larger than the projection .* 8 x 32"):
        partition_params(params(), FinetuneConfig(method="lora", lora_rank=9), seed=0)
