"""Compiles the TPU scans ahead of time for TPUs, on any machine, and counts what they cost.

    pip install "jax[tpu]"
    python -m caduceus_jax.kernels.ahead_of_time.tpu

No TPU is needed: libtpu holds the whole compiler. Prints three Markdown tables.

1. Clocks, inferred from published peaks.
2. `mosaic_tpu`: instruction bundles in the compiler's final schedule. A core issues one bundle a
   cycle, so that bundles are cycles as long as nothing waits for memory: these are bounds, not
   times. "Inner" are the loops over tokens, for each token and 128 channels; "ms" is the whole
   program, what is outside of these loops included, for one core.
3. Temporary memory of forward and backward together, of `mosaic_tpu` and of `chunked` in all its
   forms; and for these the milliseconds that the compiler itself estimates, loops multiplied out.

Exits with 1 where a bar is missed: 8.0 inner bundles forward and 25 backward on v5e.
"""

import argparse
import functools
import importlib.util
import math
import multiprocessing
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels import Chunked, MosaicTPU, bidirectional_conv1d, selective_scan
from caduceus_jax.kernels.ahead_of_time import schedule
from caduceus_jax.kernels.ahead_of_time.schedule import Schedule
from caduceus_jax.kernels.options import for_platform
from caduceus_jax.kernels.tpu import target

_BARS = {"scan forward": 8.0, "scan backward": 25.0}  # inner bundles on v5e
_LANES = 128
_TOKENS = 16  # that a loop over tokens takes at a time: two rounds of 8


class Size(NamedTuple):
    """The sizes of one sequence."""

    length: int = 131_072
    channels: int = 512
    state: int = 16


SIZE = Size()


class Chip(NamedTuple):
    """A TPU to compile for. The clock follows from the peak: two operations per cell and cycle."""

    name: str
    topology: str  # the smallest that can be described
    peak: float  # bfloat16 operations per second, as published
    cells: int  # of its matrix units: cores x units x rows x columns, as published

    @property
    def clock(self) -> float:
        """In Hz."""
        return self.peak / (2 * self.cells)


# https://cloud.google.com/tpu/docs: v4, v5e, v5p, v6e, tpu7x. How many cells a v6e and a 7x have
# is not published in one place: their clocks are the least certain.
CHIPS = (
    Chip("v4", "v4:2x2x1", 275e12, 2 * 4 * 128 * 128),
    Chip("v5e", "v5e:2x2", 197e12, 1 * 4 * 128 * 128),
    Chip("v5p", "v5p:2x2x1", 459e12, 2 * 4 * 128 * 128),
    Chip("v6e", "v6e:2x2", 918e12, 1 * 4 * 256 * 256),
    Chip("7x", "tpu7x:2x2x1", 2307e12, 2 * 4 * 256 * 256),
)


class Kernel(NamedTuple):
    """A kernel compiled for a chip."""

    name: str
    schedule: Schedule
    inner: float  # bundles of the loops over tokens for each token and 128 channels
    ms: float  # of the whole program, on one core


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables.

    Args:
        arguments: command-line arguments; `--chips v5e v6e` compiles for these chips only,
            `--no-memory` leaves the third table out.

    Returns:
        The exit status: 0, 1 where a bar is missed, 2 where libtpu is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m caduceus_jax.kernels.ahead_of_time.tpu")
    names = [chip.name for chip in CHIPS]
    parser.add_argument("--chips", nargs="+", choices=names, default=names)
    parser.add_argument("--no-memory", action="store_true", help="leave the third table out")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("libtpu") is None:
        print('needs the TPU compiler, which pip install "jax[tpu]" brings', file=sys.stderr)
        return 2
    chips = [chip for chip in CHIPS if chip.name in options.chips]
    # Dumps go on being written for a moment after a compilation has returned.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        schedule.prepare(folder)
        _print_clocks(chips)
        missed = _print_kernels(chips, pathlib.Path(folder))
    if not options.no_memory:
        # In a process of its own, whose compiler writes nothing: that takes it minutes.
        schedule.prepare(None)
        process = multiprocessing.get_context("spawn").Process(target=_print_memory, args=(chips,))
        process.start()
        process.join()
    for sentence in missed:
        print(sentence, file=sys.stderr)
    return int(bool(missed))


