"""Compiles the GPU kernels ahead of time for an H200, on any machine, and counts what they cost.

    pip install --no-deps jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX triton jax-triton
    python -m caduceus_jax.kernels.ahead_of_time.gpu

JAX is the version of jax that is installed. No GPU and no driver is needed: XLA compiles for a
description of the device. Triton brings its assembler and disassembler; jax-triton is needed for
`implementation="triton"` only.

Prints a Markdown table for each implementation and dtype: registers, spilled bytes, and for the
loop over tokens the instructions issued, special-function instructions and shuffles for each state
element (a token, a channel, a state), as counted in the machine code; and the temporary memory of
forward and backward. Of the convolution's gradients the element is a token and a channel. Then
what other sizes spill. Exits with 1 where a kernel of the first table spills.
"""

import collections
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels import selective_scan
from caduceus_jax.kernels.ahead_of_time import devices
from caduceus_jax.kernels.ahead_of_time.devices import installed
from caduceus_jax.kernels.options import for_platform

_ARCHITECTURE = "sm_90a"
_WARP = 32
_COLUMNS = (
    *("implementation", "dtype", "kernel", "registers", "spilled"),
    *("instructions", "MUFU", "SHFL"),
)
# Other sizes than the first: they are looked at for spilled registers only.
_OTHER_SIZES = ((131_072, 512, 8), (131_072, 512, 32), (100_001, 400, 16), (100_001, 400, 8))


class Size(NamedTuple):
    """Of one sequence."""

    length: int = 131_072
    channels: int = 512
    state: int = 16


class Cost(NamedTuple):
    """Of one kernel; the last three for each element."""

    name: str
    registers: int
    spilled_bytes: int
    instructions: float
    special_functions: float
    shuffles: float


