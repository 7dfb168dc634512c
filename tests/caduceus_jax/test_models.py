"""The table of released models and their short names."""

import pathlib

import huggingface_hub
import jax
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax import models
from caduceus_jax.model import checkpoint


@pytest.mark.parametrize("model", models.RELEASED, ids=lambda model: model.name)
def test_parameters_are_those_of_the_architecture(model):
    config = cj.CaduceusConfig(
        d_model=model.d_model,
        n_layer=model.n_layer,
        rcps=model.equivariant,
        vocab_size=model.vocab_size,
        complement_map=tuple(range(model.vocab_size)),
    )
    made = nnx.eval_shape(lambda: cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == model.parameters


@pytest.mark.parametrize("model", models.RELEASED, ids=lambda model: model.name)
def test_sizes_are_those_of_the_parameters(model):
    # A file holds 4 bytes per parameter and a header; the list of files shows three digits.
    assert model.megabytes == pytest.approx(4e-6 * model.parameters, rel=0.005)


def test_names_and_ids_are_unique_and_found_however_they_are_written():
    names = [model.name for model in models.RELEASED]
    ids = [model.hub_id for model in models.RELEASED]
    assert len(set(names)) == len(names) == 10 and len(set(ids)) == len(ids)
    for model in models.RELEASED:
        for written in (model.name, model.name.upper(), model.name.replace("-", "_")):
            assert models.find(written) is model
            assert models.resolve(written) == model.hub_id
        assert models.find(model.hub_id) is model
        assert models.resolve(model.hub_id) == model.hub_id


def test_other_names_are_left_alone():
    for name in ("runs/quickstart", "me/my-model", "quickstart"):
        assert models.resolve(name) == name and models.find(name) is None


def test_a_misspelt_name_gets_the_near_one():
    with pytest.raises(cj.UserError, match="did you mean caduceus-ps-131k"):
        models.resolve("caduceus-ps-13k1")


def test_a_short_name_is_fetched_from_the_hub_unless_a_folder_has_it(monkeypatch, tmp_path, golden):
    asked = []

    def fetch(name, **_):
        asked.append(name)
        return str(golden / "ps")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    assert checkpoint.locate("caduceus-ps-131k") == golden / "ps"
    assert asked == ["kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16"]
    local = tmp_path / "caduceus-ps-131k"
    local.mkdir()
    (local / "config.json").write_text("{}")
    assert checkpoint.locate("caduceus-ps-131k") == pathlib.Path("caduceus-ps-131k")
    assert len(asked) == 1