def _print_clocks(chips: list[Chip]) -> None:
    print("| chip | published bfloat16 peak, TFLOP/s | cells of matrix units | clock, GHz |")
    print("| --- | --- | --- | --- |")
    for chip in chips:
        print(f"| {chip.name} | {chip.peak / 1e12:.0f} | {chip.cells:,} | {chip.clock / 1e9:.2f} |")


def _print_kernels(chips: list[Chip], folder: pathlib.Path) -> list[str]:
    """Prints the second table; what missed its bar."""
    print("\n| chip | dtype | kernel | bundles of the loops | inner | ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = []
    for chip in chips:
        for dtype in ("bfloat16", "float32"):
            for name, found, inner, ms in kernels(chip, folder, dtype):
                loops = " + ".join(map(str, found.loops or (found.outside,)))
                print(f"| {chip.name} | {dtype} | {name} | {loops} | {inner:.1f} | {ms:.1f} |")
                if chip.name == "v5e" and inner > _BARS.get(name, inner):
                    missed.append(f"{name} in {dtype} has {inner:.1f} bundles on v5e")
    return missed


def kernels(
    chip: Chip, folder: pathlib.Path, dtype: str, size: Size = SIZE, *, gate: bool = True
) -> Iterator[Kernel]:
    """Compiles every kernel for a chip, forward and backward.

    Args:
        chip: the chip to compile for.
        folder: folder that the compiler writes its schedules to.
        dtype: type of the sequences.
        size: sizes of the sequence.
        gate: whether the scan is gated by z.
    """
    from caduceus_jax.kernels.tpu.plan import default_block, default_chunk

    options = for_platform("mosaic_tpu", "tpu")
    with target.compiling_for(_device(chip).device_kind):
        block, chunk = default_block(size.channels), default_chunk(size.length)
    programs = math.ceil(size.channels / block) * math.ceil(size.length / chunk)
    compile_scan(chip, dtype, options, size, gate=gate)
    for kernel in ("forward", "backward"):
        found = schedule.read_schedule(folder, f"selective_scan_{kernel}")
        inner = sum(found.loops) / (_TOKENS * block / _LANES)
        bundles = programs * (found.outside + chunk // _TOKENS * sum(found.loops))
        yield Kernel(f"scan {kernel}", found, inner, 1e3 * bundles / chip.clock)
    compile_convolution(chip, dtype, options, size)
    for kernel in ("forward", "backward"):
        found = schedule.read_schedule(folder, f"causal_conv_{kernel}")
        inner = found.outside / (chunk * block / _LANES)
        yield Kernel(
            f"convolution {kernel}", found, inner, 1e3 * programs * found.outside / chip.clock
        )


def _print_memory(chips: list[Chip]) -> None:
    """Prints the third table."""
    columns = [(chip, dtype) for chip in chips for dtype in ("bfloat16", "float32")]
    print("\nTemporary memory in MiB, and milliseconds as estimated by the compiler:\n")
    print(f"| scan | {' | '.join(f'{chip.name} {dtype}' for chip, dtype in columns)} |")
    print(f"| --- |{' --- |' * len(columns)}")
    forms: dict[str, Any] = {"mosaic_tpu": MosaicTPU(interpret=False)}
    forms |= {
        f"chunked, {inner}, {chunk}": Chunked(chunk, inner)
        for inner in ("associative", "sequential")
        for chunk in (64, 128, 256, 512)
    }
    for name, form in forms.items():
        cells = []
        for chip, dtype in columns:
            compiled = compile_scan(chip, dtype, form)
            cell = f"{compiled.memory_analysis().temp_size_in_bytes / 2**20:.0f}"
            if isinstance(form, Chunked):
                chunk = form.chunk_length or 0
                cycles = estimated_cycles(compiled.as_text(), (SIZE.length // chunk, chunk))
                cell += f", {1e3 * cycles / chip.clock:.0f} ms"
            cells.append(cell)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def estimated_cycles(program: str, trips: tuple[int, ...]) -> int:
    """Adds up the cycles that the compiler notes at each operation, loops multiplied out.

    Args:
        program: compiled, as text.
        trips: numbers of iterations of an outer loop, of a loop within it, and so on.
    """
    bodies = re.split(r"^(?=(?:ENTRY )?%?[\w.\-]+ .*\{$)", program, flags=re.MULTILINE)
    named = {match[1]: body for body in bodies if (match := re.match(r"(?:ENTRY )?%?(\S+)", body))}

    def cycles(name: str, depth: int) -> int:
        """Adds up the estimated cycles of a computation and of the loops in it."""
        own = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', named[name])))
        loops = re.findall(r" while\(.*body=%?([\w.\-]+)", named[name])
        return own + sum(trips[depth] * cycles(loop, depth + 1) for loop in loops)

    entry = re.search(r"^ENTRY %?(\S+)", program, re.MULTILINE)
    return cycles(entry[1], 0) if entry else 0


def compile_scan(
    chip: Chip, dtype: str, implementation: Any, size: Size = SIZE, *, gate: bool = True
) -> Any:
    """Compiles a scan forward and backward, with every optional argument but the initial state.

    Args:
        chip: the chip to compile for.
        dtype: type of the sequences.
        implementation: options of the scan.
        size: sizes of the sequence.
        gate: whether the scan is gated by z.

    Returns:
        The compiled program.
    """
    sequence = ((1, size.length, size.channels), dtype)
    maps = ((1, size.length, size.state), dtype)
    shapes = {
        "u": sequence,
        "delta": sequence,
        "A": ((size.channels, size.state), "float32"),
        "B": maps,
        "C": maps,
        "D": ((size.channels,), "float32"),
        "delta_bias": ((size.channels,), "float32"),
    } | ({"z": sequence} if gate else {})
    scan = functools.partial(selective_scan, implementation=implementation)
    return _compile(chip, scan, shapes, sequence)


def compile_convolution(chip: Chip, dtype: str, implementation: Any, size: Size = SIZE) -> Any:
    """Compiles a convolution of width 4 in both directions, forward and backward.

    Args:
        chip: the chip to compile for.
        dtype: type of the sequences.
        implementation: options of the scan beside it.
        size: sizes of the sequence.

    Returns:
        The compiled program.
    """
    shapes = {
        "x": ((1, size.length, size.channels), dtype),
        "weight": ((2, 4, size.channels), "float32"),
        "bias": ((2, size.channels), "float32"),
    }

    def convolve(**arrays) -> jax.Array:
        """Returns the results of both directions."""
        return jnp.stack(bidirectional_conv1d(**arrays, implementation=implementation))

    return _compile(chip, convolve, shapes, ((2, 1, size.length, size.channels), dtype))


def _compile(
    chip: Chip, function: Callable[..., jax.Array], shapes: dict[str, Any], result: Any
) -> Any:
    """Compiles a function of named arrays forward and backward."""
    device = _device(chip)
    there = jax.sharding.SingleDeviceSharding(device)

    def array(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
        """Returns the shape, the type and the place of an array."""
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=there)

    def both(arrays, cotangent) -> tuple[jax.Array, Any]:
        """Runs the function forward and backward."""
        y, pull_back = jax.vjp(lambda arrays: function(**arrays), arrays)
        return y, pull_back(cotangent)

    arrays = {name: array(*shape) for name, shape in shapes.items()}
    with target.compiling_for(device.device_kind):
        return jax.jit(both).lower(arrays, array(*result)).compile()


def _device(chip: Chip) -> Any:
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices[0]


if __name__ == "__main__":
    sys.exit(main())
