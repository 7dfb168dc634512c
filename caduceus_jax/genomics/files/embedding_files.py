"""Files of embeddings: parquet, npz, HDF5 and AnnData."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from caduceus_jax.genomics.status import Status

# Ending of the name -> the package that writes such a file.
FORMATS = {
    ".parquet": "polars",
    ".npz": "polars",
    ".h5": "h5py",
    ".hdf5": "h5py",
    ".h5ad": "anndata",
}


class Columns(NamedTuple):
    """A frame of `embed.embeddings` as arrays."""

    others: dict[str, np.ndarray]  # (rows,) each, text as str objects
    embedding: Float[np.ndarray, "vectors channels"]  # one a row, NaN where there is none
    offsets: Int[np.ndarray, " ends"] | None  # with one vector a base: where each row's start


def write(frame: Any, path: pathlib.Path, ending: str, provenance: Mapping[str, Any]) -> None:
    """Writes the frame that `embed.embeddings` returns.

    Args:
        frame: the polars frame.
        path: the file to write, under whatever name.
        ending: one of `FORMATS`, which says how.
        provenance: what made the embeddings; kept in the metadata of a parquet file, the
            attributes of an HDF5 file, and `uns` of an AnnData file.
    """
    if ending == ".parquet":
        frame.write_parquet(path, metadata={"caduceus-jax": json.dumps(dict(provenance))})
    elif ending == ".npz":
        _write_npz(frame, path)
    elif ending == ".h5ad":
        _write_anndata(frame, path, provenance)
    else:
        _write_hdf5(frame, path, provenance)


def columns(frame: Any) -> Columns:
    """The frame's columns as arrays; with one vector a base, those of all rows in one array."""
    import polars

    others = {
        name: np.array(frame[name].to_list(), np.object_ if dtype == polars.String else None)
        for name, dtype in frame.schema.items()
        if name != "embedding"
    }
    series, dtype = frame["embedding"], frame.schema["embedding"]
    # Nulls are left out by Arrow's flatten().
    vectors = series.to_arrow().flatten()
    if isinstance(dtype, polars.List):
        counts = series.list.len().fill_null(0).to_numpy().astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        inner: Any = dtype.inner
        return Columns(others, flat.reshape(-1, inner.shape[0]), offsets)
    embedding = np.full((frame.height, dtype.shape[0]), np.nan, np.float32)
    flat = vectors.to_numpy(zero_copy_only=False)
    embedding[others["status"] == Status.OK] = flat.reshape(-1, dtype.shape[0])
    return Columns(others, embedding, None)


def _write_npz(frame: Any, path: pathlib.Path) -> None:
    others, embedding, offsets = columns(frame)
    # Text of fixed width is read without pickle.
    arrays = {k: v.astype(np.str_) if v.dtype == object else v for k, v in others.items()}
    if offsets is not None:
        arrays["offsets"] = offsets
    with path.open("wb") as file:
        np.savez(file, **arrays, embedding=embedding)  # pyright: ignore[reportArgumentType]


def _write_hdf5(frame: Any, path: pathlib.Path, provenance: Mapping[str, Any]) -> None:
    import h5py

    others, embedding, offsets = columns(frame)
    with h5py.File(path, "w") as file:
        for name, values in others.items():
            dtype = h5py.string_dtype() if values.dtype == object else None
            file.create_dataset(name, data=values, dtype=dtype)
        if offsets is not None:
            file["offsets"] = offsets
        file["embedding"] = embedding
        file.attrs.update(_stored(provenance))


def _write_anndata(frame: Any, path: pathlib.Path, provenance: Mapping[str, Any]) -> None:
    import anndata
    from anndata.utils import make_index_unique

    others, embedding, _ = columns(frame)
    data: Any = anndata.AnnData(X=embedding, obs=others, uns={"caduceus-jax": _stored(provenance)})
    # The column stays as it is.
    names = data.obs.set_index("name").index.rename(None)
    data.obs_names = names if names.is_unique else make_index_unique(names)
    data.write_h5ad(path)


def _stored(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """HDF5 knows no None."""
    return {key: "none" if value is None else value for key, value in provenance.items()}
