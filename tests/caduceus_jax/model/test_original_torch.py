"""Every kind of folder that is written here, loaded by the original's own PyTorch code and back.

Needs two things that are not part of this project, named by environment variables:
CADUCEUS_ORIGINAL, a clone of the original's repository, and CADUCEUS_TORCH, a Python with torch,
transformers 4.38.1, numpy < 2 and, for adapters, peft 0.10.

    CADUCEUS_ORIGINAL=... CADUCEUS_TORCH=... pytest -m original tests/caduceus_jax/model

ends with a table of the largest differences between the logits of both.
"""

import os
import pathlib
import subprocess
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.model import checkpoint
from caduceus_jax.model.files.task import TaskDescription
from tests.models import classifier, language_model
from tests.tolerances import PARITY_LOGITS

ORIGINAL, PYTHON = os.environ.get("CADUCEUS_ORIGINAL"), os.environ.get("CADUCEUS_TORCH")
pytestmark = [
    pytest.mark.original,
    pytest.mark.skipif(
        not (ORIGINAL and PYTHON), reason="needs CADUCEUS_ORIGINAL and CADUCEUS_TORCH"
    ),
]
GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
SCRIPT = pathlib.Path(__file__).parents[2] / "original_torch.py"


def bases(low=7, high=12):
    return np.random.default_rng(0).integers(low, high, (2, 25)).astype(np.int32)


def theirs(folder, tmp_path, ids, *options):
    """What the original computes from a folder, and where it saved the model again."""
    np.savez(tmp_path / "inputs.npz", input_ids=ids)
    outputs = tmp_path / "outputs.npz"
    command = [PYTHON, SCRIPT, folder, tmp_path / "inputs.npz", outputs, *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(outputs), pathlib.Path(f"{outputs}.saved")


MODELS = {
    "ps": lambda: language_model(n_layer=2),
    "released": lambda: language_model(n_layer=3, fused_add_norm=True, residual_in_fp32=True),
    "ph": lambda: language_model(n_layer=2, rcps=False, fused_add_norm=True),
    "untied": lambda: language_model(n_layer=1, bidirectional_weight_tie=False),
    "classifier": lambda: classifier(rcps=True),
    "own vocabulary": lambda: cj.CaduceusForMaskedLM.from_pretrained(GOLDEN / "ps_vocabulary8"),
    "merged LoRA": lambda: merged_adapter(language_model(n_layer=2)),
}


def save_adapter(folder, base, config):
    """Saves a random adapter of every projection."""
    rng, low_rank = np.random.default_rng(1), {}
    for name, (inputs, out) in {
        "in_proj/kernel": (24, 96),
        "out_proj/kernel": (48, 24),
        "fwd/x_proj": (48, 34),
        "rev/x_proj": (48, 34),
    }.items():
        low_rank[f"caduceus/layers/mixer/{name}/a"] = rng.normal(size=(2, inputs, 2))
        low_rank[f"caduceus/layers/mixer/{name}/b"] = 0.1 * rng.normal(size=(2, 2, out))
    checkpoint.save_adapter(folder, config, low_rank, {}, rank=2, alpha=4, base=str(base))


def merged_adapter(model):
    """The model with such an adapter merged into it."""
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = pathlib.Path(folder, "base"), pathlib.Path(folder, "adapter")
        model.save_pretrained(base)
        save_adapter(adapter, base, model.config)
        return cj.CaduceusForMaskedLM.from_pretrained(adapter)


@pytest.mark.parametrize("name", MODELS)
def test_the_original_computes_the_same_and_back(tmp_path, name, record_property):
    model = MODELS[name]()
    own = name == "own vocabulary"
    ids = bases(0, 8) if own else bases()
    model.save_pretrained(tmp_path / "m", code=ORIGINAL)
    found, saved = theirs(tmp_path / "m", tmp_path, ids)
    logits = jax.jit(lambda m, i: m(i).logits)
    expected = logits(model, jnp.asarray(ids))
    again = type(model).from_pretrained(saved)
    there, back, scale = (
        float(jnp.abs(x).max())
        for x in (found["logits"] - expected, logits(again, jnp.asarray(ids)) - expected, expected)
    )
    row = {"folder": name, "in the original": f"{there:.1e}", "and back": f"{back:.1e}"}
    record_property("table", ("logits apart", row | {"largest logit": f"{scale:.2f}"}))
    np.testing.assert_allclose(found["logits"], expected, atol=PARITY_LOGITS, rtol=0)
    assert not found["unexpected"].size
    tokenizer = model.tokenizer if own else cj.Tokenizer()
    np.testing.assert_array_equal(found["tokens"], tokenizer.encode("ACGTNacgtn"))
    assert own or found["tokenizer"] == "CaduceusTokenizer"
    one, other = nnx.state(again, nnx.Param), nnx.state(model, nnx.Param)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))


def test_a_fine_tuned_folder_with_its_task(tmp_path):
    model, ids = classifier(rcps=True, num_labels=2), bases()
    task = TaskDescription(max_length=25, labels=("no", "yes"))
    checkpoint.save(tmp_path / "m", model.config, model, task=task, code=ORIGINAL)
    found, _ = theirs(tmp_path / "m", tmp_path, ids)
    expected = jax.jit(lambda m, i: m(i).logits)(model, jnp.asarray(ids))
    np.testing.assert_allclose(found["logits"], expected, atol=PARITY_LOGITS, rtol=0)


def test_an_adapter_merged_by_peft_is_the_one_merged_here(tmp_path):
    model, ids = language_model(n_layer=2), bases()
    model.save_pretrained(tmp_path / "m", code=ORIGINAL)
    save_adapter(tmp_path / "a", tmp_path / "m", model.config)
    found, _ = theirs(tmp_path / "m", tmp_path, ids, "--adapter", tmp_path / "a")
    merged = cj.CaduceusForMaskedLM.from_pretrained(tmp_path / "a")
    call = jax.jit(lambda m, i: m(i).logits)
    expected = call(merged, jnp.asarray(ids))
    assert float(jnp.abs(expected - call(model, jnp.asarray(ids))).max()) > 0.1
    np.testing.assert_allclose(found["logits"], expected, atol=PARITY_LOGITS, rtol=0)


def test_an_adapter_of_peft_is_what_it_is_in_pytorch(tmp_path):
    """PEFT adapts both directions by themselves, so that the model is no longer tied."""
    model, ids = language_model(n_layer=1), bases()
    model.save_pretrained(tmp_path / "m", code=ORIGINAL)
    found, _ = theirs(tmp_path / "m", tmp_path, ids, "--draw-adapter", tmp_path / "a")
    merged = cj.CaduceusForMaskedLM.from_pretrained(tmp_path / "a")
    assert not merged.config.bidirectional_weight_tie
    expected = jax.jit(lambda m, i: m(i).logits)(merged, jnp.asarray(ids))
    np.testing.assert_allclose(found["logits"], expected, atol=PARITY_LOGITS, rtol=0)
