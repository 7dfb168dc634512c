"""Files that are complete or absent, and their digests."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from caduceus_jax.errors import UserError

_BLOCK = 1 << 24  # bytes


def check_local(what: str, path: str | os.PathLike[str]) -> None:
    """Checks that a path is one of this machine's file systems.

    Args:
        what: purpose of the path, such as "out"; begins the sentence.
        path: a path, or the address of an object store.

    Raises:
        UserError: the path is an address such as gs://bucket/run.
    """
    # A pathlib.Path has one slash left of the two.
    if address := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", os.fspath(path)):
        raise UserError(
            f"{what} is {address[1]}://{address[2]}: buckets are not read or written directly; "
            "mount the bucket as a folder (gcsfuse, s3fs), or copy the files, and name the folder"
        )


class WriteFailed(UserError, OSError):
    """A file could not be written: the disk is full, a quota is reached, or a device failed."""

    exit_status = 1


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which takes its place if the block succeeds.

    Whatever interrupts the block, `path` holds either all of the old content or all of the new;
    the temporary file is removed.

    Args:
        path: the file to write or replace; its directory must exist.

    Yields:
        The path to write to.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in one piece: a reader sees the old content or the new, never a part.

    Args:
        path: the file to write or replace.
        text: its content, stored as UTF-8.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as JSON in one piece.

    Args:
        path: the file to write or replace.
        value: nested dictionaries, lists and plain values; a float that is not finite becomes
            null, because JSON has no name for it.
    """
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Replaces every float that is not finite by None.

    Args:
        value: nested dictionaries, lists and plain values.

    Returns:
        The same nesting, with lists in place of tuples.
    """
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_digest(
    path: str | os.PathLike[str], watch: Callable[[bytes], object] | None = None
) -> str:
    """Computes the SHA-256 of a file.

    Args:
        path: the file.
        watch: called with each block of bytes as it is read, for example to show progress.

    Returns:
        The digest in hexadecimal.
    """
    with open(path, "rb") as file:
        if watch is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
            watch(block)
    return digest.hexdigest()
