import json
import types

import huggingface_hub
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import caduceus_jax as cj
from tests.models import language_model


def test_one_architecture_is_traced_once(tmp_path):
    traces = []

    @jax.jit
    def call(model, ids):
        traces.append(1)
        return model(ids).logits

    config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    made = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0))
    made.save_pretrained(tmp_path)
    loaded = cj.CaduceusForMaskedLM.from_pretrained(tmp_path)
    assert loaded.config == made.config and hash(loaded.config) == hash(made.config)
    for model in (made, loaded):
        call(model, jnp.full((1, 8), 7))
    assert len(traces) == 1


def test_a_backbone_alone_survives_files(tmp_path):
    backbone = language_model(n_layer=1).caduceus
    backbone.save_pretrained(tmp_path)
    hf = json.loads((tmp_path / "config.json").read_text())
    assert hf["architectures"] == ["Caduceus"]
    again = cj.Caduceus.from_pretrained(tmp_path)
    equal = jax.tree.map(lambda a, b: (a == b).all(), nnx.state(again), nnx.state(backbone))
    assert jax.tree.all(equal)


def test_a_model_is_pushed_to_the_hub(monkeypatch):
    calls = []

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            calls.append(("create", repo_id, private, exist_ok))
            return types.SimpleNamespace(repo_id=f"someone/{repo_id}")

        def create_branch(self, repo_id, *, branch, exist_ok):
            calls.append(("branch", repo_id, branch))

        def upload_folder(self, *, repo_id, folder_path, revision, commit_message):
            files = {path.name for path in __import__("pathlib").Path(folder_path).iterdir()}
            calls.append(("upload", repo_id, revision, commit_message))
            assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
            return types.SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    url = language_model(n_layer=1).push_to_hub(
        "tiny", token="secret", private=True, revision="v1", commit_message="First"
    )
    assert url == "https://hub/commit"
    assert calls == [
        ("token", "secret"),
        ("create", "tiny", True, True),
        ("branch", "someone/tiny", "v1"),
        ("upload", "someone/tiny", "v1", "First"),
    ]


@pytest.mark.parametrize(
    "kind", [cj.Caduceus, cj.CaduceusForMaskedLM, cj.CaduceusForSequenceClassification]
)
def test_options_of_the_hub_reach_the_download(monkeypatch, kind):
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(cj.UserError, match=r"could not be fetched from the hub \(no network"):
        kind.from_pretrained("owner/name", revision="v2", token="t", cache_dir="/cache")
    assert asked["name"] == "owner/name"
    assert (asked["revision"], asked["token"], asked["cache_dir"]) == ("v2", "t", "/cache")
