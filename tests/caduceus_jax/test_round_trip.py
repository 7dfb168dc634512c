"""From PyTorch to here and back: the same tensors bit for bit, the same config, the same tokenizer.

The folders under tests/golden were written by the original in PyTorch.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import caduceus_jax as cj
from caduceus_jax.cli.convert import convert
from caduceus_jax.model import checkpoint

CLASSES = {
    "ps": cj.CaduceusForMaskedLM,
    "ps_unfused": cj.CaduceusForMaskedLM,
    "ph": cj.CaduceusForMaskedLM,
    "ps_vocabulary8": cj.CaduceusForMaskedLM,  # that of PlantCaduceus
    "unidirectional_layernorm": cj.CaduceusForMaskedLM,
    "ps_classifier": cj.CaduceusForSequenceClassification,
    "ph_classifier_conjoin": cj.CaduceusForSequenceClassification,
}
MIXER = "caduceus.backbone.layers.{}.mixer.submodule.mamba_{}.{}"
# Of the adapter: its modules, with outputs and inputs. A tied projection is adapted once.
ADAPTED = [("fwd", "in_proj", 128, 32), ("fwd", "x_proj", 34, 64), ("rev", "x_proj", 34, 64)]


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def assert_same_tokens(folder, expected):
    tokenizer = cj.Tokenizer.from_pretrained(folder)
    assert tokenizer == expected
    # As `AutoTokenizer` of transformers reads it.
    stored = json.loads((folder / "tokenizer.json").read_text())
    ids = {token.upper(): i for token, i in stored["model"]["vocab"].items()}
    assert ids == expected.vocabulary


def tokenizer_of(folder):
    """The tokenizer that PyTorch users have with a model; the original's comes with its code."""
    if (folder / "tokenizer.json").is_file():
        return cj.Tokenizer.from_pretrained(folder)
    return cj.Tokenizer()


@pytest.mark.parametrize("way", ["from_pretrained", "convert"])
@pytest.mark.parametrize("name", CLASSES)
def test_models(golden, tmp_path, name, way):
    source, out = golden / name, tmp_path / "out"
    if way == "convert":
        convert(str(source), out=out)
    else:
        CLASSES[name].from_pretrained(source).save_pretrained(out)
    assert_same_bits(tensors_of(out), tensors_of(source))
    before, after = (json.loads((f / "config.json").read_text()) for f in (source, out))
    assert {key: after.get(key) for key in before} == before
    assert_same_tokens(out, tokenizer_of(source))
    for file in source.glob("tokenizer*.json"):
        assert (out / file.name).read_bytes() == file.read_bytes()


def peft_adapter(folder, base):
    """An adapter as PEFT stores it, whose factors are whole numbers: sums of them are exact."""
    rng, tensors = np.random.default_rng(0), {}
    for layer in range(3):
        for direction, module, out, inputs in ADAPTED:
            name = "base_model.model." + MIXER.format(layer, direction, module)
            for factor, shape in (("A", (2, inputs)), ("B", (out, 2))):
                tensor = rng.integers(-3, 4, shape).astype(np.float32)
                tensors[f"{name}.lora_{factor}.weight"] = tensor
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    settings["target_modules"] = ["in_proj", "x_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return tensors


def test_an_adapter_merged_into_its_model(golden, tmp_path):
    adapter = peft_adapter(tmp_path / "adapter", golden / "ps")
    convert(str(tmp_path / "adapter"), out=tmp_path / "merged")
    expected = tensors_of(golden / "ps")
    for name, factor in adapter.items():
        if name.endswith("lora_B.weight"):
            other = adapter[name.replace("lora_B", "lora_A")]
            weight = name.removeprefix("base_model.model.").replace("lora_B.", "")
            expected[weight] = expected[weight] + 2 * factor @ other
    merged = tensors_of(tmp_path / "merged")
    # The file of the model stores a tied projection once, under the name of either direction.
    assert_same_bits(merged, expected)
    assert_same_tokens(tmp_path / "merged", cj.Tokenizer())


def test_an_adapter_by_itself(golden, tmp_path):
    adapter = peft_adapter(tmp_path / "adapter", golden / "ps")
    low_rank = {}
    for direction, module, _, _ in ADAPTED:
        path = module if module == "in_proj" else f"{direction}/{module}"
        for ours, theirs in (("a", "A"), ("b", "B")):
            names = [MIXER.format(layer, direction, module) for layer in range(3)]
            stack = [adapter[f"base_model.model.{name}.lora_{theirs}.weight"].T for name in names]
            kernel = "/kernel" if module == "in_proj" else ""
            low_rank[f"caduceus/layers/mixer/{path}{kernel}/{ours}"] = np.stack(stack)
    config = checkpoint.open_model(golden / "ps").config
    base = str(golden / "ps")
    checkpoint.save_adapter(tmp_path / "out", config, low_rank, {}, rank=2, alpha=4, base=base)
    assert_same_bits(load_file(tmp_path / "out" / "adapter_model.safetensors"), adapter)
    before, after = (
        json.loads((tmp_path / folder / "adapter_config.json").read_text())
        for folder in ("adapter", "out")
    )
    assert {key: after.get(key) for key in before} == before
    assert_same_tokens(tmp_path / "out", cj.Tokenizer())
