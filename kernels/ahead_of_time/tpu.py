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
import importlib.util
import math
import multiprocessing
import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any, NamedTuple

_BATCH, _LENGTH, _CHANNELS, _STATE = 1, 131_072, 512, 16
_BARS = {"forward": 8.0, "backward": 25.0}  # inner bundles on v5e
_LANES = 128
_TOKENS = 16  # that a loop over tokens takes at a time: two rounds of 8


class Chip(NamedTuple):
    """A TPU to compile for. The clock follows from the peak: two operations a cell and cycle."""

    name: str
    topology: str  # the smallest that can be described
    peak: float  # bfloat16 operations a second, as published
    cells: int  # of its matrix units: cores x units x rows x columns, as published

    @property
    def clock(self) -> float:
        """In Hz."""
        return self.peak / (2 * self.cells)


# https://cloud.google.com/tpu/docs: v5e, v5p, v6e.
CHIPS = (
    Chip("v5e", "v5e:2x2", 197e12, 1 * 4 * 128 * 128),
    Chip("v5p", "v5p:2x2x1", 459e12, 2 * 4 * 128 * 128),
    Chip("v6e", "v6e:2x2", 918e12, 1 * 4 * 256 * 256),
)


class Schedule(NamedTuple):
    """Bundles of one compiled program."""

    outside: int  # in the loop over the grid, outside of the loops within
    loops: tuple[int, ...]  # of each loop within it


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables.

    Args:
        arguments: of the command line; `--chips v5e v6e` takes these only, `--no-memory` leaves
            the third table out.

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
        _prepare(folder)
        _print_clocks(chips)
        missed = _print_kernels(chips, pathlib.Path(folder))
    if not options.no_memory:
        # In a process of its own, whose compiler writes nothing: that takes it minutes.
        _prepare(None)
        process = multiprocessing.get_context("spawn").Process(target=_print_memory, args=(chips,))
        process.start()
        process.join()
    for sentence in missed:
        print(sentence, file=sys.stderr)
    return int(bool(missed))


def _prepare(folder: str | None) -> None:
    """Tells libtpu where to write its schedules if anywhere; before anything loads it."""
    dump = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
    os.environ["LIBTPU_INIT_ARGS"] = dump if folder else ""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU machine to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ["JAX_PLATFORMS"] = "cpu"


def _print_clocks(chips: list[Chip]) -> None:
    print("| chip | published bfloat16 peak, TFLOP/s | cells of matrix units | clock, GHz |")
    print("| --- | --- | --- | --- |")
    for chip in chips:
        print(f"| {chip.name} | {chip.peak / 1e12:.0f} | {chip.cells:,} | {chip.clock / 1e9:.2f} |")


