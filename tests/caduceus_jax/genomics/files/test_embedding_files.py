"""Embeddings in every format, read back by the library that people use for it."""

import json

import h5py
import numpy as np
import polars
import pytest

from caduceus_jax.genomics.files.embedding_files import columns, embedding_writer

VECTORS = [[1.0, 2.0], None, [3.0, 4.0]]
MADE_BY = {"command": "embed", "layer": None}


def frame(per_base=False):
    dtype = polars.Array(polars.Float32, 2)
    vectors = [[v, v] if v else None for v in VECTORS] if per_base else VECTORS
    return polars.DataFrame(
        {
            "name": ["a", "a", "b"],
            "length": [2, 0, 2],
            "status": ["ok", "out_of_range", "ok"],
            "embedding": polars.Series(vectors, dtype=polars.List(dtype) if per_base else dtype),
        }
    )


def written(path, table):
    with embedding_writer(path, path.suffix, MADE_BY) as write:
        write(table[:1])
        write(table[1:])
    return path


def test_columns_are_arrays_with_nan_for_a_row_without_a_vector():
    found = columns(frame())
    np.testing.assert_array_equal(found.embedding, [[1, 2], [np.nan, np.nan], [3, 4]])
    assert found.offsets is None and found.others["length"].tolist() == [2, 0, 2]


def test_vectors_of_all_bases_follow_one_another():
    found = columns(frame(per_base=True))
    np.testing.assert_array_equal(found.embedding, [[1, 2], [1, 2], [3, 4], [3, 4]])
    assert found.offsets.tolist() == [0, 2, 2, 4]


def test_npz_needs_no_pickle(tmp_path):
    found = np.load(written(tmp_path / "a.npz", frame()), allow_pickle=False)
    assert found["name"].tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(found["embedding"][2], [3, 4])


def test_hdf5_has_what_made_it_in_its_attributes(tmp_path):
    with h5py.File(written(tmp_path / "a.h5", frame(per_base=True))) as file:
        assert file["status"].asstr()[:].tolist() == ["ok", "out_of_range", "ok"]
        assert file["offsets"][:].tolist() == [0, 2, 2, 4]
        assert file.attrs["command"] == "embed"


def test_anndata_has_unique_names(tmp_path):
    anndata = pytest.importorskip("anndata")
    found = anndata.read_h5ad(written(tmp_path / "a.h5ad", frame()))
    assert len(set(found.obs_names)) == 3 and found.obs["name"].tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(found.X[0], [1, 2])


def test_parquet_has_what_made_it_in_its_metadata(tmp_path):
    path = written(tmp_path / "a.parquet", frame())
    assert polars.read_parquet(path).equals(frame())
    metadata = polars.read_parquet_metadata(path)
    assert json.loads(metadata["caduceus-jax"]) == MADE_BY
