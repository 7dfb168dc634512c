"""A run that is sent SIGTERM again and again, at random moments, loses no step.

    python -m tests.stress.preemption 50 FOLDER

The number is that of signals; after every second one comes another while the run saves. One line
at the end; an error otherwise.
"""

import pathlib
import random
import signal
import sys
import time

from tests.stress.runs import Run

MOST_SECONDS = 30


def main(count: int, folder: pathlib.Path) -> None:
    """Interrupts `count` times, finishes, and compares with a run that nobody disturbed."""
    generator = random.Random(0)
    # More than the run gets to in that many starts.
    settings = {"steps": 60 * count, "log_every": 100}
    run = Run(folder, "interrupted", **settings)
    slowest, saved = 0.0, 0
    for number in range(count):
        begun = run.begins()
        process = run.start()
        run.wait_for(begun, process)
        if number:
            assert f"continues at step {saved} of" in run.said(), run.said()[-3000:]
        time.sleep(generator.uniform(0, 0.4))
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if number % 2:
            time.sleep(generator.uniform(0, 0.2))
            process.send_signal(signal.SIGTERM)
        while f"SIGTERM: saved step {run.newest()} " not in run.said():
            assert time.monotonic() - asked < MOST_SECONDS, run.said()[-3000:]
            time.sleep(0.01)
        slowest = max(slowest, time.monotonic() - asked)
        assert process.wait() == 75, run.said()[-3000:]
        assert run.newest() > saved
        saved = run.newest()
    run.finish()
    whole = Run(folder, "whole", **settings).finish()
    assert run.rows() == whole.rows() and run.digest() == whole.digest()
    print(
        f"{count} SIGTERMs at random steps up to {saved}, {count // 2} of them followed by a "
        f"second: all exit 75, committed within {slowest:.2f} s, no step lost; finished with the "
        f"bytes of an undisturbed run ({whole.digest()[:16]})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
