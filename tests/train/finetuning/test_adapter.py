import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.train.finetuning.adapter import save_adapter
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.lora import partition_params
from caduceus_jax.train.finetuning.start import Start


@pytest.mark.parametrize("rcps", [True, False])
def test_the_adapter_is_the_change_of_every_weight_that_the_original_has(tmp_path, rcps):
    architecture = cj.CaduceusConfig(d_model=8, n_layer=2, d_state=4, rcps=rcps)
    model = cj.CaduceusForSequenceClassification(architecture, num_labels=3, rngs=nnx.Rngs(0))
    before = cj.convert.to_torch(architecture, model)
    config = FinetuneConfig(model="base", method="lora", lora_rank=2, lora_alpha=6.0)
    params = nnx.state(model, nnx.Param)
    tuning = partition_params(params, config, seed=1)
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), tuning.trained)
    nnx.update(model, tuning.combine(tuning.frozen, drawn))
    after = cj.convert.to_torch(architecture, model)
    start = Start(architecture, cj.Tokenizer(), None, False, "mean", "none", 0, 1)
    save_adapter(tmp_path, config, start, model, drawn)

    about = json.loads((tmp_path / "adapter_config.json").read_text())
    assert about["target_modules"] == ["in_proj", "out_proj", "x_proj"]
    assert (about["peft_type"], about["r"], about["lora_alpha"]) == ("LORA", 2, 6.0)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    np.testing.assert_array_equal(tensors.pop("base_model.model.score.weight"), model.score[...])
    seen = set()
    for name in [n for n in tensors if n.endswith("lora_A.weight")]:
        module = name.removesuffix(".lora_A.weight")
        change = 3 * tensors[f"{module}.lora_B.weight"] @ tensors[name]
        weight = module.removeprefix("base_model.model.") + ".weight"
        tied = weight.replace("mamba_rev", "mamba_fwd")
        stored = weight if weight in before else tied
        np.testing.assert_allclose(before[stored] + change, after[stored], atol=1e-5)
        seen.add(weight)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed - seen == {"score.weight"}
    # A projection that the original's two directions share is there once: PEFT's merge adds to the
    # shared weight as often as it is named.
    shared = {name for name in seen if "mamba_rev" in name}
    assert shared == {name for name in seen if "mamba_rev.x_proj" in name} and shared
    model = cj.CaduceusForSequenceClassification(architecture, num_labels=3, rngs=nnx.Rngs(1))
    nnx.update(model, cj.convert.from_torch(architecture, before))
    model.save_pretrained(tmp_path / "base")
    again = cj.CaduceusForSequenceClassification.from_pretrained(tmp_path, base=tmp_path / "base")
    merged = cj.convert.to_torch(architecture, again)
    for name, expected in after.items():
        np.testing.assert_allclose(merged[name], expected, atol=1e-5)
