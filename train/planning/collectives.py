"""Counts what a compiled program sends between devices, by its text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_LAYOUT = re.compile(r"\{[^{}]*\}|/\*.*?\*/|\s")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
_WHILE = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_BOUND = re.compile(r"s32\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=\d+")
_NAME = re.compile(r'op_name="([^"]*)"')


class Collective(NamedTuple):
    """Describes collectives of one kind, shape and origin."""

    kind: str
    shape: str  # of the result on each device
    origin: str  # the pass, and what in it
    count: int  # in one run of the program, loops included
    bytes: int  # of all their results together, on each device


def collectives(text: str) -> list[Collective]:
    """Lists the collectives of a program, those within a loop as often as it goes round.

    Args:
        text: `compiled.as_text()`.

    Returns:
        Most bytes first.
    """
    found: dict[tuple[str, str, str], int] = {}
    channels: set[str] = set()
    for line, times, fused in _executed(*_computations(text)):
        if (match := _COLLECTIVE.search(line)) is None:
            continue
        # Fused with other work that it runs beside, it is written down in every piece of it.
        channel = _CHANNEL.search(line)
        if fused and channel is not None:
            if channel[0] in channels:
                continue
            channels.add(channel[0])
        name = _NAME.search(line)
        shape, kind = _result(match[1], match[2], started=match[3] is not None), match[2]
        key = (kind, shape, _origin(name[1] if name else ""))
        found[key] = found.get(key, 0) + times
    rows = [Collective(*key, count, count * _size(key[1])) for key, count in found.items()]
    return sorted(rows, key=lambda row: -row.bytes)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[str]] = {}
    entry, inside = "", None
    for line in text.splitlines():
        if inside is None and (match := _COMPUTATION.match(line)):
            inside = computations.setdefault(match[1], [])
            entry = match[1] if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            inside = None
        elif inside is not None:
            inside.append(line)
    return computations, entry


def _executed(
    computations: dict[str, list[str]], name: str, times: int = 1, fused: bool = False
) -> Iterator[tuple[str, int, bool]]:
    """Lists each instruction, how often it is run, and whether it is part of a fusion."""
    for line in computations.get(name, ()):
        yield line, times, fused
        if loop := _WHILE.search(line):
            rounds = _rounds(line, computations.get(loop[1], []))
            yield from _executed(computations, loop[2], times * rounds, fused)
        else:
            for called in _CALLED.findall(line):
                yield from _executed(computations, called, times, fused or " fusion(" in line)


def _rounds(line: str, condition: list[str]) -> int:
    """Counts the rounds of a loop: as the compiler says, or by the bound that it counts up to."""
    if known := _TRIPS.search(line):
        return int(known[1])
    bounds = [int(match[1]) for text in condition if (match := _BOUND.search(text))]
    return bounds[0] if len(bounds) == 1 else 1


def _result(shape: str, kind: str, *, started: bool) -> str:
    """Returns the shape of a result without layouts.

    What is started has its operands before it: on GPUs in a tuple of their own, on TPUs side by
    side where they are not the result's own place.
    """
    shape = _LAYOUT.sub("", shape)
    arrays = [match[0] for match in _ARRAY.finditer(shape)]
    if started and (shape.startswith("((") or kind in ("all-gather", "collective-permute")):
        arrays = [array for array in arrays if array != "u32[]"]
        arrays = arrays[len(arrays) // 2 :]
    return arrays[0] if len(arrays) == 1 else f"({', '.join(arrays)})"


def _size(shape: str) -> int:
    """Returns the size in bytes of "f32[2,3]", or of a tuple of such."""
    total = 0
    for kind, bits, dimensions in _ARRAY.findall(shape):
        elements = math.prod(int(n) for n in dimensions.split(",") if n)
        total += elements * (1 if kind == "pred" else max(1, int(bits) // 8))
    return total


def _origin(name: str) -> str:
    """Names the origin: "backward psum" of jit(step)/transpose(jvp())/while/body/.../psum."""
    passed = "forward"
    if "transpose(" in name:
        passed = "recomputed" if "rematted" in name else "backward"
    last = name.rpartition("/")[2].strip("()")
    return f"{passed} {last}" if last else passed
