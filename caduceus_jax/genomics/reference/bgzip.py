"""Random access to bgzip files: blocks of gzip of at most 64 KiB, each read by itself.

SAM/BAM specification, section 4.1. An index (.gzi) lists where blocks begin: their first byte in
the file and in what it decompresses to.
"""

import functools
import pathlib
import struct
import zlib

import numpy as np
from jaxtyping import Int

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.inputs import Input

_HEADER = struct.Struct("<4BI2BH2BHH")
_TRAILER = struct.Struct("<II")  # CRC-32 and length of what a block holds
_BLOCKS_KEPT = 64
_LINKS_CHECKED = 2_000

Offsets = Int[np.ndarray, "blocks 2"]


class Bgzip:
    """A bgzip file, read from any byte of what it decompresses to.

    Args:
        source: the file.
        offsets: (blocks, 2) where each block begins, in the file and in its content.

    Attributes:
        size: bytes that it decompresses to.
    """

    def __init__(self, source: Input, offsets: Offsets):
        self._source, self._offsets = source, offsets
        last = int(offsets[-1, 0])
        self.size = int(offsets[-1, 1]) + len(_inflate(source, last, _length(source, last)))
        self._block = functools.lru_cache(_BLOCKS_KEPT)(self._read_block)

    def read(self, start: int, end: int) -> bytes:
        """Reads the bytes of the content from `start` to `end`, 0-based half-open.

        Raises:
            UserError: a block is damaged.
        """
        if start >= end:
            return b""
        first = int(np.searchsorted(self._offsets[:, 1], start, side="right")) - 1
        last = int(np.searchsorted(self._offsets[:, 1], end, side="left"))
        text = b"".join(self._block(i) for i in range(first, last))
        shift = int(self._offsets[first, 1])
        return text[start - shift : end - shift]

    def _read_block(self, number: int) -> bytes:
        start = int(self._offsets[number, 0])
        return _inflate(self._source, start, _length(self._source, start))


def scan_blocks(source: Input) -> Offsets:
    """Finds out where all blocks of a bgzip file begin, found by walking from one to the next.

    Raises:
        UserError: the file has bytes that are not a bgzip block.
    """
    places, start, content = [], 0, 0
    while start < source.size:
        length = _length(source, start)
        size = _TRAILER.unpack(source.raw(start + length - _TRAILER.size, _TRAILER.size))[1]
        if size or not places:  # the last block is empty
            places.append((start, content))
        start, content = start + length, content + size
    return np.array(places, np.int64)


def read_gzi(path: pathlib.Path) -> Offsets:
    """Reads an index of blocks.

    Raises:
        ValueError: the file is not such an index, or is cut short.
    """
    data = path.read_bytes()
    count = int(np.frombuffer(data, "<u8", 1)[0])
    if len(data) != 8 + 16 * count:
        raise ValueError(f"{path} is not an index of blocks")
    places = np.frombuffer(data, "<u8", offset=8).astype(np.int64).reshape(-1, 2)
    return np.concatenate([np.zeros((1, 2), np.int64), places])


def write_gzi(path: pathlib.Path, offsets: Offsets) -> None:
    """Writes an index of blocks; that the first one begins at 0 is not said in it."""
    places = offsets[1:].astype("<u8")
    path.write_bytes(np.array([len(places)], "<u8").tobytes() + places.tobytes())


def fits(source: Input, offsets: Offsets) -> bool:
    """Tells whether an index of blocks is the file's own.

    Blocks are linked: each one tells its length in the file and in the content. The links looked
    at are the first, the last and up to some thousand between them; in another file, whose blocks
    have other lengths, none of those behind the first difference would hold.
    """
    if (np.diff(offsets, axis=0) <= 0).any() or (offsets[0] != 0).any():
        return False
    chosen = np.linspace(0, len(offsets) - 1, min(len(offsets), _LINKS_CHECKED)).astype(int)
    try:
        for number in chosen.tolist():
            start, content = offsets[number].tolist()
            length = _length(source, start)
            size = _TRAILER.unpack(source.raw(start + length - _TRAILER.size, _TRAILER.size))[1]
            after = start + length, content + size
            if number + 1 < len(offsets):
                if after != tuple(offsets[number + 1].tolist()):
                    return False
            elif not _only_empty_blocks(source, after[0]):
                return False
    except (UserError, struct.error):
        return False
    return True


def _only_empty_blocks(source: Input, start: int) -> bool:
    while start < source.size:
        length = _length(source, start)
        if _TRAILER.unpack(source.raw(start + length - _TRAILER.size, _TRAILER.size))[1]:
            return False
        start += length
    return True


def _length(source: Input, start: int) -> int:
    """Returns the size in bytes of the block that begins at byte `start` of the file."""
    head = source.raw(start, _HEADER.size)
    if len(head) == _HEADER.size:
        first, second, _, flags, *_, b, c, _, length = _HEADER.unpack(head)
        if (first, second, b, c) == (0x1F, 0x8B, ord("B"), ord("C")) and flags & 4:
            return length + 1
    raise UserError(f"{source.name} is damaged: no block begins at byte {start:,}, fetch it again")


def _inflate(source: Input, start: int, length: int) -> bytes:
    block = source.raw(start, length)
    crc, size = _TRAILER.unpack(block[-_TRAILER.size :])
    extra = int.from_bytes(block[10:12], "little")
    try:
        content = zlib.decompress(block[12 + extra : -_TRAILER.size], -15, size or 1)
    except zlib.error:
        content = b""
    if len(content) != size or zlib.crc32(content) != crc:
        raise UserError(
            f"{source.name} is damaged: the block at byte {start:,} does not decompress to what "
            "was written, fetch it again"
        )
    return content
