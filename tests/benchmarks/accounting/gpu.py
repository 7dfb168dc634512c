"""Accounts a training step that was compiled for a GPU: the least time that each part takes.

    python tests/benchmarks/accounting/gpu.py step.hlo counts.json --tokens 1048576

A part takes no less than its bytes take at the rate of memory, its matrix products at theirs, and
the scan's kernels what their instructions take to be issued or their special functions to be
computed; small operations, what it takes to launch them. Parts run one after another. By default
the rates are those of an H200: 4.0 TB/s, 600 T operations per second in bfloat16, an eighth of that
in float32, 32.1 T instructions and 4.01 T special functions per second.
"""

import argparse
import collections
import json
import math
import pathlib
import re
from typing import NamedTuple

import hlo

_LAUNCH = 3.5e-6  # seconds
_SMALL = 30e6  # bytes, of what runs in every layer
_SMALL_ONCE = 200e6  # bytes, of what runs once


class Rates(NamedTuple):
    """What a device does in a second."""

    bytes: float
    products: float  # operations in bfloat16
    instructions: float
    special_functions: float


class Part(NamedTuple):
    """What operations of one kind take together."""

    seconds: float = 0.0
    bytes: float = 0.0
    launches: int = 0

    def __add__(self, other):
        return Part(*(x + y for x, y in zip(self, other, strict=True)))


def parts(
    operations: list[hlo.Operation], rates: Rates, counts: dict[str, list[float]]
) -> dict[str, Part]:
    """Returns what each kind of work takes, by its name.

    Args:
        operations: operations of the compiled step.
        rates: rates of the device.
        counts: instructions and special functions per state element, by the scan's kernel.
    """
    found: dict[str, Part] = collections.defaultdict(Part)
    for operation in operations:
        moved = operation.read + operation.written
        seconds, name = moved / rates.bytes, _kind(operation, moved)
        if name.startswith("scan ") and name.removeprefix("scan ") in counts:
            instructions, special = counts[name.removeprefix("scan ")]
            elements = state_elements(operation)
            seconds = max(
                seconds,
                elements * instructions / rates.instructions,
                elements * special / rates.special_functions,
            )
        elif name.startswith("matrix products"):
            rate = rates.products if "bf16" in operation.result else rates.products / 8
            seconds = max(seconds, _products(operation) / rate)
        elif name.startswith("small"):
            seconds = max(seconds, _LAUNCH)
        times = operation.times
        found[name] += Part(seconds * times, moved * times, times)
    return dict(found)


def state_elements(operation: hlo.Operation) -> int:
    """Returns tokens x channels x states that a kernel of the scan walks over.

    Its first operand is u, (batch, length, channels), and the one with A is (groups, states,
    channels).
    """
    u, channels = operation.operand_sizes[0], operation.operand_shapes[0][-1]
    states = next(
        shape[1]
        for shape in operation.operand_shapes
        if len(shape) == 3 and shape[0] <= 2 and shape[1] < channels == shape[2]
    )
    return u * states


def _kind(operation: hlo.Operation, moved: int) -> str:
    """Returns what kind of work an operation is."""
    target = operation.attribute(r'custom_call_target="([^"]*)"')
    if kernel := re.search(r"selective_scan_(\w+)", operation.source):
        if "triton" in target or "pallas" in operation.source:
            return f"scan {kernel[1]}"
    if "causal_conv_" in operation.source and "triton" in target:
        return "convolution, backward kernel"
    if "matmul" in target or operation.code == "dot":
        return f"matrix products into {re.sub('[{].*', '', operation.result.strip('( '))}"
    if moved < (_SMALL if operation.in_loop else _SMALL_ONCE):
        return "small operations"
    plain = re.sub(
        r"jit\(\w+\)/|while/body/|eval_jaxpr/|checkpoint/|closed_call/|rematted_computation/"
        r"|transpose\(jvp\(\)\)/?|jvp\(\)/?",
        "",
        operation.source,
    )
    again = "again: " if "rematted_computation" in operation.source else ""
    return f"{again}{operation.code} {plain[-46:]}"


def _products(operation: hlo.Operation) -> float:
    """Returns the floating-point operations of a matrix product.

    Operands of b M K and b K N numbers and a result of b M N make 2 b M K N operations.
    """
    one, other = operation.operand_sizes[:2]
    result = hlo.elements(operation.result.split("}")[0])
    shape = hlo.shapes(operation.result)[0]
    batch = shape[0] if len(shape) == 3 else 1
    return 2 * math.sqrt(one * other * result / batch)


def main() -> None:
    """Prints the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=pathlib.Path, help="that `step.py` wrote")
    parser.add_argument("counts", type=pathlib.Path, help="that `count.py` wrote")
    parser.add_argument("--tokens", type=int, required=True, help="tokens per step")
    parser.add_argument("--rates", type=float, nargs=4, default=(4.0e12, 600e12, 32.1e12, 4.01e12))
    parser.add_argument("--least", type=float, default=0.002, help="share of what is printed")
    given = parser.parse_args()
    operations = hlo.operations(given.program.read_text())
    found = parts(operations, Rates(*given.rates), json.loads(given.counts.read_text()))
    total = sum(found.values(), Part())
    print(
        f"{1e3 * total.seconds:.0f} ms, {given.tokens / total.seconds:,.0f} tokens/s, "
        f"{total.bytes / 1e9:,.0f} GB, {total.launches} launches"
    )
    for name, part in sorted(found.items(), key=lambda item: -item[1].seconds):
        if part.seconds > given.least * total.seconds:
            print(
                f"{1e3 * part.seconds:8.1f} ms {part.bytes / 1e9:9.1f} GB "
                f"{part.launches:6d} launches  {name}"
            )


if __name__ == "__main__":
    main()
