"""What `caduceus-jax convert` takes along; its command line is tested in test_main.py."""

import shutil

import huggingface_hub
import pytest
from safetensors.numpy import load_file

import caduceus_jax as cj
from caduceus_jax.cli.convert import convert
from tests import torch_files


@pytest.fixture
def hub(golden, monkeypatch, tmp_path):
    """The model of PlantCaduceus' vocabulary on the hub, with code beside it."""
    snapshot = tmp_path / "snapshot"
    shutil.copytree(golden / "ps_vocabulary8", snapshot)
    (snapshot / "modeling_caduceus.py").write_text("class Caduceus: ...\n")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    return snapshot


def test_a_hub_id_keeps_its_tokenizer_and_its_code(hub, tmp_path):
    convert("owner/name", out=tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "modeling_caduceus.py"):
        assert (tmp_path / "out" / name).read_text() == (hub / name).read_text()
    assert cj.Tokenizer.from_pretrained(tmp_path / "out").base_ids == (3, 4, 5, 6)


def test_a_lightning_checkpoint_gets_the_originals_tokenizer(golden, tmp_path):
    convert(str(golden / "lightning" / "last.ckpt"), out=tmp_path / "out")
    assert cj.Tokenizer.from_pretrained(tmp_path / "out") == cj.Tokenizer()
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_vocabulary_that_is_not_known_is_said(golden, tmp_path, caplog):
    stored = load_file(golden / "ps_vocabulary8" / "model.safetensors")
    path = torch_files.zipped(tmp_path / "weights.pt", {"state_dict": stored})
    convert(str(path), out=tmp_path / "out")
    assert "weights.pt has no tokenizer, and its vocabulary is not the original's" in caplog.text
    assert not (tmp_path / "out" / "tokenizer.json").exists()


def test_a_classifier_keeps_what_is_known_of_it(golden, tmp_path):
    convert(str(golden / "ps_classifier"), out=tmp_path / "out")
    text = (tmp_path / "out" / "config.json").read_text()
    assert text == (golden / "ps_classifier" / "config.json").read_text()


def test_convert(run, golden, tmp_path):
    out = tmp_path / "out"
    status, report, _ = run("convert", str(golden / "ps_vocabulary8"), "--out", str(out))
    assert status == 0
    assert "mixer.submodule.mamba_fwd.A_log                 48 x 16 in 4 layers" in report
    assert report.splitlines()[-2:] == [
        "70 tensors, 36,792 parameters",
        f"wrote {out}/config.json and {out}/model.safetensors",
    ]
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    names.add("README.md")
    assert {path.name for path in out.iterdir()} == names
    status, _, err = run("convert", str(golden / "ps"), "--out", str(out))
    assert status == 2 and "is not empty: name another folder, or add --force" in err
    assert run("convert", str(golden / "ps"), "--out", str(out), "--force")[0] == 0
