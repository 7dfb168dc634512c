"""Journals: results kept on disk, so that a run that was killed can be continued.

The file is a line of JSON, which says what run it belongs to, and an entry for each batch: its
length and CRC-32, then its values. An entry that was being written when the process was killed is
short or does not fit its CRC-32, and is dropped with whatever follows it.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import os
import pathlib
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from caduceus_jax.errors import UserError
from caduceus_jax.genomics.files.output import OutputError
from caduceus_jax.inference.loading import Pretrained
from caduceus_jax.version import __version__

log = logging.getLogger(__name__)

FORMAT = "caduceus-jax journal 1"
_ENTRY = struct.Struct("<II")  # bytes of values, their CRC-32
_SECONDS_BETWEEN_SYNCS = 5.0


class Journal:
    """The values of the batches of one run, in the order in which they are computed.

    Args:
        file: open for reading and writing, at the first entry.
        size: bytes that may be read; what is beyond is dropped.
        path: its path in errors.
        dtype: type of the numbers that it keeps.
        whole: all batches of the run are expected, so that a missing one is an error.
    """

    def __init__(
        self,
        file: io.FileIO,
        size: int,
        path: pathlib.Path = pathlib.Path("journal"),
        dtype: str = "<f4",
        whole: bool = False,
    ):
        self._file, self._size, self._path, self._dtype = file, size, path, dtype
        self._whole = whole
        self._synced = time.monotonic()
        self.replayed = self.appended = 0  # batches

    @property
    def kept(self) -> int:
        """Returns the bytes that an earlier run left."""
        return self._size - self._file.tell()

    def next(self, count: int | None = None) -> Float[np.ndarray, " values"] | None:
        """Returns the values of the next batch that is kept; None where it is to be computed.

        Args:
            count: number of its values; an entry of another number is dropped.

        Raises:
            UserError: the batch is missing from a journal that was to have all of them.
        """
        start = self._file.tell()
        head = self._file.read(_ENTRY.size) if start < self._size else b""
        if len(head) == _ENTRY.size:
            length, crc = _ENTRY.unpack(head)
            if length <= self._size - start - _ENTRY.size:
                values = self._file.read(length)
                found = np.frombuffer(values, self._dtype) if zlib.crc32(values) == crc else None
                if found is not None and count in (None, len(found)):
                    self.replayed += 1
                    return found
        if self._whole:
            raise UserError(
                "the shards do not have all results of the run: one of them is damaged, or was "
                "interrupted before its end; compute each of them again with the same command"
            )
        self._file.seek(start)
        self._file.truncate()
        self._size = start
        return None

    def append(self, values: Float[np.ndarray, "..."]) -> None:
        """Keeps the values of a batch; they outlive the process, and soon the machine."""
        data = np.ascontiguousarray(values, self._dtype).tobytes()
        _write(self._file, _ENTRY.pack(len(data), zlib.crc32(data)) + data, self._path)
        self.appended += 1
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def run_record(m: Pretrained, verb: str, **what: Any) -> dict[str, Any]:
    """Returns everything that determines the values of a run.

    Args:
        m: the model and its tokenizer.
        verb: name of the verb, such as "embed".
        **what: inputs and options of the run; frozen options become their fields.
    """
    fields = {
        key: dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for key, value in what.items()
    }
    return {
        "verb": verb,
        "model": _model_digest(m),
        **fields,
        "version": __version__,
        "jax": jax.__version__,
        "devices": [str(device.device_kind) for device in jax.local_devices()],
    }


def _model_digest(m: Pretrained) -> str:
    """Digests all that makes a model's answer: architecture, weights, vocabulary, dtype."""
    made_of = (m.model.config, m.tokenizer.vocabulary, str(m.model.caduceus.dtype))
    digest = hashlib.sha256(repr(made_of).encode())
    for path, parameter in sorted(nnx.to_flat_state(nnx.state(m.model, nnx.Param))):
        digest.update(repr(path).encode() + np.ascontiguousarray(parameter[...]).tobytes())
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def open_journal(
    path: pathlib.Path,
    run: Mapping[str, Any],
    *,
    restart: bool = False,
    keep: pathlib.Path | None = None,
    dtype: str = "<f4",
) -> Iterator[Journal]:
    """Opens the journal of a run, which continues what is there; removes it when the block is done.

    After an error or an interruption it stays, unless nothing was computed.

    Args:
        path: the path of the journal.
        run: everything that determines the values, as JSON can hold it: another run's journal is
            not continued.
        restart: discard the journal that is there.
        keep: rename the journal to this when the block is done, in place of removing it.
        dtype: type of the numbers that it keeps; another than float32 belongs into `run`.

    Raises:
        UserError: the file is another run's journal, is not a journal at all, or is in use by
            another process.
    """
    record = json.loads(json.dumps(run))
    try:
        # Not buffered: what cannot be written is found out at once, and not at the end again.
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    except OSError as error:
        raise OutputError(f"the journal {path} cannot be written: {error.strerror}") from None
    with file:
        _lock(file, path)
        first, whole = _begin(file, path, record, restart)
        size = file.seek(0, os.SEEK_END)
        if size > first and not whole:
            log.info(f"continuing from {path}, what an earlier run computed")
        journal = Journal(file, size, path, dtype, whole)
        file.seek(first)
        try:
            yield journal
        except BaseException:
            if whole or file.seek(0, os.SEEK_END) == first:
                path.unlink(missing_ok=True)
            else:
                log.info(f"what is computed is kept in {path}: the same command continues from it")
            raise
        if keep is None:
            path.unlink(missing_ok=True)
        else:
            os.fsync(file.fileno())
            path.replace(keep)


def _begin(
    file: io.FileIO, path: pathlib.Path, run: dict[str, Any], restart: bool
) -> tuple[int, bool]:
    """Checks the journal's first line, or writes it.

    Returns:
        Where the entries begin; and whether all of the run's are there.
    """
    line = file.readline()
    header = _first_line(line, path)
    there = None if header is None else header["run"]
    if header is not None and there == run and not restart:
        return len(line), header.get("whole", False)
    if there is not None and not restart:
        differing = [key for key in {**run, **there} if run.get(key) != there.get(key)]
        raise UserError(
            f"{path} is the journal of another run, which differs in {', '.join(differing)}: start "
            "that run again, or pass `restart`, which discards the journal"
        )
    file.seek(0)
    file.truncate()
    _write(file, json.dumps({"format": FORMAT, "run": run}).encode() + b"\n", path)
    return file.tell(), False


def _write(file: io.FileIO, data: bytes, path: pathlib.Path) -> None:
    start = file.tell()
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        file.truncate(start)
        raise OutputError(
            f"the journal {path} cannot be written: {error.strerror}; the same command continues "
            "once it can be"
        ) from None


def _first_line(line: bytes, path: pathlib.Path) -> dict[str, Any] | None:
    """Reads the first line, with the record of the run; None where it is cut short."""
    opening = json.dumps({"format": FORMAT})[:-1].encode()
    if not line.startswith(opening[: len(line)]):
        raise UserError(
            f"{path} is not a journal of caduceus-jax: move it, or choose another output"
        )
    return json.loads(line) if line.endswith(b"\n") else None


def _lock(file: io.FileIO, path: pathlib.Path) -> None:
    """Keeps two processes from writing one journal; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is in use: another process is writing the same output") from None
    except OSError:  # a file system without locks
        return
