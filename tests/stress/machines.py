"""Several machines on one: processes that see different boot ids, or different disks.

JAX tells machines apart by /proc/sys/kernel/random/boot_id. A mount namespace gives each process
one of its own; it needs root, or a kernel that allows unprivileged user namespaces.
"""

import os
import pathlib
import shlex
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def unshare() -> list[str] | None:
    """Returns the words that start a program in a mount namespace, or None where none can be."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            tried = subprocess.run(
                [*words, "sh", "-c", f"mount --bind /dev/null {BOOT_ID}"],
                capture_output=True,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.returncode == 0:
            return words
    return None


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Machine:
    """A process as on a machine of its own.

    Args:
        folder: folder of its boot id, its disk and its log.
        number: number of the machine, from 0.
        namespace: the words of `unshare`; empty: the boot id of this machine, and no own disk.
    """

    def __init__(self, folder: pathlib.Path, number: int, namespace: Sequence[str]):
        self.log = folder / f"{number}.log"
        self._namespace = list(namespace)
        self._boot_id = folder / f"boot_id.{number}"
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        self._disk = folder / f"disk.{number}"
        self._disk.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        words: Sequence[str],
        *,
        own: pathlib.Path | None = None,
        limit: int | None = None,
        env: dict[str, str] | None = None,
    ) -> "Machine":
        """Starts `caduceus-jax WORDS` there.

        Args:
            words: words of the command line.
            own: a folder that is this machine's own disk, not shared with the others.
            limit: most bytes that a file may have, in KiB; a disk that is full, so to speak.
            env: variables of the environment that differ.
        """
        command = shlex.join([sys.executable, "-P", "-m", "caduceus_jax", *words])
        lines = [f"ulimit -f {limit}"] if limit else []
        if self._namespace:
            lines.insert(0, f"mount --bind {self._boot_id} {BOOT_ID}")
            if own is not None:
                lines.insert(0, f"mount --bind {self._disk} {shlex.quote(str(own))}")
        script = " && ".join([*lines, f"exec {command}"])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._namespace, "sh", "-c", script],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    "JAX_PLATFORMS": "cpu",
                    "XLA_FLAGS": "--xla_force_host_platform_device_count=1 "
                    + os.getenv("XLA_FLAGS", ""),
                    "PYTHONPATH": os.pathsep.join(sys.path),
                }
                | (env or {}),
            )
        return self

    def wait(self, seconds: float) -> int:
        """Waits for the end, and returns the exit status; a process that hangs is killed."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still there after {seconds} s:\n{self.said()}") from None

    def said(self) -> str:
        """Returns everything that it said."""
        return self.log.read_text(errors="replace")


def launch(port: int, count: int, process: int) -> list[str]:
    """Returns the options that make a process one of several."""
    return [f"--coordinator=localhost:{port}", f"--processes={count}", f"--process={process}"]
