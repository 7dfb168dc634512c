import os
import pathlib
import socket
import subprocess
import sys

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.files import WriteFailed
from caduceus_jax.model.run_checkpoint import newest
from caduceus_jax.train import processes

SCRIPT = pathlib.Path(__file__).with_name("two_processes.py")
ROOT = SCRIPT.parents[2]


def run_two(folder, case):
    """Exit statuses and what was said on standard error."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), coordinator, str(i), str(folder), case],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


def test_two_processes_save_at_the_same_step_and_leave_with_75(tmp_path):
    statuses, said = run_two(tmp_path / "checkpoints", "stop")
    assert statuses == [75, 75], said
    step, damaged = newest(tmp_path / "checkpoints")
    assert step > 5 and not damaged


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("different", ") has another seed than process 0 ("),
        ("refused", "refused by process 0"),
    ],
)
def test_what_all_complain_of_is_said_once(tmp_path, case, sentence):
    statuses, said = run_two(tmp_path, case)
    assert statuses == [2, 2], said
    assert sum(line.count(sentence) for line in said) == 1


def test_a_process_alone_asks_nobody():
    processes.start(None, None, None)
    processes.start(None, 1, None)
    assert (processes.count(), processes.index()) == (1, 0)
    assert processes.all_gather("anything", {"a": 1}) == [{"a": 1}]
    processes.check_same({"seed": 1})

    def refuse():
        raise UserError("mine")

    with pytest.raises(UserError, match="^mine$"):
        processes.broadcast_from_first("refused", refuse)
    with pytest.raises(UserError, match="go together"):
        processes.start("localhost:1", None, 0)


def test_a_lost_process_is_told_from_a_disk_that_failed():
    """The error of a collective reaches the checkpoint that waits for it."""
    gloo = RuntimeError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:29618")
    waiting = WriteFailed("a checkpoint could not be written")
    waiting.__cause__ = gloo
    full = WriteFailed("a checkpoint could not be written (No space left on device)")
    full.__cause__ = OSError(28, "No space left on device")
    assert processes._lost_connection(gloo) and processes._lost_connection(waiting)
    assert not processes._lost_connection(full)
    assert not processes._lost_connection(ValueError("lr"))
