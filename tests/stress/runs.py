"""Tiny pretraining runs in processes of their own, to be stopped, killed and compared."""

import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import yaml

from caduceus_jax.model import run_checkpoint

# Metrics that depend on the run alone, not on the clock.
EXACT = ("step", "loss", "masked_loss", "masked_accuracy", "grad_norm", "lr")


class Run:
    """One run of a tiny model on a random genome.

    Args:
        folder: folder that everything is written to.
        name: name of the run within that folder.
        settings: settings of the recipe, beside those of every run here.
    """

    def __init__(self, folder: pathlib.Path, name: str, **settings: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.log = folder / name, folder / f"{name}.log"
        self.checkpoints = self.out / run_checkpoint.CHECKPOINTS
        self._cache, self._recipe = folder / "compiled", folder / f"{name}.yaml"
        genome = folder / "genome.fa"
        if not genome.exists():
            genome.write_text(f">one\n{''.join(random.Random(0).choices('ACGT', k=4000))}\n")
        tiny = {
            "model": {"d_model": 8, "n_layer": 1, "d_state": 4, "rcps": True},
            "data": {"fasta": str(genome)},
            "batch_size": 8,
            "max_length": 32,
            "eval_every": 10**9,
            "checkpoint_every": 10**9,
        }
        self._recipe.write_text(yaml.safe_dump({**tiny, **settings, "out": str(self.out)}))

    def start(self, *words: str, devices: int = 1) -> subprocess.Popen[bytes]:
        """Begins or continues; what it says is added to the log."""
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            + os.getenv("XLA_FLAGS", ""),
            "JAX_COMPILATION_CACHE_DIR": str(self._cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-m", "caduceus_jax", "pretrain"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--config", str(self._recipe), *words],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start_several(
        self, count: int, *, last: Sequence[str] = ()
    ) -> list[subprocess.Popen[bytes]]:
        """As many processes, of one device each, that train one model.

        Args:
            count: number of runs.
            last: words that only the last one is told.
        """
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        who = [f"--coordinator=localhost:{port}", f"--processes={count}"]
        own = [[f"--process={i}"] for i in range(count)]
        own[-1] += last
        return [self.start(*who, *words) for words in own]

    def finish(self, *words: str, devices: int = 1) -> "Run":
        """Runs to the end."""
        status = self.start(*words, devices=devices).wait()
        assert status == 0, self.said()[-3000:]
        return self

    def said(self) -> str:
        """Everything so far."""
        return self.log.read_text()

    def wait_for(self, what: Callable[[], Any], *processes: subprocess.Popen[bytes]) -> None:
        """Until something is true; the processes must live that long."""
        while not what():
            assert all(process.poll() is None for process in processes), self.said()[-3000:]
            time.sleep(0.002)

    def begins(self) -> Callable[[], bool]:
        """Whether one more start of the run has done its first step."""
        said = "first step after"
        before = self.said().count(said) if self.log.exists() else 0
        return lambda: self.said().count(said) > before

    def rows(self) -> list[dict[str, float]]:
        """The metrics that do not depend on the clock."""
        lines = (self.out / "metrics.jsonl").read_text().splitlines()
        return [{key: row[key] for key in EXACT} for row in map(json.loads, lines)]

    def newest(self) -> int:
        """The newest checkpoint's step, 0 for none; damaged ones are a failure."""
        step, damaged = run_checkpoint.newest(self.checkpoints)
        assert not damaged, damaged
        return step or 0

    def digest(self) -> str:
        """SHA-256 of all arrays of the newest checkpoint."""
        return digest(self.checkpoints / str(self.newest()))


def digest(checkpoint: pathlib.Path) -> str:
    """SHA-256 of all arrays of a checkpoint, whatever devices it was saved from."""
    stored = checkpoint.absolute() / run_checkpoint.STATE
    with ocp.PyTreeCheckpointer() as reader:
        item = reader.metadata(stored).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        arrays = reader.restore(
            stored, args=ocp.args.PyTreeRestore(item=item, restore_args=arguments)
        )
    total = hashlib.sha256()
    for path, array in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        total.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()
