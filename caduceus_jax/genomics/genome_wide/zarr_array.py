"""Arrays of a contig's scores in the Zarr format, version 3, each in one file.

A folder holds `zarr.json` and the data, `c/0/0`: the codec `sharding_indexed` of the format, which
is chunks of 4,096 bases one after another, and an index of where each is. Chunks without a number
are left out. Whatever reads Zarr reads these arrays; here they are read through memory maps.
"""

import hashlib
import json
import os
import pathlib
import struct
from typing import BinaryIO

import numpy as np
from jaxtyping import Float16, Int

from caduceus_jax.errors import UserError

CHUNK = 4096  # bases
COLUMNS = 4
_DATA = pathlib.PurePath("c/0/0")
_DTYPE = np.dtype("<f2")
_CHUNK_BYTES = CHUNK * COLUMNS * _DTYPE.itemsize
_INDEX = np.dtype("<u8")
_ABSENT = np.iinfo(np.uint64).max
_CRC = struct.Struct("<I")


class ArrayWriter:
    """Writes the array of one contig from left to right, in constant memory.

    Args:
        folder: the array's folder, which is made.
        length: bases of the contig.

    Raises:
        OSError: something cannot be written.
    """

    def __init__(self, folder: pathlib.Path, length: int):
        self._length, self._data = length, folder / _DATA
        self._data.parent.mkdir(parents=True)
        self._file: BinaryIO = self._data.open("wb")
        self._index = np.full((-(-length // CHUNK), 2), _ABSENT, _INDEX)
        self._chunk = np.full((CHUNK, COLUMNS), np.nan, _DTYPE)
        self._number = 0
        self._digest, self._written = hashlib.sha256(), 0
        (folder / "zarr.json").write_text(json.dumps(_description(length), indent=1) + "\n")

    def write(self, start: int, values: Float16[np.ndarray, "bases 4"]) -> None:
        """Adds values; what lies between them and those before is NaN.

        Args:
            start: 0-based position of the first; not before the end of those added before.
            values: (bases, 4) float16.
        """
        first = 0
        while first < len(values):
            number, at = divmod(start + first, CHUNK)
            if number != self._number:
                self._flush()
                self._number = number
            count = min(CHUNK - at, len(values) - first)
            self._chunk[at : at + count] = values[first : first + count]
            first += count

    def close(self) -> str:
        """Finishes the file on the disk.

        Returns:
            Its SHA-256.
        """
        self._flush()
        index = self._index.tobytes()
        self._write(index + _CRC.pack(crc32c(index)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._file.close()

    def _flush(self) -> None:
        if not np.isnan(self._chunk).all():
            self._index[self._number] = self._written, _CHUNK_BYTES
            self._write(self._chunk.tobytes())
            self._chunk[:] = np.nan

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._written += len(data)


class ArrayReader:
    """Reads the array of one contig at any positions.

    Args:
        folder: the array's folder.
        length: bases of the contig.

    Raises:
        UserError: the data are missing or damaged.
    """

    def __init__(self, folder: pathlib.Path, length: int):
        self.path = folder / _DATA
        chunks = -(-length // CHUNK)
        size = chunks * 2 * _INDEX.itemsize
        try:
            with self.path.open("rb") as file:
                data = file.seek(0, os.SEEK_END) - size - _CRC.size
                file.seek(max(data, 0))
                end = file.read()
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror}") from None
        if data < 0 or _CRC.unpack(end[size:]) != (crc32c(end[:size]),):
            raise _damaged(self.path)
        index = np.frombuffer(end[:size], _INDEX).reshape(chunks, 2)
        there = index[:, 1] != _ABSENT
        offset = index[there, 0]
        if (index[there, 1] != _CHUNK_BYTES).any() or (offset % _CHUNK_BYTES).any():
            raise _damaged(self.path)
        if (offset >= data).any() or data % _CHUNK_BYTES:
            raise _damaged(self.path)
        self._slot = np.full(chunks, -1, np.int64)
        self._slot[there] = (offset // _CHUNK_BYTES).astype(np.int64)
        shape = (data // _CHUNK_BYTES * CHUNK, COLUMNS)
        self._values = np.memmap(self.path, _DTYPE, "r", shape=shape) if data else np.empty(shape)

    def __getitem__(self, positions: Int[np.ndarray, " rows"]) -> Float16[np.ndarray, "rows 4"]:
        """Returns the values at 0-based positions on the contig; NaN where there are none."""
        slot = self._slot[positions // CHUNK]
        values = np.full((len(positions), COLUMNS), np.nan, _DTYPE)
        there = slot >= 0
        values[there] = self._values[slot[there] * CHUNK + positions[there] % CHUNK]
        return values

    def digest(self) -> str:
        """Computes the SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c(data: bytes) -> int:
    """Computes the CRC-32C (Castagnoli) of some bytes, as Zarr's indexes have it."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _damaged(path: pathlib.Path) -> UserError:
    return UserError(f"{path} is cut short or damaged: compute the scores again")


def _description(length: int) -> dict[str, object]:
    """Returns what Zarr needs to know of an array."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "chunk_shape": [CHUNK, COLUMNS],
        "codecs": [little],
        "index_codecs": [little, {"name": "crc32c"}],
        "index_location": "end",
    }
    whole = max(-(-length // CHUNK), 1) * CHUNK
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length, COLUMNS],
        "data_type": "float16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [whole, COLUMNS]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN",
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": ["position", "base"],
        "attributes": {},
    }
