"""Runs over two machines: each process sees a boot id of its own."""

import json
import random

import numpy as np
import pytest
import yaml

from caduceus_jax.cli.main import main
from tests.stress.machines import Machine, free_port, launch, unshare

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
