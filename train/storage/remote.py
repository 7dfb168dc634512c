"""Addresses of object stores, such as gs://bucket/hg38.fa, and local copies of what is there."""

import contextlib
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import fsspec

from caduceus_jax.errors import UserError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.")
# Packages that fsspec needs for a scheme.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}


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
    """Returns fsspec's file system of an address, and the path there."""
    return fsspec.core.url_to_fs(path)


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
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{os.getpid()}.part")
        if folder:
            for name in names:
                target = partial / pathlib.PurePosixPath(name).relative_to(there)
                target.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(name, str(target))
        else:
            store.get_file(there, str(partial))
    try:
        partial.rename(place)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return place
