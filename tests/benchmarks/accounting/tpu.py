"""Accounts a training step that was compiled for a TPU: the least time that each part takes.

    python tests/benchmarks/accounting/tpu.py step.hlo v5e --layers 16 --tokens 131072

XLA's own operations take the cycles that the compiler estimates, loops multiplied out; kernels take
the bundles of their schedules, which are compiled for the sizes that the step has. Parts run one
after another on one core.
"""

import argparse
import collections
import math
import pathlib
import re
import tempfile
from typing import NamedTuple

import hlo
import jax

from caduceus_jax.kernels.ahead_of_time import schedule, tpu

_KERNEL = re.compile(r"(selective_scan|causal_conv)_(forward|backward)")


class Part(NamedTuple):
    """What operations of one kind take together."""

    milliseconds: float = 0.0
    bytes: float = 0.0
    times: int = 0

    def __add__(self, other):
        return Part(*(x + y for x, y in zip(self, other, strict=True)))


def parts(operations: list[hlo.Operation], chip: tpu.Chip) -> dict[str, Part]:
    """Returns what each kind of work takes, by its name.

    Args:
        operations: operations of the compiled step.
        chip: the chip that it was compiled for.
    """
    found: dict[str, Part] = collections.defaultdict(Part)
    kernels: dict[str, float] = {}
    for operation in operations:
        name, cycles = _kind(operation), operation.attribute(r'"estimated_cycles":"(\d+)"')
        milliseconds = 1e3 * int(cycles or 0) / chip.clock
        if kernel := _KERNEL.search(name):
            rows, length, channels = _tokens(operation)
            if not kernels:
                kernels = _schedules(chip, length, channels)
            milliseconds = rows * kernels[kernel[0]]
        moved, times = operation.read + operation.written, operation.times
        found[name] += Part(milliseconds * times, moved * times, times)
    return dict(found)


def _tokens(operation: hlo.Operation) -> tuple[int, ...]:
    """Returns the shape of the largest operand, (rows, length, channels)."""
    return max((x for x in operation.operand_shapes if len(x) == 3), key=math.prod)


def _schedules(chip: tpu.Chip, length: int, channels: int) -> dict[str, float]:
    """Returns milliseconds of each kernel for one sequence, without a gate, as models run them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        schedule.prepare(folder)
        sizes = tpu.Size(length=length, channels=channels)
        found = tpu.kernels(chip, pathlib.Path(folder), "bfloat16", sizes, gate=False)
        names = {"scan": "selective_scan", "convolution": "causal_conv"}
        return {
            "_".join([names[kernel.name.split()[0]], kernel.name.split()[1]]): kernel.ms
            for kernel in found
        }


def _kind(operation: hlo.Operation) -> str:
    """Returns what kind of work an operation is."""
    again = "again: " if "rematted_computation" in operation.source else ""
    if operation.code == "custom-call" and (
        kernel := _KERNEL.search(operation.source + operation.attributes)
    ):
        return again + kernel[0]
    plain = re.sub(
        r"jit\(\w+\)/|while/body/|eval_jaxpr/|checkpoint/|closed_call/|rematted_computation/"
        r"|transpose\(jvp\(\)\)/?|jvp\(\)/?",
        "",
        operation.source,
    )
    return f"{again}{operation.code} {plain[-54:]}"


def main() -> None:
    """Prints the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=pathlib.Path, help="that `step.py` wrote")
    parser.add_argument("chip", choices=[chip.name for chip in tpu.CHIPS])
    parser.add_argument("--layers", type=int, required=True, help="of the model")
    parser.add_argument("--tokens", type=int, required=True, help="tokens per step and chip")
    parser.add_argument("--least", type=float, default=0.004, help="share of what is printed")
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    chip = next(chip for chip in tpu.CHIPS if chip.name == given.chip)
    found = parts(hlo.operations(given.program.read_text(), trips=given.layers), chip)
    total = sum(found.values(), Part())
    print(
        f"{total.milliseconds:.0f} ms, {1e3 * given.tokens / total.milliseconds:,.0f} tokens/s, "
        f"{total.bytes / 1e9:,.0f} GB, {total.times} operations"
    )
    for name, part in sorted(found.items(), key=lambda item: -item[1].milliseconds):
        if part.milliseconds > given.least * total.milliseconds:
            print(f"{part.milliseconds:8.1f} ms {part.bytes / 1e9:9.1f} GB {part.times:6d}  {name}")


if __name__ == "__main__":
    main()
