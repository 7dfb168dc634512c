"""Counts the machine instructions of the scan's GPU kernels as a model runs them: without a gate.

    python tests/benchmarks/accounting/count.py counts.json

BiMamba gates the sum of both directions outside of the scans. Writes, for each kernel, instructions
and special functions per state element, which `gpu.py` reads.
"""

import argparse
import json
import pathlib
import tempfile

import jax

from caduceus_jax.kernels.ahead_of_time import gpu
from caduceus_jax.kernels.ahead_of_time.devices import GPUS
from caduceus_jax.kernels.ahead_of_time.machine_code import Assembler


def main() -> None:
    """Counts, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="JSON file for the counts")
    parser.add_argument("--implementation", choices=gpu.IMPLEMENTATIONS, default="triton")
    parser.add_argument("--device", choices=GPUS, default="h200")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    counts = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        assembler = Assembler(pathlib.Path(folder))
        jax.config.update("jax_platforms", "cpu")
        costs, _ = gpu.count_scan(
            assembler, given.device, given.implementation, given.dtype, gate=False
        )
        for cost in costs:
            name = cost.name.removeprefix("selective_scan_")
            counts[name] = [round(cost.instructions, 2), round(cost.special_functions, 2)]
            print(
                f"{name}: {cost.registers} registers, {cost.spilled_bytes} bytes spilled, "
                f"{cost.instructions:.2f} instructions, {cost.special_functions:.2f} MUFU"
            )
    given.out.write_text(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
