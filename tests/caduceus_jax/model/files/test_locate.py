import shutil

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

import caduceus_jax as cj
from caduceus_jax.model.files.locate import locate

FILES = [
    "README.md",
    "config.json",
    "tokenizer.json",
    "modeling_caduceus.py",
    "model.safetensors",
    "pytorch_model.bin",
    "optimizer.bin",
    "checkpoint-1000/model.safetensors",
    "checkpoint-1000/config.json",
    "onnx/model.onnx",
]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, which downloads what the patterns let through."""
    files, fetched = list(FILES), []

    def download(name, *, allow_patterns, ignore_patterns, **_):
        wanted = filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        for file in wanted:
            path = tmp_path / file
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
            fetched.append(file)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return files, fetched


def test_only_the_models_own_files_are_downloaded(hub):
    locate("owner/name")
    assert hub[1] == FILES[:5]


def test_pickles_are_downloaded_where_there_is_nothing_safer(hub):
    hub[0].remove("model.safetensors")
    locate("owner/name")
    assert "pytorch_model.bin" in hub[1] and "optimizer.bin" not in hub[1]


def test_a_tokenizer_alone_needs_no_weights(hub):
    locate("owner/name", weights=False)
    assert not [name for name in hub[1] if "model." in name and "json" not in name]


def test_short_names_are_translated(hub, monkeypatch):
    names = []
    download = huggingface_hub.snapshot_download

    def listening(name, **options):
        names.append(name)
        return download(name, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", listening)
    locate("caduceus-ps-131k")
    assert names == ["kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16"]


def test_folders(tmp_path, golden):
    assert locate(golden / "ps") == golden / "ps"
    shutil.copytree(golden / "ps", tmp_path / "run" / "model")
    assert locate(tmp_path / "run") == tmp_path / "run" / "model"
    with pytest.raises(cj.UserError, match="has no config.json"):
        locate(tmp_path)
    with pytest.raises(cj.UserError, match="is not a hub id such as owner/name"):
        locate(tmp_path / "a" / "b" / "c")


def test_a_file_of_weights_that_is_absent_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(cj.UserError, match=r"last\.ckpt does not exist$"):
        locate(tmp_path / "last.ckpt")


def test_a_folder_of_models_names_them(tmp_path):
    for name in ("last.ckpt", "optimizer.pt", "training_args.bin", "notes.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(cj.UserError, match=r"; name what is in it, last\.ckpt$"):
        locate(tmp_path)
    for step in (500, 1000, 1500):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "config.json").write_text("{}")
    with pytest.raises(cj.UserError, match=r"last\.ckpt, checkpoint-1000, .*1500, \.\.\.$"):
        locate(tmp_path)


def test_without_a_network_a_folder_is_asked_for(monkeypatch):
    def fails(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(cj.UserError, match="to work offline, name a folder with the model's files"):
        locate("owner/name")
