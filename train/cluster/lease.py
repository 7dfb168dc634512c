"""One run, one writer: a lease on the run's folder, and the proof that all processes share it."""

import contextlib
import json
import logging
import os
import pathlib
import secrets
import socket
import threading
import time
from typing import Any, NamedTuple

from caduceus_jax.errors import UserError
from caduceus_jax.files import write_text
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.peers import leave, say

log = logging.getLogger(__name__)

FILE = "lease.json"
BEAT_SECONDS = 5.0
# A lease whose file has not changed for this long is given up by whoever held it.
EXPIRED_SECONDS = 60.0
# Two that take over an expired lease at once both look again after this long: the last one has it.
SETTLE_SECONDS = 1.0
# What one host writes is seen on the others within this time, or `out` is not shared.
SHARED_SECONDS = 20.0


class InUse(UserError):
    """Says that another run writes to the folder."""

    exit_status = 1


class Holder(NamedTuple):
    """Identifies the holder of a lease."""

    host: str
    pid: int
    since: str  # date and time, with the time zone
    token: str  # drawn by chance: tells two runs of one process apart


class Lease:
    """Holds the right to write to a run's folder; a context manager that gives it back.

    All processes of a run enter it together. Process 0 writes the file, and touches it every few
    seconds; the others check that they see it. Where another run holds the lease, this one ends,
    unless that one has ended without giving it back: on this host if its process is gone, on
    another one if the file has not changed for `EXPIRED_SECONDS`.

    Args:
        folder: the folder of the run; made if it does not exist.
        shared: whether all processes are to see it; otherwise only that of process 0 counts.

    Raises:
        InUse: another run writes to the folder.
        AgreedError: a process does not see what process 0 wrote.
    """

    def __init__(self, folder: pathlib.Path, *, shared: bool = True):
        self._path, self._shared = folder / FILE, shared
        self._holder: Holder | None = None
        self._made = False
        self._ended = threading.Event()

    def __enter__(self) -> "Lease":
        token = processes.broadcast_from_first("the lease of the run's folder", self._take)
        try:
            if self._shared:
                self._check_shared(token)
        except BaseException:
            self._give_back()
            raise
        if processes.index() == 0:
            threading.Thread(target=self._beat, name="lease", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    def check(self) -> None:
        """Checks, in process 0, that no other run has taken the lease over.

        Raises:
            InUse: another run has.
        """
        if self._holder is not None and (now := _read(self._path)) != self._holder:
            raise InUse(_taken(self._path.parent, now))

    def _take(self) -> str:
        self._made = not self._path.parent.exists()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self._path.parent} cannot be made ({error.strerror}): choose another folder "
                "with --out"
            ) from None
        now = time.strftime("%Y-%m-%d %H:%M:%S %z")
        own = Holder(socket.gethostname(), os.getpid(), now, secrets.token_hex(8))
        try:
            if not _create(self._path, own):
                self._take_over(own)
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({error.strerror}): choose another folder with "
                "--out, or free space there"
            ) from None
        self._holder = own
        return own.token

    def _take_over(self, own: Holder) -> None:
        """Takes a lease that was not given back, or raises `InUse`."""
        before = _read(self._path)
        if before is not None and not _is_gone(before):
            self._wait_for_expiry(before)
        if before is not None:
            log.warning(
                f"{self._path.parent}: the run on {before.host} (process {before.pid}, since "
                f"{before.since}) ended without giving back its lease; this run continues"
            )
        write_text(self._path, _text(own))
        time.sleep(SETTLE_SECONDS)
        if (now := _read(self._path)) != own:
            raise InUse(_taken(self._path.parent, now))

    def _wait_for_expiry(self, holder: Holder) -> None:
        """Waits until a lease expires; by this host's clock, whatever the other's says."""
        local = holder.host == socket.gethostname()
        seen, since = _changed(self._path), time.monotonic()
        while time.monotonic() - since < EXPIRED_SECONDS:
            if local or _changed(self._path) != seen or _read(self._path) != holder:
                raise InUse(
                    f"{self._path.parent} is being written by another run, on {holder.host} "
                    f"(process {holder.pid}, since {holder.since}): stop that one first, or "
                    "choose another folder with --out"
                )
            time.sleep(min(1.0, EXPIRED_SECONDS / 10))

    def _check_shared(self, token: str) -> None:
        """Checks that every process sees the file that process 0 wrote."""
        deadline = time.monotonic() + SHARED_SECONDS
        while not (sees := (found := _read(self._path)) is not None and found.token == token):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        blind = [
            i for i, seen in enumerate(processes.all_gather("the lease is seen", sees)) if not seen
        ]
        if blind:
            raise processes.AgreedError(
                f"{processes.host_name(blind[0])} does not see what {processes.host_name(0)} wrote "
                f"in {self._path.parent}: out must be on a file system that all processes share"
            )

    def _beat(self) -> None:
        """Touches the file, and ends the process where another run has taken it."""
        while not self._ended.wait(BEAT_SECONDS):
            try:
                holder = _read(self._path)
                if holder is not None and holder != self._holder and not self._ended.is_set():
                    say(f"this process ends: {_taken(self._path.parent, holder)}")
                    leave(InUse.exit_status)
                os.utime(self._path)
            except OSError:  # the disk may be full, or come back
                pass

    def _give_back(self) -> None:
        self._ended.set()
        if self._holder is None:
            return
        with contextlib.suppress(OSError):
            if _read(self._path) == self._holder:
                self._path.unlink()
                if self._made:
                    self._path.parent.rmdir()  # only if the run wrote nothing
        self._holder = None


def _create(path: pathlib.Path, holder: Holder) -> bool:
    """Writes the file if there is none; whole, so that nobody reads a part of it."""
    own = path.with_name(f".{path.name}.{holder.token}")
    try:
        own.write_text(_text(holder))
        try:
            os.link(own, path)
            return True
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            pass
        try:
            with path.open("x") as file:
                file.write(_text(holder))
            return True
        except FileExistsError:
            return False
    finally:
        own.unlink(missing_ok=True)


def _text(holder: Holder) -> str:
    return json.dumps(holder._asdict()) + "\n"


def _read(path: pathlib.Path) -> Holder | None:
    """Reads who holds a lease; None where the file is missing or empty."""
    try:
        fields: Any = json.loads(path.read_text())
        return Holder(**fields)
    except (OSError, ValueError, TypeError):
        return None


def _changed(path: pathlib.Path) -> int:
    """Returns when the file was last changed, by the clock of its file system."""
    try:
        # Opened first: network file systems look at the server then.
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def _is_gone(holder: Holder) -> bool:
    """Tells whether the holder was a process of this host that has ended."""
    if holder.host != socket.gethostname():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return holder.pid == os.getpid()  # an earlier run of this very process


def _taken(folder: pathlib.Path, holder: Holder | None) -> str:
    who = "" if holder is None else f" on {holder.host} (process {holder.pid})"
    return f"another run{who} has taken {folder} over: stop one of the two"