def main() -> int:
    """Prints the tables.

    Returns:
        The exit status: 0, 1 where a kernel spills registers, 2 where something is missing.
    """
    missing = [name for name in ("jax_cuda13_plugin", "triton") if not installed(name)]
    if missing:
        print(f"needs {' and '.join(missing)}: see the head of {__file__}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        assembler = Assembler(pathlib.Path(folder))
        jax.config.update("jax_platforms", "cpu")  # the plugin would look for a driver
        names = ("pallas_triton", *(["triton"] if installed("jax_triton") else []))
        implementations = {name: for_platform(name, "gpu") for name in names}
        print(
            "| implementation | dtype | kernel | registers | spilled | instructions | MUFU | SHFL |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        summary, spilled = [], 0
        for name, options in implementations.items():
            for dtype in (jnp.bfloat16, jnp.float32):
                memory = _compile(_scan(options, dtype, Size()))
                costs = [*assembler.costs(_elements(name))]
                spilled += sum(cost.spilled_bytes for cost in costs)
                summary.append(_rows(name, dtype, costs, memory))
        for dtype in (jnp.bfloat16, jnp.float32):
            memory = _compile(_convolution(dtype, Size()))
            costs = [*assembler.costs({"causal_conv_gradients": 128 * 4})]
            spilled += sum(cost.spilled_bytes for cost in costs)
            summary.append(_rows("causal_conv1d", dtype, costs, memory))
        print("", *summary, "", sep="\n")
        for name, options in implementations.items():
            for length, channels, state in _OTHER_SIZES:
                for dtype in (jnp.bfloat16, jnp.float32):
                    _compile(_scan(options, dtype, Size(length, channels, state)))
                    found = [cost.spilled_bytes for cost in assembler.costs(_elements(name))]
                    print(
                        f"{name}, {jnp.dtype(dtype).name}, {length} x {channels} x {state}: "
                        f"{sum(found)} bytes spilled by {len(found)} kernels",
                        flush=True,
                    )
    return int(spilled > 0)


def _rows(implementation: str, dtype: Any, costs: list[Cost], memory: int) -> str:
    """Prints rows of the table; what all of them come to."""
    dtype = jnp.dtype(dtype).name
    issued = {}
    for cost in costs:
        name = cost.name.removeprefix("selective_scan_")
        issued[name] = cost.instructions
        rates = " | ".join(f"{x:.2f}" for x in cost[3:])
        print(
            f"| {implementation} | {dtype} | {name} | {cost.registers} | {cost.spilled_bytes} "
            f"| {rates} |",
            flush=True,
        )
    passes = ""
    if "outputs" in issued:
        forward = issued["summaries"] + issued["outputs"]
        backward = issued["adjoints"] + issued["gradients"]
        passes = f"forward {forward:.2f} and backward {backward:.2f} instructions an element, "
    return f"{implementation}, {dtype}: {passes}{memory / 2**30:.2f} GiB of temporary memory"


def _elements(implementation: str) -> dict[str, int]:
    """State elements of one round of each kernel's loop."""
    if implementation == "triton":
        from caduceus_jax.kernels.gpu import triton_scan

        tiles = {name: tile[:2] for name, tile in triton_scan.TILES.items()}
    else:
        from caduceus_jax.kernels.gpu import pallas_scan

        tiles = {name: (16 * block, n) for name, (block, n) in pallas_scan.TILES.items()}
    return {f"selective_scan_{name}": size * tokens for name, (size, tokens) in tiles.items()}


def _compile(function_and_arguments: tuple[Callable[..., Any], Any]) -> int:
    """Its temporary memory in bytes."""
    function, arguments = function_and_arguments
    mesh = devices.mesh()
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments
    )
    with devices.compiling_for(mesh):
        compiled = jax.jit(function).lower(arguments).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this version of XLA says nothing of memory")
    return memory.temp_size_in_bytes


def _scan(options: Any, dtype: Any, size: Size) -> tuple[Callable[..., Any], Any]:
    """Forward and backward with every optional argument."""
    sequence = jax.ShapeDtypeStruct((1, size.length, size.channels), dtype)
    maps = jax.ShapeDtypeStruct((1, size.length, size.state), dtype)
    per_channel = jax.ShapeDtypeStruct((size.channels,), jnp.float32)
    arguments = {
        "u": sequence,
        "delta": sequence,
        "A": jax.ShapeDtypeStruct((size.channels, size.state), jnp.float32),
        "B": maps,
        "C": maps,
        "D": per_channel,
        "z": sequence,
        "delta_bias": per_channel,
    }

    def both(arguments):
        scan = lambda a: selective_scan(**a, implementation=options)  # noqa: E731
        y, pull_back = jax.vjp(scan, arguments)
        return y, pull_back(y)

    return both, arguments


def _convolution(dtype: Any, size: Size) -> tuple[Callable[..., Any], Any]:
    """The fused gradients of the causal convolution, of width 4."""
    from caduceus_jax.kernels.gpu import pallas_conv

    sequence = jax.ShapeDtypeStruct((1, size.length, size.channels), dtype)
    weight = jax.ShapeDtypeStruct((1, 4, size.channels), jnp.float32)
    bias = jax.ShapeDtypeStruct((1, size.channels), jnp.float32)

    def gradients(arguments):
        return pallas_conv.gradients(*arguments, reverse=False, silu=True, interpret=False)

    return gradients, (sequence, weight, bias, sequence)


class Assembler:
    """Keeps every program that XLA or jax-triton makes, and reads its machine code."""

    def __init__(self, folder: pathlib.Path):
        """Has to come before JAX has any backend."""
        import triton  # pyright: ignore[reportMissingImports]

        self.tools = pathlib.Path(str(triton.__file__)).parent / "backends/nvidia/bin"
        self.programs, wrapper = folder / "programs", folder / "cuda/bin/ptxas"
        self.programs.mkdir()
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(
            f'#!/bin/sh\ncp "$1" "$(mktemp {self.programs}/XXXXXXXX.ptx)"\n'
            f'{self.tools / "ptxas"} "$@"\n'
        )
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"
        os.environ["JAX_TRITON_DUMP_DIR"] = str(self.programs)
        os.environ["XLA_FLAGS"] = " ".join(
            [
                os.environ.get("XLA_FLAGS", ""),
                "--xla_gpu_enable_libnvptxcompiler=false --xla_gpu_enable_libnvjitlink=false",
                f"--xla_gpu_cuda_data_dir={folder / 'cuda'}",
            ]
        )

    def costs(self, elements: dict[str, int]) -> Iterator[Cost]:
        """The cost of each of these kernels among the programs, which are removed.

        Args:
            elements: in one round of the kernel's loop, by the kernel's name.
        """
        found = {}
        for program in self.programs.rglob("*.ptx"):
            name = re.search(r"\.entry (\w+)", program.read_text())
            if name and name[1] in elements:
                found[name[1]] = program
        for name, program in sorted(found.items()):
            binary = program.with_suffix(".cubin")
            said = _run(self.tools / "ptxas", "-v", f"-arch={_ARCHITECTURE}", program, "-o", binary)
            loop = _largest_loop(_run(self.tools / "nvdisasm", "-c", binary))
            kinds = collections.Counter(_operation(instruction) for instruction in loop)
            of_a_thread = elements[name] / _WARP
            yield Cost(
                name,
                int(re.findall(r"Used (\d+) registers", said)[0]),
                int(re.findall(r"(\d+) bytes spill stores", said)[0]),
                len(loop) / of_a_thread,
                kinds["MUFU"] / of_a_thread,
                kinds["SHFL"] / of_a_thread,
            )
        for file in self.programs.rglob("*"):
            if file.is_file():
                file.unlink()


def _run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    done.check_returncode()
    return done.stdout + done.stderr


def _largest_loop(disassembly: str) -> list[str]:
    """The instructions between the backward branch that spans the most and where it goes."""
    instructions, labels = [], {}
    for line in disassembly.splitlines():
        if label := re.match(r"(\.L_x?_?\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    loops = [(0, 0)]
    for i, instruction in enumerate(instructions):
        branch = re.search(r"BRA\S* .*?(\.L_x?_?\d+)", instruction)
        if branch and labels.get(branch[1], i + 1) <= i:
            loops.append((labels[branch[1]], i + 1))
    start, end = max(loops, key=lambda loop: loop[1] - loop[0])
    return instructions[start:end]


def _operation(instruction: str) -> str:
    """`@!P0 MUFU.EX2 R1, R2` is a MUFU."""
    return re.sub(r"^@!?U?P\w+ ", "", instruction).split()[0].split(".")[0]


if __name__ == "__main__":
    sys.exit(main())
