"""The folder of a run: on a file system, or a local copy of one in an object store."""

import hashlib
import json
import logging
import os
import pathlib
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from caduceus_jax.errors import UserError
from caduceus_jax.model.run_checkpoint import CHECKPOINTS, MANIFEST, steps, verify
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.lease import InUse
from caduceus_jax.train.storage.remote import (
    StorageFailed,
    cache,
    is_remote,
    open_store,
    storage_errors,
)

log = logging.getLogger(__name__)

LEASE = "lease.json"
BEAT_SECONDS = 20.0
EXPIRED_SECONDS = 90.0
# What a run that continues elsewhere needs beside a checkpoint, and what each process reads of it.
_NEEDED = ("config.yaml", "metrics.jsonl", "baselines.json", "wandb_id", "data/sources.json")
_NEEDED_BY_ALL = ("config.yaml", "data/sources.json")
_NOT_KEPT = (CHECKPOINTS, LEASE, "data")  # at the top of the folder; written apart, or made again


class RunFolder:
    """Opens the folder of a run; a context manager.

    Where `out` is an address such as gs://bucket/run, the run works in a local folder. What it
    needs to continue is read from the store at the start, and each checkpoint is written there in
    the background once it is complete, its manifest last: a checkpoint with a manifest is whole.
    An object tells others that the run is being written.

    Of several processes, which enter and leave it together, process 0 writes to the store. Each
    machine has a local folder of its own; processes of one machine share it, and the others than
    process 0 find no checkpoints there.

    Args:
        out: a path or an address.

    Attributes:
        path: the folder on this machine.

    Raises:
        InUse: another run writes there.
        StorageFailed: the store cannot be used.
    """

    def __init__(self, out: str):
        self._out, self._remote = out, is_remote(out)
        self.path = pathlib.Path(out)
        self._token, self._ended = secrets.token_hex(8), threading.Event()
        self._sent: dict[str, tuple[int, int]] = {}
        self._failed = False
        if not self._remote:
            return
        digest = hashlib.sha256(out.rstrip("/").encode()).hexdigest()[:16]
        self.path = cache() / "runs" / digest
        with storage_errors("out", out):
            self._store, self._root = open_store(out.rstrip("/"))

    def __enter__(self) -> "RunFolder":
        if self._remote:
            self.path.mkdir(parents=True, exist_ok=True)
            # The others wait: what process 0 finds, and clears away, may lie on their disk too.
            processes.broadcast_from_first("the run's folder", self._begin, patient=True)
            if processes.index() == 0:
                threading.Thread(target=self._beat, name="bucket", daemon=True).start()
            else:
                with storage_errors("out", self._out):
                    self._read_files(_NEEDED_BY_ALL)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._remote:
            return
        self._ended.set()
        if kind is None:
            processes.broadcast_from_first("the end of the run's folder", self._end, patient=True)
        elif processes.index() == 0 and not self._failed:
            try:
                self._end()
            except UserError as error:
                log.warning(str(error))  # another error is on its way

    def _begin(self) -> None:
        with storage_errors("out", self._out):
            self._claim()
            self._read()

    def _end(self) -> None:
        with storage_errors("out", self._out):
            self._write_files()
            if self._holder().get("token") == self._token:
                self._store.rm_file(f"{self._root}/{LEASE}")

    def saved(self, step: int) -> None:
        """Writes a complete checkpoint, and the files beside it, to the store.

        Args:
            step: step of the checkpoint; checkpoints that were removed here are removed there too.
        """
        if not self._remote:
            return
        try:
            with storage_errors("out", self._out):
                self._write_checkpoint(step)
        except StorageFailed:
            self._failed = True
            raise

    def _write_checkpoint(self, step: int) -> None:
        if self._holder().get("token") != self._token:
            raise InUse(f"another run has taken over {self._out}: this one writes no more")
        self._write_files()  # first: a checkpoint has the metrics of its steps
        folder, there = self.path / CHECKPOINTS / str(step), self._checkpoint(step)
        if self._store.exists(there):  # of an upload that was interrupted
            self._remove(step)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == MANIFEST):
            self._put(path)
        kept = {path.name for path in folder.parent.iterdir()}
        for old in self._steps():
            if str(old) not in kept:
                self._remove(old)

    def _remove(self, step: int) -> None:
        """Removes a checkpoint from the store, its manifest first."""
        there = self._checkpoint(step)
        if self._store.exists(f"{there}/{MANIFEST}"):
            self._store.rm_file(f"{there}/{MANIFEST}")
        self._store.rm(there, recursive=True)

    def _checkpoint(self, step: int) -> str:
        return f"{self._root}/{CHECKPOINTS}/{step}"

    def _read(self) -> None:
        """Reads what the run needs to continue."""
        if not self._store.exists(f"{self._root}/{_NEEDED[0]}"):
            # A new run; what lies here is of one that is gone.
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True, exist_ok=True)
            return
        self._read_files(_NEEDED)
        # The store decides: its metrics end before a checkpoint that never came there.
        found = self._steps()
        for step in set(steps(self.path / CHECKPOINTS)) - set(found):
            shutil.rmtree(self.path / CHECKPOINTS / str(step))
        for step in found:
            if self._read_checkpoint(step):
                return

    def _read_files(self, names: Iterable[str]) -> None:
        """Reads the tokenizer and some other files, those that are there; the rest is removed."""
        self._store.invalidate_cache()
        folder = f"{self._root}/tokenizer"
        there = self._store.find(folder) if self._store.exists(folder) else []
        for name in [*names, *(f"tokenizer/{pathlib.Path(found).name}" for found in there)]:
            place = self.path / name
            if not self._store.exists(f"{self._root}/{name}"):
                place.unlink(missing_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f".{place.name}.{os.getpid()}.part")
            self._store.get_file(f"{self._root}/{name}", str(partial))
            partial.replace(place)

    def _read_checkpoint(self, step: int) -> bool:
        """Makes sure that a checkpoint is here, and says whether it is intact."""
        folder, there = self.path / CHECKPOINTS / str(step), self._checkpoint(step)
        if folder.is_dir() and verify(folder) is None:
            manifest = self._store.cat_file(f"{there}/{MANIFEST}")
            if (folder / MANIFEST).read_bytes() == manifest:
                return True
        partial = folder.with_name(f"{step}.tmp")
        for old in (folder, partial):
            shutil.rmtree(old, ignore_errors=True)
        for name in self._store.find(there):
            target = partial / pathlib.PurePosixPath(name).relative_to(there)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(name, str(target))
        if wrong := verify(partial):
            log.warning(
                f"checkpoint {step} in {self._out} is damaged ({wrong}); an older one is read"
            )
            shutil.rmtree(partial)
            return False
        partial.rename(folder)
        return True

    def _steps(self) -> list[int]:
        """Lists the steps of complete checkpoints in the store, newest first."""
        folder = f"{self._root}/{CHECKPOINTS}"
        found = self._store.find(folder) if self._store.exists(folder) else []
        names = [pathlib.PurePosixPath(name) for name in found]
        steps = {name.parent.name for name in names if name.name == MANIFEST}
        return sorted((int(name) for name in steps if name.isdecimal()), reverse=True)

    def _write_files(self) -> None:
        """Writes the files that have changed."""
        for path in sorted(self.path.rglob("*")):
            top = path.relative_to(self.path).parts[0]
            if path.is_file() and top not in _NOT_KEPT:
                self._put(path)
        record = self.path / "data" / "sources.json"
        if record.is_file():
            self._put(record)

    def _put(self, path: pathlib.Path) -> None:
        name, stat = path.relative_to(self.path).as_posix(), path.stat()
        if self._sent.get(name) != (stat.st_size, stat.st_mtime_ns):
            self._store.put_file(str(path), f"{self._root}/{name}")
            self._sent[name] = (stat.st_size, stat.st_mtime_ns)

    def _holder(self) -> dict[str, Any]:
        """Returns who writes to the store; nothing if nobody does."""
        self._store.invalidate_cache()
        if not self._store.exists(f"{self._root}/{LEASE}"):
            return {}
        try:
            found = json.loads(self._store.cat_file(f"{self._root}/{LEASE}"))
        except (ValueError, FileNotFoundError):
            return {}
        return found if isinstance(found, dict) else {}

    def _claim(self) -> None:
        """Begins to hold the store, unless another run that is alive does."""
        holder = self._holder()
        age = time.time() - holder.get("time", 0)
        gone = holder.get("host") == socket.gethostname() and not _alive(holder.get("pid"))
        if holder and age < EXPIRED_SECONDS and not gone:
            raise InUse(
                f"{self._out} is being written by process {holder.get('pid')} on "
                f"{holder.get('host')}: end that run, or wait {EXPIRED_SECONDS:.0f} s if it is gone"
            )
        self._hold()

    def _hold(self) -> None:
        me = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token}
        text = json.dumps({**me, "time": time.time()})
        self._store.pipe_file(f"{self._root}/{LEASE}", text.encode())

    def _beat(self) -> None:
        """Shows every few seconds that this run is alive."""
        while not self._ended.wait(BEAT_SECONDS):
            try:
                if self._holder().get("token") == self._token and not self._ended.is_set():
                    self._hold()
            except Exception as error:  # the next checkpoint says what is wrong
                log.debug(f"{self._out}: {error}")


def _alive(pid: Any) -> bool:
    """Tells whether a process of this number runs on this machine."""
    try:
        os.kill(int(pid), 0)
    except (OSError, TypeError, ValueError):
        return False
    return True
