import os
import pathlib

import ml_dtypes
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.model.files import torch_pickle
from tests import torch_files


def arrays(saved):
    return {name: tensor.array() for name, tensor in saved.items()}


@pytest.mark.parametrize("write", [torch_files.zipped, torch_files.legacy])
def test_tensors_of_every_type_are_read_bit_by_bit(tmp_path, write):
    rng = np.random.default_rng(0)
    saved = {
        "a": rng.normal(size=(2, 3)).astype(np.float32),
        "b": rng.normal(size=4),
        "half": rng.normal(size=5).astype(np.float16),
        "brain": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "ids": np.arange(6).reshape(2, 3),
        "none": np.empty((0, 3), np.float32),
    }
    found = arrays(torch_pickle.load(write(tmp_path / "x.pt", saved)))
    for name, array in saved.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_a_view_is_read_by_its_offset_and_strides():
    content = np.arange(8, dtype=np.float32)
    storage = torch_pickle.Storage(np.float32, content.tobytes)
    tensor = torch_pickle.Tensor(storage, 2, (3, 2), (1, 3), storage.dtype)
    np.testing.assert_array_equal(tensor.array(), content[2:].reshape(2, 3).T)
    with pytest.raises(ValueError, match="beyond its storage"):
        tensor._replace(offset=3).array()


def test_bytes_of_another_machine_are_turned_around(tmp_path):
    swapped = np.arange(4, dtype=np.float32).byteswap()
    path = torch_files.zipped(tmp_path / "x.pt", {"a": swapped}, byteorder=b"big")
    np.testing.assert_array_equal(torch_pickle.load(path)["a"].array(), np.arange(4))


class Harmful:
    """Would make a file if its pickle were carried out."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Setting:
    """A class of a trainer that is not installed where the file is read."""

    def __init__(self, value):
        self._val = value


def test_nothing_in_a_file_is_run(tmp_path):
    made = tmp_path / "made"
    saved = {"a": np.ones(2, np.float32), "harm": Harmful(made), "hook": pathlib.Path.unlink}
    found = torch_pickle.load(torch_files.zipped(tmp_path / "x.ckpt", saved))
    assert not made.exists()
    np.testing.assert_array_equal(found["a"].array(), 1)
    assert isinstance(found["harm"], torch_pickle.Unknown)


def test_settings_of_unknown_classes_become_plain_values(tmp_path):
    saved = {"lr": Setting(8e-3), "names": [Setting("a"), "b"], "inner": {"n": Setting(3)}}
    found = torch_pickle.load(torch_files.zipped(tmp_path / "x.ckpt", saved))
    assert torch_pickle.plain(found) == {"lr": 8e-3, "names": ["a", "b"], "inner": {"n": 3}}


def test_the_originals_lightning_file_is_read_with_its_settings(golden):
    found = torch_pickle.load(golden / "lightning" / "last.ckpt")
    settings = torch_pickle.plain(found["hyper_parameters"])
    assert settings["model"]["config"] == {"d_model": 16, "n_layer": 2}
    assert len(found["state_dict"]) == 43


class Module:
    """Pickled as a torch.nn.Module is."""

    def __init__(self, parameters, **children):
        self._parameters, self._buffers, self._modules = parameters, {}, children


def test_a_whole_module_is_read_as_its_state_dict(tmp_path):
    inner = Module({"weight": np.ones(3, np.float32), "bias": None})
    saved = Module({"scale": np.zeros(1, np.float32)}, layer=inner)
    found = torch_pickle.load(torch_files.zipped(tmp_path / "x.pt", saved))
    assert sorted(dict(torch_pickle.module_tensors(found))) == ["layer.weight", "scale"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00.", b"text"])
def test_what_torch_did_not_write_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(cj.UserError, match="x.pt is"):
        torch_pickle.load(tmp_path / "x.pt")


def test_a_cut_file_is_refused(tmp_path):
    path = torch_files.legacy(tmp_path / "x.pt", {"a": np.ones(100, np.float32)})
    path.write_bytes(path.read_bytes()[:-50])
    saved = torch_pickle.load(path)
    with pytest.raises(ValueError, match="buffer size"):
        saved["a"].array()
