"""Runs over two machines: each process sees a boot id of its own."""

import json
import os
import random
import shutil
import signal
import time

import matplotlib
import numpy as np
import pytest
import yaml

from caduceus_jax.cli.main import main
from caduceus_jax.model import run_checkpoint
from tests.stress.machines import Machine, free_port, launch, unshare
from tests.stress.runs import EXACT, digest

SECONDS = 300  # on a machine that is busy with other tests


@pytest.fixture(scope="module")
def namespace():
    words = unshare()
    if words is None:
        pytest.skip("needs mount namespaces: root, or unprivileged user namespaces")
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    genome = folder / "genome.fa"
    genome.write_text(f">one\n{''.join(random.Random(0).choices('ACGT', k=4000))}\n")
    recipe = {
        "model": {"d_model": 8, "n_layer": 1, "d_state": 4, "rcps": True},
        "data": {"fasta": str(genome), "validation_windows": 4},
        "steps": 4,
        "batch_size": 4,
        "max_length": 32,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def pretrain(folder, out, *words):
    return ["pretrain", "--config", str(folder / "recipe.yaml"), "--out", str(out), *words]


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(folder):
    """The metrics of one process on one machine."""
    out = folder / "alone"
    assert main(pretrain(folder, out)) == 0
    return rows(out)


@pytest.mark.parametrize(
    "division", [(), pytest.param(("--fsdp=2",), marks=pytest.mark.slow)], ids=["data", "fsdp"]
)
def test_two_machines_train_what_one_does(folder, namespace, alone, division, tmp_path):
    out, port = tmp_path / "run", free_port()
    machines = [
        Machine(tmp_path, i, namespace).start(pretrain(folder, out, *launch(port, 2, i), *division))
        for i in range(2)
    ]
    statuses = [machine.wait(SECONDS) for machine in machines]
    assert statuses == [0, 0], "".join(machine.said() for machine in machines)
    found = rows(out)
    for key in ("loss", "masked_loss", "grad_norm"):
        np.testing.assert_allclose(
            [row[key] for row in found], [row[key] for row in alone], rtol=1e-5
        )
    assert found[-1]["validation_loss"] == pytest.approx(alone[-1]["validation_loss"], rel=1e-5)
    assert "2 cpu devices" in machines[0].said()
    said = [line for line in machines[1].said().splitlines() if not line.startswith("[Gloo]")]
    assert said == []


def test_a_folder_that_is_not_shared_is_said_at_once(folder, namespace, tmp_path):
    out, port = tmp_path / "out", free_port()
    out.mkdir()
    machines = [
        Machine(tmp_path, i, namespace).start(
            pretrain(folder, out / "run", *launch(port, 2, i)), own=out
        )
        for i in range(2)
    ]
    statuses = [machine.wait(SECONDS) for machine in machines]
    assert statuses == [2, 2], "".join(machine.said() for machine in machines)
    said = machines[0].said()
    assert "process 1 (" in said and "does not see what process 0 (" in said
    assert "out must be on a file system that all processes share" in said


class Bucket:
    """A run in a bucket, played by a folder that only the runs' address names.

    Every machine has a cache of its own, and so do runs of one process.
    """

    def __init__(self, folder, tmp_path):
        self.out, self._tmp_path = tmp_path / "bucket" / "run", tmp_path
        self.out.parent.mkdir()
        genome = shutil.copy(folder / "genome.fa", self.out.parent)
        self.words = [
            *("pretrain", "--config", str(folder / "recipe.yaml"), "--fsdp=2", "--steps=40"),
            *("--checkpoint-every=5", "--log-every=5", "--eval-every=40"),
            f"--data.fasta=file://{genome}",
        ]

    def start(self, count, out=""):
        """Starts processes that have two devices together."""
        port, machines = free_port(), []
        for i in range(count):
            place = self._tmp_path / f"{out or count}"
            place.mkdir(exist_ok=True)
            flags = f"--xla_force_host_platform_device_count={2 // count} "
            env = {
                "FSSPEC_FILE": '{"auto_mkdir": true}',
                "XDG_CACHE_HOME": str(self.cache(place.name, i)),
                "MPLCONFIGDIR": matplotlib.get_cachedir(),  # else it looks for fonts each time
                "XLA_FLAGS": flags + os.getenv("XLA_FLAGS", ""),
            }
            words = [*self.words, f"--out={out or f'file://{self.out}'}"]
            words += launch(port, count, i) if count > 1 else []
            machines.append(Machine(place, i, []).start(words, env=env))
        return machines

    def cache(self, name, process):
        return self._tmp_path / f"cache-{name}-{process}"

    def newest(self):
        """Returns the newest step whose checkpoint is whole, 0 if there is none."""
        steps = run_checkpoint.steps(self.out / "checkpoints")
        whole = [s for s in steps if (self.out / f"checkpoints/{s}/manifest.json").exists()]
        return max(whole, default=0)

    def stop(self, machines, number):
        """Sends a signal once one more checkpoint is there; None waits for the end."""
        before, deadline = self.newest(), time.monotonic() + SECONDS
        while number is not None and self.newest() == before and time.monotonic() < deadline:
            assert all(m.process.poll() is None for m in machines), machines[0].said()
            time.sleep(0.01)
        # It is enough that one process gets SIGTERM.
        for machine in {None: [], signal.SIGTERM: machines[-1:]}.get(number, machines):
            machine.process.send_signal(number)
        return [machine.wait(SECONDS) for machine in machines]


def exact(out):
    return [{key: row[key] for key in EXACT} for row in rows(out)]


STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, None: 0}


@pytest.mark.parametrize(
    "starts",
    [
        [(2, signal.SIGKILL), (1, signal.SIGTERM), (2, None)],
        pytest.param([(2, signal.SIGTERM), (2, signal.SIGKILL), (1, None)], marks=pytest.mark.slow),
    ],
    ids=["killed, then one", "stopped, killed, then one"],
)
def test_two_machines_that_share_only_a_bucket(folder, tmp_path, starts):
    """Interrupted, and continued with another number of processes: the bytes of a whole run."""
    bucket, whole = Bucket(folder, tmp_path), tmp_path / "whole"
    (undisturbed,) = bucket.start(1, out=str(whole))
    for count, number in starts:
        machines = bucket.start(count)
        statuses = bucket.stop(machines, number)
        assert statuses == [STATUS[number]] * count, "".join(m.said() for m in machines)
        assert (bucket.newest() == 40) == (number is None)
        assert (bucket.out / "lease.json").exists() == (number == signal.SIGKILL)
    assert undisturbed.wait(SECONDS) == 0, undisturbed.said()
    assert digest(bucket.out / "checkpoints" / "40") == digest(whole / "checkpoints" / "40")
    assert exact(bucket.out) == exact(whole) and len(exact(whole)) == 8
    for name in ("config.yaml", "baselines.json", "loss.png", "model/model.safetensors"):
        assert (bucket.out / name).is_file(), name
    # Only process 0 has checkpoints beside the bucket; each machine has the genome.
    runs = [next((bucket.cache("2", i) / "caduceus-jax" / "runs").iterdir()) for i in range(2)]
    assert [(run / "checkpoints").exists() for run in runs] == [True, False]
    assert all((run / "data" / "0").is_dir() for run in runs)
