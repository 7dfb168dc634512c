import os
import pathlib
import socket
import subprocess
import sys
import time

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
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)]),
                "FSSPEC_FILE": '{"auto_mkdir": true}',
                "XDG_CACHE_HOME": str(folder / f"cache.{i}"),
            },
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


def test_what_one_fails_of_ends_the_other_with_its_sentence_and_status(tmp_path):
    begun = time.monotonic()
    statuses, said = run_two(tmp_path, "one fails")
    assert statuses == [1, 1] and time.monotonic() - begun < 50, said
    assert "of 2 ends: OSError: no such genome" in said[1]
    assert ") failed: OSError: no such genome" in said[0] and "process 0 (" in said[0]


def test_two_processes_that_share_only_a_store_save_there(tmp_path):
    statuses, said = run_two(tmp_path, "store")
    assert statuses == [0, 0], said


def test_a_store_that_fails_ends_all_processes_with_one_sentence(tmp_path):
    begun = time.monotonic()
    statuses, said = run_two(tmp_path, "store fails")
    assert statuses == [1, 1], said
    assert time.monotonic() - begun < 120
    sentence = f"out is file://{tmp_path}/run, which cannot be used ("
    assert all(text.count(sentence) == 1 for text in said), said
    assert "Traceback" not in "".join(said)


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
