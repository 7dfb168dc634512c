"""The same run, twice, in processes of their own: every metric and every bit of the checkpoint.

    python -m tests.stress.run_twice 50 FOLDER

The number is that of steps. One line for each path; an error where something differs.
"""

import pathlib
import sys

from tests.stress.runs import Run

PATHS = {
    "chunked": ({"scan": "chunked"}, 1),
    "pallas_triton, interpreted": ({"scan": "pallas_triton"}, 1),
    "mosaic_tpu, interpreted": ({"scan": "mosaic_tpu"}, 1),
    "4 devices, 2 along the sequence": ({"sequence": 2}, 4),
    "8 devices, 2 x 2 x 2": ({"fsdp": 2, "sequence": 2, "tensor": 2}, 8),
}


def main(steps: int, folder: pathlib.Path) -> None:
    """Two runs on each path."""
    for number, (path, (settings, devices)) in enumerate(PATHS.items()):
        one, other = (
            Run(folder, f"{number}_{name}", steps=steps, log_every=1, **settings).finish(
                devices=devices
            )
            for name in ("one", "other")
        )
        assert one.newest() == steps
        assert one.digest() == other.digest(), path
        assert one.rows() == other.rows() and len(one.rows()) == steps, path
        print(f"{path}: {steps} steps twice, all metrics and the whole state equal to the bit")


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
