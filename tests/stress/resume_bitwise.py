"""Killed half-way and continued in a new process, a run ends with the bytes of one that was not.

    python -m tests.stress.resume_bitwise 200 FOLDER [DEVICES ...]

The number is that of steps. One line for each number of devices (1, 4 and 8); an error otherwise.
"""

import pathlib
import sys

from tests.stress.runs import Run


def main(steps: int, folder: pathlib.Path, counts: list[int]) -> None:
    """Two runs for each number of devices."""
    half = steps // 2
    settings = {"steps": steps, "log_every": 1, "checkpoint_every": half}
    for devices in counts:
        whole = Run(folder, f"whole-{devices}", **settings).finish(devices=devices)
        resumed = Run(folder, f"resumed-{devices}", **settings)
        process = resumed.start(devices=devices)
        resumed.wait_for((resumed.checkpoints / str(half)).exists, process)
        process.kill()
        process.wait()
        assert resumed.newest() == half
        resumed.finish(devices=devices)
        assert f"continues at step {half} of {steps}" in resumed.said()
        assert len(whole.rows()) == steps and whole.rows() == resumed.rows()
        assert whole.newest() == resumed.newest() == steps
        assert whole.digest() == resumed.digest()
        print(
            f"{devices} devices: {steps} steps, and {half} + restore + {half}, end with SHA-256 "
            f"{whole.digest()[:16]}; all {steps} rows of metrics are equal"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]), [int(n) for n in sys.argv[3:]] or [1, 4, 8])
