import subprocess
import sys
import time

import pytest

from caduceus_jax.train.cluster import watchdog as module
from caduceus_jax.train.cluster.watchdog import Watchdog

PROGRAM = """
import threading, time
from caduceus_jax.train.cluster import watchdog
watchdog._LOOK_SECONDS = 0.05

def stands_still():
    time.sleep(60)

with watchdog.Watchdog({seconds}) as dog:
    {before}
    dog.step(7)
    stands_still()
"""


def run(seconds, before="pass"):
    begun = time.monotonic()
    text = PROGRAM.format(seconds=seconds, before=before)
    done = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, text=True)
    return done, time.monotonic() - begun


def test_a_process_that_stands_still_ends_with_its_stacks_and_a_sentence():
    done, took = run(0.3)
    assert done.returncode == 1 and took < 50
    assert "in stands_still" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("process 0 of 1 ends: no step was finished for 0 s (the last one was")
    assert "was step 7)" in last


def test_nothing_is_watched_before_the_first_step_and_while_paused(monkeypatch):
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    ended = []
    monkeypatch.setattr(Watchdog, "_end", lambda self, idle: ended.append(idle))
    with Watchdog(0.1) as dog:
        time.sleep(0.3)
        dog.step(1)
        with dog.paused():
            time.sleep(0.3)
        with dog.work("validation"):  # compiled
            time.sleep(0.3)
        assert not ended
        with dog.work("validation"):
            time.sleep(0.3)
        assert ended and min(ended) > 0.1


def test_steps_that_are_long_have_longer():
    dog = Watchdog(5.0)
    assert dog.limit == 5.0
    dog._took.extend([2.0, 3.0, 4.0])
    assert dog.limit == pytest.approx(30.0)


def test_time_in_which_the_process_itself_stood_still_does_not_count(monkeypatch):
    """A virtual machine that was stopped finds a clock that is far ahead."""
    now, looks = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    dog = Watchdog(100.0)
    dog.step(1)
    ended = []
    monkeypatch.setattr(Watchdog, "_end", lambda self, idle: ended.append(idle))

    def wait(seconds):
        looks.append(now[0])
        now[0] += 500.0 if len(looks) == 3 else seconds
        return len(looks) > 60

    monkeypatch.setattr(dog._ended, "wait", wait)
    dog._watch()
    assert not ended


def test_no_limit_never_ends():
    with Watchdog(None) as dog:
        dog.step(1)
