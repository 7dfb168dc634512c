"""The watch over other processes, with a key-value store that is kept here."""

import json
import subprocess
import sys
import threading
import time

import pytest

from caduceus_jax.train.cluster import peers as module
from caduceus_jax.train.cluster.peers import Peers

HOSTS = ["node-a", "node-b", "node-c"]


class Store:
    """JAX's key-value store, or one that cannot be reached."""

    def __init__(self):
        self.values, self.reached = {}, True

    def key_value_set(self, key, value, allow_overwrite=False):
        if not self.reached:
            raise RuntimeError("unavailable")
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        if not self.reached:
            raise RuntimeError("unavailable")
        folder = prefix.rstrip("/") + "/"  # as JAX does: a key is not in the folder of its name
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


class Left(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def ended(monkeypatch):
    """Sentences and statuses with which the process would have ended."""
    found = []
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.4)
    monkeypatch.setattr(module, "say", lambda sentence: found.append(sentence))
    monkeypatch.setattr(module, "_on_abort", lambda explain: None)

    def leave(status):
        found.append(status)
        raise Left

    monkeypatch.setattr(module, "leave", leave)
    monkeypatch.setattr(module.threading, "excepthook", lambda _: None)
    return found


def wait_for(what, seconds=10.0):
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    assert what()


def beat(store, process, count=200):
    """Another process that is alive for a while."""
    for number in range(count):
        store.key_value_set(f"caduceus_jax/alive/{process}", str(number), allow_overwrite=True)
        yield


def test_who_falls_silent_is_named_with_its_host_to_all(ended):
    store = Store()
    first = Peers(store, 0, HOSTS, "node-a:1")
    alive = beat(store, 1, 10**6)
    store.key_value_set("caduceus_jax/alive/2", "5")  # and never again
    until = time.monotonic() + 10
    while len(ended) < 2 and time.monotonic() < until:
        next(alive)
        time.sleep(0.01)
    sentence, status = ended[:2]
    assert sentence.startswith(
        "process 0 (node-a) of 3 ends: process 2 (node-c) has not been heard"
    )
    assert status == 1
    told, told_status = json.loads(store.values["caduceus_jax/end/why"])
    assert told.startswith("process 2 (node-c) has not") and told_status == 1
    first.leave()


def test_all_end_with_the_sentence_of_the_one_that_failed(ended):
    store = Store()
    other = Peers(store, 1, HOSTS, "node-a:1")
    store.key_value_set(
        "caduceus_jax/end/why", json.dumps(["process 2 (node-c) failed: disk full", 2])
    )
    wait_for(lambda: len(ended) == 2)
    assert ended == ["process 1 (node-b) of 3 ends: process 2 (node-c) failed: disk full", 2]
    other.leave()


def test_a_failure_is_told_before_the_process_ends(ended):
    store = Store()
    failing = Peers(store, 2, HOSTS, "node-a:1")
    with pytest.raises(Left):
        failing.fail("disk full", 1)
    assert json.loads(store.values["caduceus_jax/end/why"]) == [
        "process 2 (node-c) failed: disk full",
        1,
    ]
    assert ended == ["process 2 (node-c) of 3 ends: disk full", 1]


def test_a_coordinator_that_cannot_be_reached_is_named(ended):
    store = Store()
    cut = Peers(store, 1, HOSTS, "node-a:1")
    store.reached = False
    wait_for(lambda: len(ended) >= 2)
    assert ended[0].startswith(
        "process 1 (node-b) of 3 ends: process 0 (node-a) could not be reached"
    )
    assert ended[1] == 1
    cut.leave()


def test_nothing_is_watched_once_a_process_leaves(ended):
    store = Store()
    peers = Peers(store, 1, HOSTS, "node-a:1")
    peers.leave()
    store.reached = False
    time.sleep(1.0)
    assert ended == []


def test_an_abort_of_jax_ends_with_a_sentence_and_status_1():
    program = (
        "import os, threading\n"
        "from caduceus_jax.train.cluster.peers import _on_abort, say\n"
        "_on_abort(lambda: say('process 1 (node-b) of 2 ends: lost'))\n"
        "import ctypes\n"
        "threading.Thread(target=ctypes.CDLL(None).abort).start()\n"
        "threading.Event().wait(60)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "process 1 (node-b) of 2 ends: lost"


def test_a_process_that_gives_no_sign_is_named_after_three_beats(ended):
    store = Store()
    first = Peers(store, 0, HOSTS, "node-a:1")
    store.values["caduceus_jax/alive/1"] = "7"
    alive, over = beat(store, 2, 10**6), threading.Event()

    def go_on():
        while not over.wait(0.01):
            next(alive, None)

    threading.Thread(target=go_on, daemon=True).start()
    assert first.lost() == [first.name(1)]
    over.set()
    store.reached = False  # process 0 keeps the store
    other = Peers(store, 1, HOSTS, "node-a:1")
    assert other.lost() == [other.name(0)]
    first.leave()
    other.leave()


def test_a_sentence_that_cannot_be_written_does_not_keep_a_process_from_its_end(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", full)
    module.say("the disk is full")
