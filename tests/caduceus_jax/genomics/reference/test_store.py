"""Prepared genomes, and folders that are not."""

import json
import pickle

import numpy as np
import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.reference.store import Store
from tests.genomes import prepared


@pytest.fixture
def store(tmp_path):
    return prepared(tmp_path, chr1="ACGTNNAC", chr2="ttN")


def test_contigs_are_read_through_the_map(store):
    assert store["chr1"].tobytes() == b"ACGTNNAC" and store["chr2"].tobytes() == b"ttN"
    assert store.unknown.tolist() == [[4, 6], [10, 11]]  # offsets in all bases
    assert isinstance(store.bases, np.memmap)


def test_a_copy_in_another_process_opens_it_again(store):
    other = pickle.loads(pickle.dumps(store))
    assert other.path == store.path and other["chr2"].tobytes() == b"ttN"


def test_changed_bytes_are_found(store):
    store.verify()
    path = store.path / "bases.bin"
    path.write_bytes(b"C" + path.read_bytes()[1:])
    with pytest.raises(UserError, match="is not what was written there"):
        Store(store.path).verify()


def change(key, value):
    def changed(path):
        index = json.loads((path / "index.json").read_text())
        (path / "index.json").write_text(json.dumps(index | {key: value}))

    return changed


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: (path / "index.json").unlink(), "holds no prepared genome"),
        (lambda path: (path / "index.json").write_text("{"), "is damaged"),
        (lambda path: (path / "bases.bin").write_bytes(b"AC"), "has 2 bytes, and 11 were written"),
        (lambda path: (path / "bases.bin").unlink(), "cannot be read"),
        (change("format", "other"), "is not the index of a prepared genome"),
        (change("version", 99), "was prepared in version 99"),
        (change("contigs", 3), "is damaged: prepare the genome again"),
    ],
)
def test_a_damaged_folder_is_one_sentence(store, damage, sentence):
    damage(store.path)
    with pytest.raises(UserError, match=sentence):
        Store(store.path)


def test_a_path_that_is_not_a_folder(tmp_path):
    with pytest.raises(UserError, match="is not a folder: caduceus-jax prepare"):
        Store(tmp_path / "nowhere")
