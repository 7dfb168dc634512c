"""Opening input files: regular files, pipes and standard input, compressed or not.

An input is opened once. Whatever cannot be read again from its start, such as a pipe, is copied to
a temporary file first, so that every reader sees all of it however often it looks.
"""

import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import shutil
import stat
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from caduceus_jax.errors import UserError

STANDARD_INPUT = ("-", "/dev/stdin")

_BUFFER = 1 << 20  # bytes
_GZIP = b"\x1f\x8b"
# SAM/BAM specification, section 4.1.2: the empty block that ends every bgzip file.
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")

AnyPath = str | os.PathLike[str]


class Input:
    """A file for reading, opened once: a regular file, a pipe, a FIFO, or standard input.

    Args:
        path: the file; "-" is standard input.

    Attributes:
        path: the path as the user gave it.
        name: its name in errors.
        compression: None, "gzip" or "bgzip" (blocks of gzip, read from any of them), as its first
            bytes tell.

    Raises:
        UserError: the file does not exist, it may not be read, or it is bgzip and cut short.
    """

    def __init__(self, path: AnyPath):
        self.path = pathlib.Path(path)
        standard = str(path) in STANDARD_INPUT
        self.name = "standard input" if standard else str(path)
        try:
            file = _standard_input() if standard else open(path, "rb", 0)
            self.is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            self._file = file if self.is_regular else _spooled(file)
            if not (standard and self.is_regular):
                weakref.finalize(self, self._file.close)
            self.size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError:
            raise UserError(f"{self.name} does not exist") from None
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from None
        self._digest: str | None = None
        self.compression = _compression(self.head(_HEAD))
        if self.compression == "bgzip" and self.raw(self.size - len(_BGZIP_END)) != _BGZIP_END:
            # Cut between two blocks, it would read as a shorter file.
            raise UserError(
                f"{self.name} is cut short (bgzip's end marker is missing): fetch it again"
            )

    def head(self, count: int) -> bytes:
        """Returns the first bytes of the file itself, compressed or not."""
        return self.raw(0, count)

    def raw(self, start: int, count: int = _BUFFER) -> bytes:
        """Reads up to `count` bytes of the file itself from byte `start` (0-based)."""
        return os.pread(self._file.fileno(), count, max(start, 0))

    @contextlib.contextmanager
    def open(self, watch: Callable[[bytes], object] | None = None) -> Iterator[io.BufferedIOBase]:
        """Opens the content for reading from its start, through gzip where it is compressed.

        Args:
            watch: called with the bytes of the file itself, compressed or not, as they are read.

        Raises:
            UserError: the file turns out to be damaged or cut short.
        """
        digest = None if self._digest else hashlib.sha256()

        def seen(block: bytes) -> None:
            """Passes a block on to the digest and to the caller."""
            if digest is not None:
                digest.update(block)
                if not block:
                    self._digest = digest.hexdigest()
            if watch is not None:
                watch(block)

        try:
            with io.BufferedReader(_FromStart(self._file, seen), _BUFFER) as file:
                if self.compression is None:
                    yield file
                else:
                    with gzip.open(file) as text:
                        yield text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{self.name} is cut short or damaged ({error}): fetch it again, or see gzip -t"
            ) from None

    @contextlib.contextmanager
    def file_object(self) -> Iterator[Any]:
        """Yields the file itself as an object with a file descriptor, at its start."""
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            file.seek(0)
            yield file

    def digest(self) -> str:
        """Computes the SHA-256 of the file itself, compressed or not, in hexadecimal."""
        if self._digest is None:
            with io.BufferedReader(_FromStart(self._file, None), _BUFFER) as file:
                self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digest


def as_input(path: "AnyPath | Input") -> Input:
    """Returns the input itself, or the opened file of a path."""
    return path if isinstance(path, Input) else Input(path)


@contextlib.contextmanager
def open_binary(
    path: "AnyPath | Input", watch: Callable[[bytes], object] | None = None
) -> Iterator[io.BufferedIOBase]:
    """Opens a file for reading, through gzip where its first bytes say so.

    Args:
        path: the file, or an input that is open already.
        watch: called with the bytes of the file itself, compressed or not, as they are read.

    Raises:
        UserError: the file does not exist, it may not be read, or it turns out to be cut short.
    """
    with as_input(path).open(watch) as file:
        yield file


def check_text(name: str, data: bytes, kind: str) -> None:
    """Checks that a file is text: other readers end a line, or a field, at a zero byte.

    Args:
        name: name of the file in errors.
        data: all of its content.
        kind: kind of file that was expected, with an article.

    Raises:
        UserError: a zero byte, with its line.
    """
    at = data.find(b"\0")
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise UserError(f"{name}:{line}: a zero byte: this is not text, so not {kind}")


def _standard_input() -> IO[bytes]:
    file = sys.stdin.buffer
    if file.closed:
        raise UserError(
            "standard input is a pipe, which is read once, and two inputs name it: write one of "
            "them to a file"
        )
    if file.isatty():
        raise UserError("standard input is a terminal: send a file into it, with < or with a pipe")
    return file


def _spooled(file: IO[bytes]) -> IO[bytes]:
    """Returns all of a file that can be read only once, as one that can be read again."""
    copy: IO[bytes] | None = None
    try:
        copy = tempfile.TemporaryFile()
        shutil.copyfileobj(file, copy, _BUFFER)
        copy.flush()
    except OSError as error:
        if copy is not None:
            with contextlib.suppress(OSError):  # the same error once more
                copy.close()
        # Where no folder has room, not even its name can be found out again.
        raise UserError(
            f"a pipe is copied to {tempfile.tempdir or 'a temporary file'}, which failed "
            f"({error.strerror}): write the input to a file, or set TMPDIR to a folder with room"
        ) from None
    finally:
        file.close()
    return copy


class _FromStart(io.RawIOBase):
    """Reads a file that several readers may share from its start to its end."""

    def __init__(self, file: Any, watch: Callable[[bytes], object] | None):
        self._file, self._watch, self._position = file, watch, 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes into a buffer, and returns how many."""
        block = os.pread(self._file.fileno(), len(buffer), self._position)
        buffer[: len(block)] = block
        self._position += len(block)
        if self._watch is not None:
            self._watch(block)
        return len(block)


_HEAD = 14  # bytes that tell the compression


def _compression(head: bytes) -> str | None:
    if not head.startswith(_GZIP):
        return None
    # Section 4.1: a gzip member with an extra field named BC.
    return "bgzip" if len(head) == _HEAD and head[3] & 4 and head[12:] == b"BC" else "gzip"
