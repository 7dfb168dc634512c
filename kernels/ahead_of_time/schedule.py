"""Reads what the TPU compiler made of a kernel: its final schedule of instruction bundles.

A core issues one bundle per cycle, so that bundles are cycles as long as nothing waits for memory.
"""

import itertools
import os
import pathlib
import re
import time
from typing import NamedTuple


class Schedule(NamedTuple):
    """Bundles of one compiled program."""

    outside: int  # in the loop over the grid, outside of the loops within
    loops: tuple[int, ...]  # of each loop within it


def prepare(folder: str | None) -> None:
    """Tells libtpu where to write its schedules, if anywhere, before anything loads it.

    Args:
        folder: folder that the compiler dumps into; None writes no dumps.
    """
    dump = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    os.environ["LIBTPU_INIT_ARGS"] = dump if folder else ""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no TPU machine can be asked
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ["JAX_PLATFORMS"] = "cpu"


def read_schedule(folder: pathlib.Path, kernel: str, patience: float = 30.0) -> Schedule:
    """Reads a kernel's final schedule from the compiler's dumps, and removes them.

    Args:
        folder: the folder of the dumps.
        kernel: its name.
        patience: seconds to wait for a dump that is still being written.

    Raises:
        FileNotFoundError: there is none.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for file in sorted(folder.glob(f"*{kernel}*-final_bundles.txt")):
            text = file.read_text()
            # This is said of the last bundle: the file is whole.
            if "schedule-analysis" not in file.name and "exit bundle" in text:
                for dump in folder.glob(f"*{kernel}*"):
                    dump.unlink()
                return parse_schedule(text)
        time.sleep(0.2)
    raise FileNotFoundError(f"the compiler wrote no schedule of {kernel}")


def parse_schedule(text: str) -> Schedule:
    """Counts the bundles of each loop.

    A line is a bundle: its number, a label if it is a jump's target (LB is where a loop's body
    begins), `>` for each loop it is in, and its instructions in braces. Bundles of what follows a
    loop may stand within it, under a predicate.
    """
    bundles = re.findall(r"^ *(?:0x[0-9a-f]+|0) +([A-Z]{2})?: *(>*) *\{", text, re.MULTILINE)
    heads = [i for i, (label, depth) in enumerate(bundles) if label == "LB" and len(depth) > 1]
    loops = []
    for start, stop in itertools.pairwise([*heads, len(bundles)]):
        end = max(i for i in range(start, stop) if len(bundles[i][1]) > 1)
        loops.append(end + 1 - start)
    inside = sum(len(depth) > 0 for _, depth in bundles)
    return Schedule(max(inside - sum(loops), 0), tuple(loops))
