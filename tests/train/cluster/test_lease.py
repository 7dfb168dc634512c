import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from caduceus_jax.train.cluster import lease as module
from caduceus_jax.train.cluster.lease import FILE, InUse, Lease


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "EXPIRED_SECONDS", 0.5)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.1)


def write(folder, **fields):
    holder = {"host": "elsewhere", "pid": 1, "since": "then", "token": "t"} | fields
    (folder / FILE).write_text(json.dumps(holder))


def test_a_lease_is_given_back_and_says_who_has_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with Lease(folder) as lease:
        found = json.loads((folder / FILE).read_text())
        assert found["pid"] == os.getpid() and found["token"]
        lease.check()
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]
    with Lease(folder):
        pass
    with Lease(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()  # nothing was written there


def test_a_lease_that_is_kept_up_elsewhere_is_refused(tmp_path):
    write(tmp_path)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            os.utime(tmp_path / FILE)

    threading.Thread(target=beat).start()
    try:
        begun = time.monotonic()
        sentence = "is being written by another run, on elsewhere .process 1, since then.: stop"
        with pytest.raises(InUse, match=sentence) as error, Lease(tmp_path):
            pass
    finally:
        ended.set()
    assert error.value.exit_status == 1 and time.monotonic() - begun < 5
    assert json.loads((tmp_path / FILE).read_text())["host"] == "elsewhere"


def test_a_lease_that_expired_is_taken_over_with_a_notice(tmp_path, capsys):
    write(tmp_path)
    with Lease(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert "elsewhere (process 1, since then) ended without giving back" in capsys.readouterr().err


def test_a_process_of_this_host_that_is_gone_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXPIRED_SECONDS", 1000.0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write(tmp_path, host=module.socket.gethostname(), pid=gone.pid)
    with Lease(tmp_path):
        pass
    write(tmp_path, host=module.socket.gethostname(), pid=os.getppid())
    with pytest.raises(InUse, match=f"process {os.getppid()}"), Lease(tmp_path):
        pass


def test_whoever_lost_its_lease_writes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 1000.0)
    with Lease(tmp_path) as lease:
        write(tmp_path)
        with pytest.raises(InUse, match="another run on elsewhere .process 1. has taken"):
            lease.check()
    assert json.loads((tmp_path / FILE).read_text())["host"] == "elsewhere"


def test_of_two_that_begin_at_once_one_runs(tmp_path):
    program = (
        "import sys, time, pathlib\n"
        "from caduceus_jax.train.cluster.lease import InUse, Lease\n"
        "try:\n"
        "    with Lease(pathlib.Path(sys.argv[1])):\n"
        "        print('ran', flush=True); time.sleep(3)\n"
        "except InUse as error:\n"
        "    print('refused:', error)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = sorted(run.communicate()[0].split(":")[0].strip() for run in runs)
    # A process that takes longer to begin may find the folder free again.
    assert "ran" in said and set(said) <= {"ran", "refused"}
    assert not (pathlib.Path(tmp_path) / FILE).exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="choose another folder with --out"):
        with Lease(tmp_path / "file" / "run"):
            pass
