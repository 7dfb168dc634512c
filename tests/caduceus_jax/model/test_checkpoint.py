import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import caduceus_jax as cj
from caduceus_jax.model import checkpoint
from caduceus_jax.model.files.task import TaskDescription
from tests import torch_files
from tests.models import classifier, language_model
from tests.tolerances import PARITY_LOGITS


def tensors_of(golden, name="ps"):
    return load_file(golden / name / "model.safetensors")


def same(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))


def test_nothing_there(tmp_path):
    with pytest.raises(cj.UserError, match="has no config.json: it is not a model's folder"):
        checkpoint.load(tmp_path)
    with pytest.raises(cj.UserError, match="does not exist, and is not a hub id"):
        checkpoint.load(tmp_path / "absent" / "deep")
    (tmp_path / "genome.fa").write_text(">a\nACGT\n")
    with pytest.raises(cj.UserError, match="genome.fa is not a model: name a folder"):
        checkpoint.load(tmp_path / "genome.fa")


def test_weights_alone(tmp_path, golden):
    save_file(tensors_of(golden, "ps_vocabulary8"), tmp_path / "weights.safetensors")
    inferred, loaded = checkpoint.load(tmp_path / "weights.safetensors")
    assert (inferred.d_model, inferred.vocab_size) == (24, 8)
    assert same(loaded, checkpoint.load(golden / "ps_vocabulary8")[1])


def test_no_weights(tmp_path, golden):
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    with pytest.raises(cj.UserError, match="no model.safetensors and no pytorch_model.bin"):
        checkpoint.load(tmp_path)


