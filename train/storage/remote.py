"""Addresses of object stores, such as gs://bucket/hg38.fa, and local copies of what is there."""

import contextlib
import functools
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any, TypeVar

import fsspec

from caduceus_jax.errors import UserError
from caduceus_jax.train.run.background import in_background

T = TypeVar("T")

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")
# Packages that fsspec needs for a scheme.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}
# A store that moves nothing for this long has failed. Its library may have sent a part of a file
# long before it says so: a second more for each of these bytes, and for so many bytes at most.
STALLED_SECONDS = 75.0
_BYTES_PER_SECOND, _PART_BYTES = 2e6, 5e8


class StorageFailed(UserError, OSError):
    """An object store could not be read or written."""

    exit_status = 1


def is_remote(path: str) -> bool:
    """Tells whether a path is the address of an object store."""
    return _ADDRESS.match(path) is not None


def check_address(what: str, path: str) -> None:
    """Checks that an address is one that can be read here; local paths are not looked at.

    Args:
        what: the setting, such as "out".
        path: a path or an address.

    Raises:
        UserError: another kind of store, a package is missing, or an address is misspelt.
    """
    found = _ADDRESS.match(path)
    if found is None:
        if re.match(r"(gs|gcs|s3):", path):
            raise UserError(f"{what} is {path}, which is not an address: write gs://bucket/folder")
        return
    scheme = found[1].lower()
    package = _PACKAGES.get(scheme)
    if package and importlib.util.find_spec(package) is None:
        raise UserError(
            f"{what} is {path}, which needs {package}: pip install {package}, or mount the bucket "
            "as a folder and name that"
        )
    if scheme not in fsspec.available_protocols():
        raise UserError(f"{what} is {path}, and {scheme}:// is not known: use gs:// or s3://")


@contextlib.contextmanager
def storage_errors(what: str, path: str) -> Iterator[None]:
    """Turns whatever a store's library raises into one sentence.

    Args:
        what: the setting, such as "out".
        path: its address.

    Raises:
        StorageFailed: the block failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every library has its own types
        text = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            text = "there is nothing"
        raise StorageFailed(
            f"{what} is {path}, which cannot be used ({text}): check the address, the network and "
            "the credentials"
        ) from error


def open_store(path: str) -> tuple[Any, str]:
    """Returns fsspec's file system of an address, and the path there.

    None of its methods keeps its caller waiting for ever.
    """
    files, there = within_time(fsspec.core.url_to_fs, path)
    return _Bounded(files), there


class _Bounded:
    """Calls the methods of a file system, each within a bounded time."""

    def __init__(self, files: Any):
        self._files = files

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._files, name)
        if name not in ("get_file", "put_file"):
            return functools.partial(within_time, method)
        return lambda *paths: within_time(method, *paths, callback=_Progress())


class _Progress(fsspec.callbacks.Callback):
    """Notes when bytes of a file moved last."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = time.monotonic()

    def call(self, *_: Any, **__: Any) -> None:
        """Is called by fsspec for each part of the file."""
        self.moved = time.monotonic()

    @property
    def patience(self) -> float:
        """Seconds without a sign of progress that are not yet a failure."""
        return STALLED_SECONDS + min(self.size or 0, _PART_BYTES) / _BYTES_PER_SECOND


def within_time(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Calls a function of a store's library, and gives it up where nothing moves.

    Args:
        function: the function to call.
        *arguments: its arguments.
        **named: arguments with names; `callback` is told of progress.

    Raises:
        TimeoutError: the store does not answer.
    """
    progress = named.get("callback", _Progress())
    future = in_background(functools.partial(function, **named), *arguments)
    while not wait([future], timeout=1.0).done:
        if (idle := time.monotonic() - progress.moved) > progress.patience:
            raise TimeoutError(f"nothing has come or gone for {idle:.0f} s")
    return future.result()


@contextlib.contextmanager
def one_at_a_time(place: pathlib.Path) -> Iterator[None]:
    """Lets the processes of a machine work on a file or a folder one after the other.

    Args:
        place: the file or folder; a lock is kept beside it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("w") as file:
        # Not on Windows, nor on every file system.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache() -> pathlib.Path:
    """Returns the folder of local copies: $XDG_CACHE_HOME/caduceus-jax."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "caduceus-jax"


def local_copy(what: str, path: str, *, folders_only: bool = False) -> pathlib.Path:
    """Returns where a file or a folder lies on this machine, copying it from its store first.

    A copy is made once: the object's size and version are part of its place.

    Args:
        what: the setting, such as "data.fasta".
        path: a path or an address.
        folders_only: do not copy a file; its place is returned all the same.

    Raises:
        StorageFailed: the file does not exist, or cannot be read.
    """
    if not is_remote(path):
        return pathlib.Path(path)
    check_address(what, path)
    with storage_errors(what, path):
        store, there = open_store(path.rstrip("/"))
        info = store.info(there)
        folder = info["type"] == "directory"
        version = [path, info.get("size"), *map(info.get, ("ETag", "etag", "mtime", "generation"))]
        if folder:
            names = sorted(store.find(there))
            version += [(name, store.info(name).get("size")) for name in names]
        digest = hashlib.sha256(repr(version).encode()).hexdigest()[:16]
        place = cache() / "data" / digest / pathlib.PurePosixPath(there).name
        if place.exists() or (folders_only and not folder):
            return place
        with one_at_a_time(place):
            if not place.exists():
                _copy(store, there, names if folder else None, place)
    return place


def _copy(store: Any, there: str, names: list[str] | None, place: pathlib.Path) -> None:
    """Copies a file, or the files of a folder; it is in its place once it is whole."""
    partial = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        for name in [there] if names is None else names:
            inside = pathlib.PurePosixPath(name).relative_to(there)
            target = partial if names is None else partial / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(name, str(target))
        partial.rename(place)
    except BaseException:
        if names is None:
            partial.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        if not place.exists():  # else another machine that shares the cache was faster
            raise
