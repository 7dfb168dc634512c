"""Opening input files, compressed or not."""

import contextlib
import gzip
import io
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from caduceus_jax.errors import UserError

_BUFFER = 1 << 20  # bytes
_GZIP = b"\x1f\x8b"
# SAM/BAM specification, section 4.1.2: the empty block that ends every bgzip file.
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@contextlib.contextmanager
def open_binary(
    path: pathlib.Path, watch: Callable[[bytes], object] | None = None
) -> Iterator[io.BufferedIOBase]:
    """Opens a file for reading, through gzip where its first bytes say so.

    Args:
        path: the file.
        watch: told the bytes of the file itself, compressed or not, as they are read.

    Raises:
        UserError: there is no such file, it may not be read, or it turns out to be cut short.
    """
    compression = which_compression(path)
    if compression == "bgzip" and not _ends_bgzip(path):
        # Cut between two blocks, it would read as a shorter file.
        raise UserError(f"{path} is cut short (bgzip's end marker is missing): fetch it again")
    try:
        with contextlib.ExitStack() as stack:
            raw = path.open("rb", 0) if watch is None else _Watched(path, watch)
            file = stack.enter_context(io.BufferedReader(raw, _BUFFER))
            yield file if compression is None else stack.enter_context(gzip.open(file))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is cut short or damaged ({error}): fetch it again, or see gzip -t"
        ) from None


class _Watched(io.FileIO):
    """A file that tells what is read from it."""

    def __init__(self, path: pathlib.Path, watch: Callable[[bytes], object]):
        super().__init__(path)
        self.watch = watch

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self.watch(bytes(buffer[:count]))
        return count


def which_compression(path: pathlib.Path) -> str | None:
    """None, "gzip" or "bgzip" (blocks of gzip, read from any of them), from the first bytes.

    Raises:
        UserError: there is no such file, or it may not be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(14)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not head.startswith(_GZIP):
        return None
    # Section 4.1: a gzip member with an extra field named BC.
    return "bgzip" if len(head) == 14 and head[3] & 4 and head[12:] == b"BC" else "gzip"


def _ends_bgzip(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_BGZIP_END)), os.SEEK_SET)
        return file.read() == _BGZIP_END
