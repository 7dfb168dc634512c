import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import caduceus_jax as cj
from caduceus_jax.model.files import weights
from tests import torch_files

TENSORS = {
    "caduceus.backbone.layers.0.norm.weight": np.ones(3, np.float32),
    "caduceus.backbone.norm_f.weight": np.arange(3, dtype=np.float32),
}
OPTIMIZER = {"state": {0: {"exp_avg": np.ones(3, np.float32)}}, "lr": 1e-3}


@pytest.mark.parametrize(
    ("saved", "container"),
    [
        (TENSORS, ""),
        ({"state_dict": TENSORS, "epoch": 3}, "state_dict"),
        ({"model": TENSORS, "optimizer": OPTIMIZER}, "model"),
        ({"optimizer_state_dict": OPTIMIZER, "model_state_dict": TENSORS}, "model_state_dict"),
        ({"module": TENSORS}, "module"),
        ({"trainer": {"net": TENSORS}, "step": 1}, "trainer.net"),
        ({"model": TENSORS, "ema": TENSORS}, "model"),
    ],
)
@pytest.mark.parametrize("name", ["x.ckpt", "x.pt", "x.pth", "pytorch_model.bin", "x"])
def test_containers_of_trainers(tmp_path, saved, container, name):
    found = weights.from_file(torch_files.zipped(tmp_path / name, saved))
    assert found.container == container
    assert found.tensors.keys() == TENSORS.keys()
    for key, array in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[key], array)


def test_a_file_without_tensors_under_names_says_what_it_holds(tmp_path):
    path = torch_files.zipped(tmp_path / "x.pt", {"epoch": 3, "losses": [1.0]})
    with pytest.raises(cj.UserError, match="with the keys epoch, losses, and in it no tensors"):
        weights.from_file(path)
    path = torch_files.zipped(tmp_path / "x.pt", list(TENSORS.values()))
    with pytest.raises(cj.UserError, match="holds a list, and in it no tensors under names"):
        weights.from_file(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "genome.fa").write_text(">a\nACGT\n")
    with pytest.raises(cj.UserError, match="genome.fa is not a model: name a folder"):
        weights.from_file(tmp_path / "genome.fa")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(cj.UserError, match="is a Git LFS pointer"):
        weights.from_file(tmp_path / "model.safetensors")
    with pytest.raises(cj.UserError, match="absent.bin is missing"):
        weights.from_file(tmp_path / "absent.bin")


def test_a_cut_safetensors_file_is_damaged(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-8])
    with pytest.raises(cj.UserError, match="is damaged or incomplete"):
        weights.from_folder(tmp_path)


def test_half_precision_is_read_as_it_is_stored(tmp_path):
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in TENSORS.items()}
    save_file(halves, tmp_path / "model.safetensors")
    for name, array in weights.from_folder(tmp_path).items():
        np.testing.assert_array_equal(array.astype(np.float32), TENSORS[name])


class TestShards:
    def write(self, folder, weight_map):
        for name, array in TENSORS.items():
            if name in weight_map:
                save_file({name: array}, folder / weight_map[name])
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))

    def test_they_are_put_together(self, tmp_path):
        self.write(tmp_path, {name: f"model-{i}.safetensors" for i, name in enumerate(TENSORS)})
        assert weights.from_folder(tmp_path).keys() == TENSORS.keys()

    def test_one_that_is_missing_is_named(self, tmp_path):
        self.write(tmp_path, {name: f"model-{i}.safetensors" for i, name in enumerate(TENSORS)})
        (tmp_path / "model-1.safetensors").unlink()
        with pytest.raises(cj.UserError, match="lacks model-1.safetensors of the 2 files"):
            weights.from_folder(tmp_path)

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
            ("{}", "has no weight_map"),
            ("[]", "has no weight_map"),
            ('{"weight_map": {"a": "../x.safetensors"}}', "not a file of the same folder"),
            ('{"weight_map"', "line 1: not JSON"),
        ],
    )
    def test_a_broken_index_is_refused(self, tmp_path, index, message):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(cj.UserError, match=message):
            weights.from_folder(tmp_path)


def test_a_single_file_of_another_name_is_the_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(cj.UserError, match=r"no pytorch_model\.bin$"):
        weights.from_folder(tmp_path)
    save_file(TENSORS, tmp_path / "last.safetensors")
    torch_files.zipped(tmp_path / "optimizer.pt", OPTIMIZER)
    assert weights.from_folder(tmp_path).keys() == TENSORS.keys()
    torch_files.zipped(tmp_path / "best.ckpt", TENSORS)
    with pytest.raises(cj.UserError, match=r"one of its files, best\.ckpt, last\.safetensors$"):
        weights.from_folder(tmp_path)