def _print_kernels(chips: list[Chip], folder: pathlib.Path) -> list[str]:
    """Prints the second table; what missed its bar."""
    from caduceus_jax.kernels import MosaicTPU
    from caduceus_jax.kernels.tpu.plan import default_block, default_chunk

    block, chunk = default_block(_CHANNELS), default_chunk(_LENGTH)
    print(f"\nmosaic_tpu, {block} channels a program, {chunk} tokens a chunk:\n")
    print("| chip | dtype | kernel | bundles of the loops | inner | ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = []
    for chip in chips:
        for dtype in ("bfloat16", "float32"):
            compile_scan(chip, dtype, MosaicTPU(interpret=False))
            for kernel in ("forward", "backward"):
                schedule = read_schedule(folder, f"selective_scan_{kernel}")
                times = chunk // _TOKENS
                inner = sum(schedule.loops) / (_TOKENS * block / _LANES)
                programs = _BATCH * (_CHANNELS // block) * math.ceil(_LENGTH / chunk)
                bundles = programs * (schedule.outside + times * sum(schedule.loops))
                print(
                    f"| {chip.name} | {dtype} | {kernel} | "
                    f"{' + '.join(map(str, schedule.loops))} | {inner:.1f} | "
                    f"{1e3 * bundles / chip.clock:.1f} |"
                )
                if chip.name == "v5e" and inner > _BARS[kernel]:
                    missed.append(f"{kernel} in {dtype} has {inner:.1f} bundles on v5e")
    return missed


def _print_memory(chips: list[Chip]) -> None:
    """Prints the third table."""
    from caduceus_jax.kernels import Chunked, MosaicTPU

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
                cycles = estimated_cycles(compiled.as_text(), (_LENGTH // chunk, chunk))
                cell += f", {1e3 * cycles / chip.clock:.0f} ms"
            cells.append(cell)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def estimated_cycles(program: str, trips: tuple[int, ...]) -> int:
    """Cycles that the compiler notes at each operation of a program, loops multiplied out.

    Args:
        program: compiled, as text.
        trips: how often an outer loop runs, a loop within it, and so on.
    """
    bodies = re.split(r"^(?=(?:ENTRY )?%?[\w.\-]+ .*\{$)", program, flags=re.MULTILINE)
    named = {match[1]: body for body in bodies if (match := re.match(r"(?:ENTRY )?%?(\S+)", body))}

    def cycles(name: str, depth: int) -> int:
        own = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', named[name])))
        loops = re.findall(r" while\(.*body=%?([\w.\-]+)", named[name])
        return own + sum(trips[depth] * cycles(loop, depth + 1) for loop in loops)

    entry = re.search(r"^ENTRY %?(\S+)", program, re.MULTILINE)
    return cycles(entry[1], 0) if entry else 0


def compile_scan(chip: Chip, dtype: str, implementation: Any) -> Any:
    """Compiles forward and backward with every optional argument but the initial state.

    Args:
        chip: for which.
        dtype: of the sequences.
        implementation: options of the scan.

    Returns:
        The compiled program.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from caduceus_jax.kernels import selective_scan

    topology = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
    there = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def array(*shape: int, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=there)

    sequence = array(_BATCH, _LENGTH, _CHANNELS, dtype=jnp.dtype(dtype))
    maps = array(_BATCH, _LENGTH, _STATE, dtype=jnp.dtype(dtype))
    scanned = {
        "u": sequence,
        "delta": sequence,
        "A": array(_CHANNELS, _STATE),
        "B": maps,
        "C": maps,
        "D": array(_CHANNELS),
        "z": sequence,
        "delta_bias": array(_CHANNELS),
    }

    def both(scanned, cotangent):
        scan = lambda a: selective_scan(**a, implementation=implementation)  # noqa: E731
        y, pull_back = jax.vjp(scan, scanned)
        return y, pull_back(cotangent)

    return jax.jit(both).lower(scanned, sequence).compile()


def read_schedule(folder: pathlib.Path, kernel: str, patience: float = 30.0) -> Schedule:
    """The final schedule of a kernel among the compiler's dumps, which is removed.

    Args:
        folder: of the dumps.
        kernel: its name.
        patience: seconds to wait for a dump that is still being written.

    Raises:
        FileNotFoundError: there is none.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for file in folder.glob(f"*{kernel}*-final_bundles.txt"):
            text = file.read_text()
            # This is said of the last bundle: the file is whole.
            if "schedule-analysis" not in file.name and "exit bundle" in text:
                for dump in folder.glob(f"*{kernel}*"):
                    dump.unlink()
                return parse_schedule(text)
        time.sleep(0.2)
    raise FileNotFoundError(f"the compiler wrote no schedule of {kernel}")


def parse_schedule(text: str) -> Schedule:
    """Bundles by loop.

    A line is a bundle: its number, a label if it is a jump's target (LB is where a loop's body
    begins), `>` for each loop it is in, and its instructions in braces. Bundles of what follows a
    loop may stand within it, under a predicate.
    """
    bundles = re.findall(r"^ *(?:0x[0-9a-f]+|0) +([A-Z]{2})?: *(>*) *\{", text, re.MULTILINE)
    heads = [i for i, (label, depth) in enumerate(bundles) if label == "LB" and len(depth) > 1]
    loops = []
    for start, stop in zip(heads, [*heads[1:], len(bundles)], strict=True):
        end = max(i for i in range(start, stop) if len(bundles[i][1]) > 1)
        loops.append(end + 1 - start)
    inside = sum(len(depth) > 0 for _, depth in bundles)
    return Schedule(max(inside - sum(loops), 0), tuple(loops))


if __name__ == "__main__":
    sys.exit(main())
