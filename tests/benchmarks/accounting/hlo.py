"""Reads a program that XLA has compiled: each operation that runs, how often, and its bytes.

An operation reads each operand once and writes its result once. A fusion reads of an operand what
its slices take, and writes in place where its root updates a part of an array. Loops are multiplied
out by the trip counts that XLA notes, or by one that is given.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2},
    **{"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8},
}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
# What moves nothing.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "iota"),
    *("partition-id", "replica-id", "conditional", "fusion-done", "async-done", "copy-done"),
}
_SLICES = ("dynamic-slice", "slice", "gather")
_VIEWS = ("bitcast", "reshape")


class Operation(NamedTuple):
    """An operation of a compiled program."""

    name: str
    code: str  # such as "fusion"
    result: str  # its type
    operands: tuple[str, ...]  # their names
    attributes: str
    is_root: bool
    times: int = 1  # how often it runs in a run of the program
    read: int = 0  # bytes, each time
    written: int = 0  # bytes, each time
    operand_shapes: tuple[tuple[int, ...], ...] = ()
    in_loop: bool = False

    @property
    def operand_sizes(self) -> tuple[int, ...]:
        """Returns the elements of each operand."""
        return tuple(map(math.prod, self.operand_shapes))

    def attribute(self, pattern: str) -> str:
        """Returns what the first group of a pattern finds in the attributes, or ""."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    @property
    def source(self) -> str:
        """Returns where the operation comes from in the traced program."""
        return self.attribute(r'op_name="([^"]*)"')


def size(text: str) -> int:
    """Returns the bytes of all arrays of a type."""
    return sum(_BYTES[kind] * elements for kind, elements in _arrays(text))


def elements(text: str) -> int:
    """Returns the elements of all arrays of a type."""
    return sum(count for _, count in _arrays(text))


def shapes(text: str) -> list[tuple[int, ...]]:
    """Returns the shapes of all arrays of a type."""
    return [_sides(sides) for _, sides in _ARRAY.findall(text)]


def operations(text: str, trips: int | None = None) -> list[Operation]:
    """Returns every operation that moves bytes.

    Args:
        text: the compiled program.
        trips: numbers of iterations of loops for which XLA does not note them.
    """
    bodies, entry = _parse(text)

    def walk(body: str, times: int, in_loop: bool) -> Iterator[Operation]:
        types = {operation.name: operation.result for operation in bodies[body]}
        for operation in bodies[body]:
            if operation.code == "while":
                known = operation.attribute(r'known_trip_count":\{"n":"(\d+)"')
                loop = operation.attribute(r"body=%?([\w.\-]+)")
                yield from walk(loop, times * int(known or trips or 1), True)
            elif operation.code == "call":
                yield from walk(operation.attribute(r"to_apply=%?([\w.\-]+)"), times, in_loop)
            elif operation.code not in _FREE:
                read, written = _bytes(operation, types, bodies)
                operands = [shapes(types[x]) for x in operation.operands if x in types]
                yield operation._replace(
                    times=times,
                    read=read,
                    written=written,
                    operand_shapes=tuple(found[0] for found in operands if found),
                    in_loop=in_loop,
                )

    return list(walk(entry, 1, False))


def _bytes(
    operation: Operation, types: dict[str, str], bodies: dict[str, list[Operation]]
) -> tuple[int, int]:
    """Returns the bytes that an operation reads and writes."""
    if called := operation.attribute(r"calls=%?([\w.\-]+)"):
        if operation.code in ("fusion", "fusion-start", "async-start"):
            return _fusion_bytes(bodies[called])
    if operation.code in _SLICES:
        return size(operation.result), size(operation.result)
    if operation.code == "dynamic-update-slice":
        update = size(types[operation.operands[1]])
        return update, update
    distinct = dict.fromkeys(operation.operands)
    return sum(size(types[x]) for x in distinct if x in types), size(operation.result)


def _fusion_bytes(body: list[Operation]) -> tuple[int, int]:
    by_name = {operation.name: operation for operation in body}
    users = collections.defaultdict(list)
    for operation in body:
        for operand in operation.operands:
            users[operand].append(operation)

    def taken(name: str, whole: int) -> int:
        """Returns the bytes that are read of an array of so many."""
        total = 0
        for user in users[name]:
            if user.code in _SLICES:
                total += size(user.result)
            elif user.code in _VIEWS:
                total += taken(user.name, whole)
            elif user.code != "dynamic-update-slice" or user.operands[0] != name:
                return whole
        return min(total, whole)

    def put(operation: Operation) -> int:
        while operation.code in _VIEWS and operation.operands:
            operation = by_name[operation.operands[0]]
        if operation.code == "dynamic-update-slice":
            return size(by_name[operation.operands[1]].result)
        return size(operation.result)

    read = sum(taken(x.name, size(x.result)) for x in body if x.code == "parameter")
    root = next(operation for operation in body if operation.is_root)
    results = [by_name[x] for x in root.operands] if root.code == "tuple" else [root]
    return read, sum(map(put, results))


def _arrays(text: str) -> Iterator[tuple[str, int]]:
    for kind, sides in _ARRAY.findall(text):
        yield kind, math.prod(_sides(sides))


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split(",") if side)


def _parse(text: str) -> tuple[dict[str, list[Operation]], str]:
    """The computations by name, and the name of the one that runs."""
    bodies: dict[str, list[Operation]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$", line):
            current = bodies.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (operation := _operation(line)):
            current.append(operation)
    return bodies, entry


def _operation(line: str) -> Operation | None:
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$", line)
    if found is None:
        return None
    rest = re.sub(r"/\*index=\d+\*/", "", found[3])
    result, rest = _balanced(rest) if rest.startswith("(") else rest.split(" ", 1)
    code = re.match(r"\s*([\w\-]+)(?=\()", rest)
    if code is None:
        return None
    operands, attributes = _balanced(rest[code.end() :])
    names = tuple(re.findall(r"%([\w.\-]+)", operands))
    return Operation(found[2], code[1], result, names, attributes, bool(found[1]))


def _balanced(text: str) -> tuple[str, str]:
    """What stands in the first parentheses, with them, and what follows."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    return text, ""
