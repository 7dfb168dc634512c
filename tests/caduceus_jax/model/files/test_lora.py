import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import caduceus_jax as cj
from caduceus_jax.model import checkpoint
from caduceus_jax.model.files import lora

MIXER = "caduceus.backbone.layers.0.mixer.submodule."


def adapter(folder, modules, settings=None, prefix="base_model.model.", extra=None):
    """A PEFT adapter of these modules of `tests/golden/ps`, as (out, in) each."""
    rng = np.random.default_rng(0)
    tensors = dict(extra or {})
    for module, (out, inputs) in modules.items():
        for factor, shape in (("A", (4, inputs)), ("B", (out, 4))):
            name = f"{prefix}{module}.lora_{factor}.weight"
            tensors[name] = rng.normal(size=shape).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    kind = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["x_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(kind | (settings or {})))
    return tensors


def merged(golden, folder):
    stored = checkpoint.open_model(folder, base=golden / "ps")
    return stored.config, cj.convert.to_torch(stored.config, stored.state)


def test_a_change_is_scaled_and_added(golden, tmp_path):
    tensors = adapter(tmp_path, {MIXER + "mamba_fwd.x_proj": (34, 64)})
    _, found = merged(golden, tmp_path)
    base = load_file(golden / "ps" / "model.safetensors")
    name, root = MIXER + "mamba_fwd.x_proj.weight", f"base_model.model.{MIXER}mamba_fwd.x_proj"
    change = 2 * tensors[f"{root}.lora_B.weight"] @ tensors[f"{root}.lora_A.weight"]
    np.testing.assert_allclose(found[name], base[name] + change, rtol=1e-6)
    same = {key for key in found if np.array_equal(found[key], base[key])}
    assert set(found) - same == {name}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"use_rslora": True}, 4),
        ({"alpha_pattern": {"x_proj": 4}}, 1),
        ({"alpha_pattern": {"in_proj": 4}}, 2),
    ],
    ids=str,
)
def test_other_scales(tmp_path, settings, scale):
    tensors = adapter(tmp_path, {MIXER + "mamba_fwd.x_proj": (34, 64)}, settings)
    a, b = (next(t for n, t in tensors.items() if f"lora_{k}" in n) for k in "AB")
    (change,) = lora.read(tmp_path).changes.values()
    np.testing.assert_allclose(change, scale * b @ a, rtol=1e-6)


def test_tied_projections_changed_alike_stay_tied(golden, tmp_path):
    tensors = adapter(tmp_path, {MIXER + "mamba_fwd.in_proj": (128, 32)})
    one, _ = merged(golden, tmp_path)
    twin = {n.replace("mamba_fwd", "mamba_rev"): t for n, t in tensors.items()}
    adapter(tmp_path, {MIXER + "mamba_fwd.in_proj": (128, 32)}, extra=twin)
    both, found = merged(golden, tmp_path)
    assert one.bidirectional_weight_tie and both.bidirectional_weight_tie
    assert MIXER + "mamba_rev.in_proj.weight" not in found


def test_tied_projections_changed_differently_are_no_longer_tied(golden, tmp_path):
    modules = {f"{MIXER}mamba_{d}.out_proj": (32, 64) for d in ("fwd", "rev")}
    adapter(tmp_path, modules)
    config, found = merged(golden, tmp_path)
    assert not config.bidirectional_weight_tie
    base = load_file(golden / "ps" / "model.safetensors")[MIXER + "mamba_fwd.out_proj.weight"]
    for module in modules:
        change = lora.read(tmp_path).changes[f"{module}.weight"]
        np.testing.assert_allclose(found[f"{module}.weight"], base + change, rtol=1e-6)
    later = MIXER.replace("layers.0", "layers.1")
    np.testing.assert_array_equal(
        found[later + "mamba_fwd.out_proj.weight"], found[later + "mamba_rev.out_proj.weight"]
    )


def test_a_head_saved_with_an_adapter_makes_a_classifier(golden, tmp_path):
    head = np.ones((3, 32), np.float32)
    extra = {"base_model.model.score.weight": head}
    adapter(tmp_path, {MIXER + "mamba_fwd.dt_proj": (64, 2)}, extra=extra)
    model = cj.CaduceusForSequenceClassification.from_pretrained(tmp_path, base=golden / "ps")
    np.testing.assert_array_equal(model.score[...], head)


