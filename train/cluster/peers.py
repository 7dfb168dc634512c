"""Watches whether the other processes of a run are alive, and learns why they end.

JAX notices a process that is gone, but ends the others with a C++ stack that names no host. Here a
thread of every process says every few seconds that it is alive, in JAX's key-value store, and reads
there whether the run is to end. Process 0 watches who has fallen silent. Whoever fails first writes
why, and all others end with that sentence and its exit status.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

BEAT_SECONDS = 2.0
# A process that is silent for this long has failed. JAX's own limit must be longer.
SILENT_SECONDS = 60.0
_ALIVE, _END = "caduceus_jax/alive", "caduceus_jax/end"  # folders of the store
_LOST = 1  # exit status


class Peers:
    """Gives the beat of this process and watches the others.

    Args:
        client: JAX's client of its key-value store.
        index: number of this process, from 0.
        hosts: the host of every process.
        coordinator: host:port of process 0.
    """

    def __init__(self, client: Any, index: int, hosts: list[str], coordinator: str):
        self._client, self._index, self._hosts = client, index, hosts
        self._coordinator = coordinator
        self._reached = time.monotonic()
        self._left = False
        self._seen: dict[int, tuple[str, float]] = {}
        threading.Thread(target=self._beat, name="peers", daemon=True).start()
        threading.Thread(target=self._watch, name="coordinator", daemon=True).start()
        _on_abort(self._aborted)

    def name(self, process: int) -> str:
        """Names a process and its host: "process 1 (node-b)"."""
        return f"process {process} ({self._hosts[process]})"

    def fail(self, sentence: str, status: int) -> NoReturn:
        """Ends this process, and with the same sentence all others.

        Args:
            sentence: says what went wrong in this process.
            status: exit status of all processes.
        """
        say(f"{self.name(self._index)} of {len(self._hosts)} ends: {sentence}")
        self._tell_all(f"{self.name(self._index)} failed: {sentence}", status)
        leave(status)

    def lost(self) -> list[str]:
        """Names the other processes that give no sign of life for three beats."""

        def beats() -> dict[str, str]:
            """Reads how often each process said that it is alive."""
            return dict(self._client.key_value_dir_get(f"{_ALIVE}/"))

        try:
            before = beats()
            time.sleep(3 * BEAT_SECONDS)
            after = beats()
        except Exception:  # of the runtime's own types: process 0 keeps the store
            return [self.name(0)] if self._index else []
        silent = [int(key.rpartition("/")[2]) for key in before if before[key] == after.get(key)]
        return [self.name(process) for process in sorted(silent) if process != self._index]

    def leave(self) -> None:
        """Stops watching: the run is over, and processes end one after the other."""
        self._left = True

    def _tell_all(self, sentence: str, status: int) -> None:
        """Writes why the run ends, and gives the others the time to read it."""
        self._left = True

        def write() -> None:
            try:
                self._client.key_value_set(f"{_END}/why", json.dumps([sentence, status]))
            except Exception:  # noqa: S110  another process wrote first, or nobody can be reached
                pass

        # The store may hang where the network does.
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(2 * BEAT_SECONDS)
        if self._index == 0:  # the store ends with this process
            time.sleep(2.5 * BEAT_SECONDS)

    def _beat(self) -> None:
        beat = 0
        while not self._left:
            beat += 1
            try:
                self._client.key_value_set(
                    f"{_ALIVE}/{self._index}", str(beat), allow_overwrite=True
                )
                if found := self._client.key_value_dir_get(f"{_END}/"):
                    self._end_with(*json.loads(found[0][1]))
                if self._index == 0:
                    self._look_for_silent()
                self._reached = time.monotonic()
            except Exception:  # noqa: S110  of the runtime's own types; `_watch` counts the time
                pass
            time.sleep(BEAT_SECONDS)

    def _look_for_silent(self) -> None:
        now = time.monotonic()
        for key, beat in self._client.key_value_dir_get(f"{_ALIVE}/"):
            process = int(key.rpartition("/")[2])
            if self._seen.get(process, ("", 0.0))[0] != beat:
                self._seen[process] = beat, now
        if silent := [p for p, (_, at) in self._seen.items() if now - at > SILENT_SECONDS]:
            names = ", ".join(map(self.name, silent[:8]))
            sentence = (
                f"{names} {'has' if len(silent) == 1 else 'have'} not been heard of for "
                f"{SILENT_SECONDS:.0f} s: the host or its network failed, or the process was "
                "stopped; start the same command again on all hosts"
            )
            say(f"{self.name(0)} of {len(self._hosts)} ends: {sentence}")
            self._tell_all(sentence, _LOST)
            leave(_LOST)

    def _watch(self) -> None:
        """Ends this process where process 0 cannot be reached any more."""
        before = time.monotonic()
        while not self._left:
            time.sleep(BEAT_SECONDS)
            now = time.monotonic()
            if now - before > 5 * BEAT_SECONDS:  # this process itself stood still
                self._reached += now - before
                for process, (beat, at) in self._seen.items():
                    self._seen[process] = beat, at + now - before
            before = now
            if not self._left and now - self._reached > SILENT_SECONDS:
                say(
                    f"{self.name(self._index)} of {len(self._hosts)} ends: {self.name(0)} could "
                    f"not be reached for {SILENT_SECONDS:.0f} s: the host or its network failed; "
                    "start the same command again on all hosts"
                )
                leave(_LOST)

    def _end_with(self, sentence: str, status: int) -> None:
        if not self._left:
            say(f"{self.name(self._index)} of {len(self._hosts)} ends: {sentence}")
            leave(status)

    def _aborted(self) -> None:
        """Says what is known where JAX aborts this process."""
        host, _, port = self._coordinator.rpartition(":")
        reached = self._index == 0
        if not reached:
            try:
                socket.create_connection((host, int(port)), timeout=2).close()
                reached = True
            except (OSError, ValueError):
                pass
        reason = (
            "JAX reports that another process failed"
            if reached
            else f"{self.name(0)} has ended or cannot be reached"
        )
        say(
            f"{self.name(self._index)} of {len(self._hosts)} ends: {reason}; start the same "
            "command again on all hosts"
        )


def say(sentence: str) -> None:
    """Writes one line to standard error, past all buffers."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    # Standard error may be a file on the disk that is full: the process ends all the same.
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode(errors="replace"))


def leave(status: int) -> NoReturn:
    """Ends this process at once; nothing that hangs is waited for."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass
    os._exit(status)


_kept: list[Any] = []  # what C calls must not be collected


def _on_abort(explain: Any) -> None:
    """Calls `explain` and ends with status 1 where C++ code calls abort().

    Python's own signal handlers run in the main thread only, and abort() does not wait for it.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)

    @handler
    def aborted(_: int) -> None:
        """Explains, and ends the process at once."""
        try:
            explain()
        finally:
            os._exit(_LOST)

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, handler]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, aborted)
    _kept.append(aborted)
