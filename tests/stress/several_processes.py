"""Processes that train one model: undisturbed, stopped, killed, and told different things.

    python -m tests.stress.several_processes 2 FOLDER

The number is that of the processes. One line a case; exit status 1 if one fails.
"""

import pathlib
import signal
import sys
import time

from tests.stress.runs import Run

# Longer than JAX's heartbeat of 60 s; USERS ask for no more than this.
MOST_SECONDS = 120


def main(count: int, folder: pathlib.Path) -> None:
    """All cases."""
    settings = {"steps": 1000, "log_every": 250, "batch_size": 4}
    whole = Run(folder, "whole", **settings)
    statuses = [process.wait() for process in whole.start_several(count)]
    assert statuses == [0] * count, (statuses, whole.said()[-3000:])
    alone = Run(folder, "alone", **settings).finish(devices=count)
    first, other = whole.rows()[0]["loss"], alone.rows()[0]["loss"]
    assert abs(first - other) <= 1e-6 * other, (first, other)
    print(f"{count} processes: loss {first} at step 250, {other} in one process")

    stopped = Run(folder, "stopped", **settings)
    for process in range(count):
        begun = stopped.begins()
        running = stopped.start_several(count)
        stopped.wait_for(begun, *running)
        running[process].send_signal(signal.SIGTERM)
        asked = time.monotonic()
        statuses = [each.wait() for each in running]
        seconds = time.monotonic() - asked
        assert statuses == [75] * count, (statuses, stopped.said()[-3000:])
        print(
            f"SIGTERM to process {process}: all exit 75 after {seconds:.1f} s, saved step "
            f"{stopped.newest()}"
        )
    assert [each.wait() for each in stopped.start_several(count)] == [0] * count
    assert stopped.digest() == whole.digest() and stopped.rows() == whole.rows()
    print("stopped that often and continued: the same bytes as undisturbed")

    for victim in sorted({0, count - 1}):
        killed = Run(folder, f"killed-{victim}", **{**settings, "steps": 10**7})
        begun = killed.begins()
        running = killed.start_several(count)
        killed.wait_for(begun, *running)
        running[victim].kill()
        asked = time.monotonic()
        statuses = [each.wait() for each in running]
        seconds = time.monotonic() - asked
        assert 0 not in statuses and seconds <= MOST_SECONDS, (statuses, seconds)
        words = [line for line in killed.said().splitlines() if " ends: " in line or "died" in line]
        assert words, killed.said()[-3000:]
        print(f"process {victim} killed: statuses {statuses} after {seconds:.1f} s; {words[0]}")

    told = Run(folder, "told", **settings)
    statuses = [each.wait() for each in told.start_several(count, last=["--seed=1"])]
    (line,) = [line for line in told.said().splitlines() if "was told" in line]
    assert statuses == [2] * count, (statuses, told.said()[-3000:])
    assert "compiling" not in told.said()
    print(f"another seed in one: statuses {statuses}; {line}")


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