def test_the_base_is_the_one_that_is_named(golden, tmp_path):
    adapter(tmp_path, {MIXER + "mamba_fwd.x_proj": (34, 64)})
    with pytest.raises(cj.UserError, match="does not name its base model: pass base"):
        cj.CaduceusForMaskedLM.from_pretrained(tmp_path)
    named = {"base_model_name_or_path": str(golden / "ps")}
    adapter(tmp_path, {MIXER + "mamba_fwd.x_proj": (34, 64)}, named)
    assert cj.CaduceusForMaskedLM.from_pretrained(tmp_path).tokenizer == cj.Tokenizer()


@pytest.mark.parametrize(
    ("modules", "settings", "message"),
    [
        ({MIXER + "mamba_fwd.x_proj": (34, 64)}, {"peft_type": "IA3"}, "of the kind IA3"),
        ({MIXER + "mamba_fwd.x_proj": (34, 64)}, {"use_dora": True}, "is a DoRA adapter"),
        (
            {MIXER + "mamba_fwd.x_proj": (34, 64)},
            {"init_lora_weights": "pissa"},
            "began with pissa, which also changes the base model",
        ),
        ({MIXER + "mamba_fwd.x_proj": (30, 64)}, {}, r"is \(34, 64\): it belongs to another base"),
        ({"caduceus.backbone.layers.9.x_proj": (34, 64)}, {}, "base model does not have"),
    ],
    ids=str,
)
def test_what_cannot_be_merged_is_refused(golden, tmp_path, modules, settings, message):
    adapter(tmp_path, modules, settings)
    with pytest.raises(cj.UserError, match=message):
        merged(golden, tmp_path)


def test_half_an_adapter_is_refused(tmp_path):
    tensors = adapter(tmp_path, {MIXER + "mamba_fwd.x_proj": (34, 64)})
    save_file(dict([next(iter(tensors.items()))]), tmp_path / "adapter_model.safetensors")
    with pytest.raises(cj.UserError, match=r"lacks lora_B of .*x_proj"):
        lora.read(tmp_path)


def test_ours_is_written_and_read_again(golden, tmp_path):
    stored = checkpoint.open_model(golden / "ps")
    rng = np.random.default_rng(0)
    shapes = {
        "caduceus/layers/mixer/in_proj/kernel": (32, 128),
        "caduceus/layers/mixer/rev/x_proj": (64, 34),
    }
    low_rank = {}
    for name, (inputs, out) in shapes.items():
        low_rank[f"{name}/a"] = rng.normal(size=(3, inputs, 2)).astype(np.float32)
        low_rank[f"{name}/b"] = rng.normal(size=(3, 2, out)).astype(np.float32)
    score = rng.normal(size=(2, 32)).astype(np.float32)
    checkpoint.save_adapter(
        tmp_path, stored.config, low_rank, {"score": score}, rank=2, alpha=6,
        base=str(golden / "ps"),
    )  # fmt: skip
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["in_proj", "x_proj"]
    assert settings["modules_to_save"] == ["score"]
    assert (tmp_path / "tokenizer.json").is_file()
    found = checkpoint.open_model(tmp_path)
    mixer = found.state["caduceus"]["layers"]["mixer"]
    base = stored.state["caduceus"]["layers"]["mixer"]
    for name, part in (("in_proj", "kernel"), ("rev", "x_proj")):
        key = "caduceus/layers/mixer/" + f"{name}/{part}"
        change = 3 * low_rank[f"{key}/a"] @ low_rank[f"{key}/b"]
        expected = np.asarray(base[name][part][...]) + change
        np.testing.assert_allclose(mixer[name][part][...], expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(found.state["score"][...], score)
    with pytest.raises(cj.UserError, match="the model has no parameter caduceus/nothing/a"):
        checkpoint.save_adapter(
            tmp_path, stored.config, {"caduceus/nothing/a": score}, {}, rank=2, alpha=6, base=""
        )
