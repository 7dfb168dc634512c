"""One contig's array: what was written is read, here and by Zarr's own reader."""

import json

import numpy as np
import pytest

from caduceus_jax import UserError
from caduceus_jax.genomics.genome_wide.zarr_array import CHUNK, ArrayReader, ArrayWriter, crc32c

LENGTH = 5 * CHUNK + 100


def values(start, count):
    return np.random.default_rng(start).normal(size=(count, 4)).astype(np.float16)


@pytest.fixture
def written(tmp_path):
    """Stretches of an array: across chunks, within one, and one chunk that has nothing."""
    expected = np.full((LENGTH, 4), np.nan, np.float16)
    writer = ArrayWriter(tmp_path / "a", LENGTH)
    for start, count in ((10, 5), (CHUNK - 3, 2 * CHUNK), (4 * CHUNK, 7), (LENGTH - 1, 1)):
        expected[start : start + count] = values(start, count)
        writer.write(start, values(start, count))
    return tmp_path / "a", expected, writer.close()


def test_what_was_written_is_read(written):
    folder, expected, digest = written
    array = ArrayReader(folder, LENGTH)
    np.testing.assert_array_equal(array[np.arange(LENGTH)], expected)
    some = np.array([LENGTH - 1, 12, 3 * CHUNK + 5, 12, CHUNK])
    np.testing.assert_array_equal(array[some], expected[some])
    assert array.digest() == digest
    # Five of six chunks, of 8 bytes per base, and 16 bytes of the index for each of all.
    assert array.path.stat().st_size == 5 * CHUNK * 8 + 6 * 16 + 4


def test_zarr_reads_it(written):
    zarr = pytest.importorskip("zarr", minversion="3")
    folder, expected, _ = written
    array = zarr.open_array(store=str(folder), mode="r")
    assert array.shape == (LENGTH, 4) and array.dtype == np.float16
    np.testing.assert_array_equal(array[:], expected)
    np.testing.assert_array_equal(array[CHUNK - 5 : CHUNK + 9], expected[CHUNK - 5 : CHUNK + 9])


def test_tensorstore_reads_it(written):
    tensorstore = pytest.importorskip("tensorstore")
    folder, expected, _ = written
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    found = tensorstore.open(spec, read=True).result().read().result()
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("damage", ["cut", "index", "missing", "empty"])
def test_damage_is_found(written, damage):
    folder = written[0]
    path = folder / "c/0/0"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "index":
        data[-20] ^= 1
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(UserError, match="damaged: compute the scores again|cannot be read"):
        ArrayReader(folder, LENGTH)


def test_nothing_written_is_all_unknown(tmp_path):
    ArrayWriter(tmp_path / "a", 10).close()
    assert np.isnan(ArrayReader(tmp_path / "a", 10)[np.arange(10)]).all()
    assert json.loads((tmp_path / "a/zarr.json").read_text())["shape"] == [10, 4]


def test_crc32c_by_its_published_check():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4, has this polynomial
    assert crc32c(bytes(32)) == 0x8A9136AA  # 32 zeros, as there