def test_damaged_files(tmp_path, golden):
    (tmp_path / "config.json").write_text("{\n'd_model': 3}")
    with pytest.raises(cj.UserError, match="config.json, line 2: not JSON"):
        checkpoint.load(tmp_path)
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    whole = (golden / "ps" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(cj.UserError, match="model.safetensors is damaged"):
        checkpoint.load(tmp_path)


def test_shards(tmp_path, golden):
    tensors = tensors_of(golden)
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[:20], names[20:])):
        save_file({n: tensors[n] for n in part}, tmp_path / f"model-{i}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{i}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert same(checkpoint.load(golden / "ps")[1], checkpoint.load(tmp_path)[1])


def test_a_runs_folder_holds_its_model(tmp_path, golden):
    shutil.copytree(golden / "ps", tmp_path / "model")
    assert checkpoint.locate(tmp_path) == tmp_path / "model"


def test_the_originals_lightning_checkpoint(golden):
    """With a pickled OmegaConf in it, and without torch."""
    model = cj.CaduceusForMaskedLM.from_pretrained(golden / "lightning" / "last.ckpt")
    case = np.load(golden / "lightning" / "last.npz")
    logits = jax.jit(lambda m, ids: m(ids).logits)(model, jnp.asarray(case["ids"], jnp.int32))
    np.testing.assert_allclose(logits, case["out"], atol=PARITY_LOGITS, rtol=0)


def test_lightning_checkpoints_tell_their_architecture(tmp_path, golden):
    state = {f"model.{name}": tensor for name, tensor in tensors_of(golden).items()}
    settings = {"model": {"config": {"norm_epsilon": 1e-3, "bidirectional_strategy": "add"}}}
    saved = {"state_dict": state, "epoch": 3, "hyper_parameters": settings}
    inferred, loaded = checkpoint.load(torch_files.zipped(tmp_path / "last.ckpt", saved))
    assert (inferred.d_model, inferred.n_layer, inferred.rcps) == (32, 3, True)
    assert inferred.norm_epsilon == 1e-3
    assert same(loaded, checkpoint.load(golden / "ps")[1])


def test_a_refusal_names_the_container_and_the_prefix(tmp_path, golden):
    state = {f"module.{name}": tensor for name, tensor in tensors_of(golden).items()}
    state["module.surprise"] = np.zeros(1, np.float32)
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    path = torch_files.zipped(tmp_path / "epoch3.pth", {"model": state, "optimizer": {}})
    with pytest.raises(cj.UserError) as error:
        checkpoint.load(path)
    assert "epoch3.pth (under the key 'model', after the prefix 'module.')" in str(error.value)
    assert "1 unexpected: surprise" in str(error.value)


def test_a_config_that_is_not_the_tensors_is_told_apart(tmp_path, golden):
    hf = json.loads((golden / "ps" / "config.json").read_text()) | {"n_layer": 5, "rcps": "true"}
    (tmp_path / "config.json").write_text(json.dumps(hf))
    shutil.copy(golden / "ps" / "model.safetensors", tmp_path)
    with pytest.raises(cj.UserError, match=r"with n_layer: 3 \(the config says 5\): correct"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", ["ps", "ps_unfused", "unidirectional_layernorm"])
def test_what_a_config_leaves_out_the_tensors_tell(tmp_path, golden, name):
    hf = json.loads((golden / name / "config.json").read_text())
    for key in ("d_model", "n_layer", "rcps", "bidirectional", "rms_norm"):
        del hf[key]
    hf["complement_map"] = None
    (tmp_path / "config.json").write_text(json.dumps(hf))
    shutil.copy(golden / name / "model.safetensors", tmp_path)
    assert checkpoint.load(tmp_path)[0] == checkpoint.load(golden / name)[0]


def test_a_tied_tensor_may_be_stored_under_either_name(tmp_path, golden):
    tensors = tensors_of(golden)
    for name in [name for name in tensors if "mamba_fwd.in_proj" in name]:
        tensors[name.replace("mamba_fwd", "mamba_rev")] = tensors.pop(name)
    embedding = "caduceus.backbone.embeddings.word_embeddings.embedding.weight"
    tensors["lm_head.lm_head.weight"] = tensors.pop(embedding)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    assert same(checkpoint.load(tmp_path)[1], checkpoint.load(golden / "ps")[1])


def test_quantized_weights_are_refused(tmp_path, golden):
    tensors = tensors_of(golden)
    tensors["caduceus.backbone.norm_f.weight"] = np.ones(32, np.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    shutil.copy(golden / "ps" / "config.json", tmp_path)
    with pytest.raises(cj.UserError, match="norm_f.weight is int8: quantized weights"):
        checkpoint.load(tmp_path)


def test_the_tokenizer_travels_with_the_model(tmp_path, golden):
    model = cj.CaduceusForMaskedLM.from_pretrained(golden / "ps_vocabulary8")
    assert model.tokenizer == cj.Tokenizer.from_pretrained(golden / "ps_vocabulary8")
    model.save_pretrained(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        theirs = (golden / "ps_vocabulary8" / name).read_text()
        assert (tmp_path / "again" / name).read_text() == theirs
    again = cj.CaduceusForMaskedLM.from_pretrained(tmp_path / "again")
    assert again.tokenizer == model.tokenizer
    new = language_model(n_layer=1)
    new.save_pretrained(tmp_path / "new")
    assert cj.Tokenizer.from_pretrained(tmp_path / "new") == new.tokenizer == cj.Tokenizer()


def test_a_model_of_an_unknown_vocabulary_has_no_tokenizer(tmp_path, golden):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(golden / "ps_vocabulary8" / name, tmp_path)
    assert checkpoint.open_model(tmp_path).tokenizer is None


def test_an_export_describes_its_task(tmp_path):
    model = classifier(pooling="max", num_labels=2)
    task = TaskDescription(max_length=96, pooling="max", labels=("no", "yes"))
    state = nnx.state(model, nnx.Param)
    checkpoint.save(tmp_path, model.config, state, task=task)
    hf = json.loads((tmp_path / "config.json").read_text())
    assert hf["id2label"] == {"0": "no", "1": "yes"}
    assert checkpoint.open_model(tmp_path).task == task


def test_every_written_config_orders_complements_by_number(tmp_path):
    for name, model in {"lm": language_model(n_layer=1), "clf": classifier()}.items():
        model.save_pretrained(tmp_path / name)
        hf = json.loads((tmp_path / name / "config.json").read_text())
        assert list(hf["complement_map"]) == [str(i) for i in range(16)]
        assert tuple(hf["complement_map"].values()) == model.config.complement_map
