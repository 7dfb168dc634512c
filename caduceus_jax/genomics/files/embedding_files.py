"""Files of embeddings: parquet, npz, HDF5 and AnnData."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars
from jaxtyping import Float, Int

from caduceus_jax.genomics.files.table_files import Write, table_writer
from caduceus_jax.genomics.status import Status

if TYPE_CHECKING:
    import h5py

# Ending of the name -> the package that writes such a file.
FORMATS: dict[str, str | None] = {
    ".parquet": "pyarrow",
    ".npz": "polars",
    ".h5": "h5py",
    ".hdf5": "h5py",
    ".h5ad": "anndata",
}
KEY = "caduceus-jax"  # of what made the embeddings, in the files that have room for it


class Columns(NamedTuple):
    """A frame of embeddings as arrays."""

    others: dict[str, np.ndarray]  # (rows,) each, text as str objects
    embedding: Float[np.ndarray, "vectors channels"]  # one per row, NaN where there is none
    offsets: Int[np.ndarray, " ends"] | None  # with one vector per base: where each row's start


@contextlib.contextmanager
def embedding_writer(
    path: pathlib.Path, ending: str, provenance: Mapping[str, Any]
) -> Iterator[Write]:
    """Opens a file for the frames that `embed` makes.

    Args:
        path: the file to write, under whatever name.
        ending: one of `FORMATS`, which tells how.
        provenance: record of the run that made the embeddings; kept in the metadata of a parquet
            file, the attributes of an HDF5 file, and `uns` of an AnnData file.

    Yields:
        A function that takes frames in order. Parquet is written as they come, other formats at
        the end.
    """
    if ending == ".parquet":
        metadata = {KEY: json.dumps(dict(provenance))}
        with table_writer(path, ending, metadata=metadata) as write:
            yield write
        return
    frames: list[polars.DataFrame] = []
    yield frames.append
    frame = polars.concat(frames).rechunk()
    if ending == ".npz":
        _write_npz(frame, path)
        return
    image = _anndata_image if ending == ".h5ad" else _hdf5_image
    path.write_bytes(image(frame, provenance))


def columns(frame: polars.DataFrame) -> Columns:
    """Turns columns into arrays; with one vector per base, those of all rows into one."""
    others = {
        name: np.array(frame[name].to_list(), np.object_ if dtype == polars.String else None)
        for name, dtype in frame.schema.items()
        if name != "embedding"
    }
    series, dtype = frame["embedding"], frame.schema["embedding"]
    # Nulls are left out by Arrow's flatten().
    vectors: Any = series.to_arrow().flatten()
    if isinstance(dtype, polars.List):
        counts = series.list.len().fill_null(0).to_numpy().astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        inner: Any = dtype.inner
        return Columns(others, flat.reshape(-1, inner.shape[0]), offsets)
    assert isinstance(dtype, polars.Array)
    embedding = np.full((frame.height, dtype.shape[0]), np.nan, np.float32)
    flat = vectors.to_numpy(zero_copy_only=False)
    embedding[others["status"] == Status.OK] = flat.reshape(-1, dtype.shape[0])
    return Columns(others, embedding, None)


def _write_npz(frame: polars.DataFrame, path: pathlib.Path) -> None:
    others, embedding, offsets = columns(frame)
    # Text of fixed width is read without pickle.
    arrays = {k: v.astype(np.str_) if v.dtype == object else v for k, v in others.items()}
    if offsets is not None:
        arrays["offsets"] = offsets
    with path.open("wb") as file:
        np.savez(file, **arrays, embedding=embedding)  # pyright: ignore[reportArgumentType]


def _hdf5_image(frame: polars.DataFrame, provenance: Mapping[str, Any]) -> bytes:
    import h5py

    others, embedding, offsets = columns(frame)
    with _in_memory() as file:
        for name, values in others.items():
            dtype = h5py.string_dtype() if values.dtype == object else None
            file.create_dataset(name, data=values, dtype=dtype)
        if offsets is not None:
            file["offsets"] = offsets
        file["embedding"] = embedding
        file.attrs.update(_stored(provenance))
        file.flush()
        return file.id.get_file_image()


def _anndata_image(frame: polars.DataFrame, provenance: Mapping[str, Any]) -> bytes:
    import anndata

    others, embedding, _ = columns(frame)
    data: Any = anndata.AnnData(X=embedding, obs=others, uns={KEY: _stored(provenance)})
    # The column stays as it is.
    data.obs_names = _unique(others["name"].tolist())
    with _in_memory() as file:
        anndata.io.write_elem(file, "/", data)
        file.flush()
        return file.id.get_file_image()


def _in_memory() -> "h5py.File":
    """Returns an HDF5 file in memory: the library does not recover from a disk that is full."""
    import h5py

    return h5py.File("memory", "w", driver="core", backing_store=False)


def _unique(names: list[str]) -> list[str]:
    """Returns names of which those that occurred before get a number that none has yet."""
    taken, count, unique = set(names), dict.fromkeys(names, 0), []
    seen: set[str] = set()
    for name in names:
        other = name
        while other in seen or (other != name and other in taken):
            count[name] += 1
            other = f"{name}-{count[name]}"
        seen.add(other)
        unique.append(other)
    return unique


def _stored(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces None, which HDF5 does not know."""
    return {key: "none" if value is None else value for key, value in provenance.items()}
