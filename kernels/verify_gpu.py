"""Compiles the GPU kernels ahead of time for an H200, on any machine, and counts what they cost.

    pip install --no-deps jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX triton
    python -m caduceus_jax.kernels.verify_gpu

JAX is the version of jax that is installed. No GPU and no driver is needed: XLA compiles for a
description of the device. Triton is there for its assembler and disassembler only.

Prints a Markdown table: registers, spilled bytes, and for the loop over tokens the instructions
issued, special-function instructions and shuffles for each state element (a token, a channel, a
state), as counted in the machine code; and the temporary memory of forward and backward. Exits
with 1 where a kernel spills.
"""

import collections
import importlib.util
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

# What XLA is told of the device.
_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 150754820096 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""
_ARCHITECTURE = "sm_90a"
_BATCH, _LENGTH, _CHANNELS, _STATE = 1, 131_072, 512, 16
_WARP = 32


class Cost(NamedTuple):
    """Of one kernel; the last three for each state element."""

    name: str
    registers: int
    spilled_bytes: int
    instructions: float
    special_functions: float
    shuffles: float


def main() -> int:
    """Prints the table.

    Returns:
        The exit status: 0, 1 where a kernel spills registers, 2 where something is missing.
    """
    missing = [name for name in ("jax_cuda13_plugin", "triton") if not _installed(name)]
    if missing:
        print(f"needs {' and '.join(missing)}: see the head of {__file__}", file=sys.stderr)
        return 2
    tools = pathlib.Path(_find("triton")) / "backends/nvidia/bin"
    spills = False
    with tempfile.TemporaryDirectory() as folder:
        programs = _watch_assembler(pathlib.Path(folder), tools / "ptxas")
        print("| dtype | kernel | registers | spilled | instructions | MUFU | SHFL |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        memory = {}
        for dtype in ("bfloat16", "float32"):
            memory[dtype] = _compile(dtype)
            for cost in _costs(programs, tools):
                name = cost.name.removeprefix("selective_scan_")
                rates = " | ".join(f"{x:.2f}" for x in cost[3:])
                print(f"| {dtype} | {name} | {cost.registers} | {cost.spilled_bytes} | {rates} |")
                spills |= cost.spilled_bytes > 0
    for dtype, size in memory.items():
        print(f"\n{dtype}: {size / 2**30:.2f} GiB of temporary memory, forward and backward")
    return int(spills)


def _find(package: str) -> str:
    spec = importlib.util.find_spec(package)
    return "" if spec is None or spec.origin is None else str(pathlib.Path(spec.origin).parent)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _watch_assembler(folder: pathlib.Path, assembler: pathlib.Path) -> pathlib.Path:
    """Makes XLA assemble through a script that keeps each program; before JAX has any backend."""
    programs, wrapper = folder / "programs", folder / "cuda/bin/ptxas"
    programs.mkdir()
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(
        f'#!/bin/sh\ncp "$1" "$(mktemp {programs}/XXXXXXXX.ptx)"\n{assembler} "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_gpu_enable_libnvptxcompiler=false --xla_gpu_enable_libnvjitlink=false",
            f"--xla_gpu_cuda_data_dir={folder / 'cuda'}",
        ]
    )
    return programs


def _compile(dtype: str) -> int:
    """Forward and backward with every optional argument; its temporary memory in bytes."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from caduceus_jax.kernels import PallasTriton, selective_scan

    jax.config.update("jax_platforms", "cpu")  # the plugin would look for a driver
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="H200", target_config=_H200, topology="1x1x1"
    )
    mesh = Mesh(np.array(topology.devices), ("x",), axis_types=(AxisType.Auto,))
    there = NamedSharding(mesh, PartitionSpec())

    def array(*shape: int, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=there)

    sequence = array(_BATCH, _LENGTH, _CHANNELS, dtype=jnp.dtype(dtype))
    maps = array(_BATCH, _LENGTH, _STATE, dtype=jnp.dtype(dtype))
    arguments = {
        "u": sequence,
        "delta": sequence,
        "A": array(_CHANNELS, _STATE),
        "B": maps,
        "C": maps,
        "D": array(_CHANNELS),
        "z": sequence,
        "delta_bias": array(_CHANNELS),
    }

    def both(arguments):
        scan = lambda a: selective_scan(**a, implementation=PallasTriton(interpret=False))  # noqa: E731
        y, pull_back = jax.vjp(scan, arguments)
        return y, pull_back(y)

    # Since jax 0.11 Pallas asks the mesh what GPU it is for.
    if hasattr(jax.sharding, "use_abstract_mesh"):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            compiled = jax.jit(both).lower(arguments).compile()
    else:
        compiled = jax.jit(both).lower(arguments).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this version of XLA says nothing of memory")
    return memory.temp_size_in_bytes


def _costs(programs: pathlib.Path, tools: pathlib.Path) -> Iterator[Cost]:
    """The cost of each kernel among the programs, which are removed."""
    from caduceus_jax.kernels import pallas_triton

    found = {}
    for program in programs.glob("*.ptx"):
        name = re.search(r"\.entry (selective_scan_\w+)", program.read_text())
        if name:
            found[name[1]] = program
    tiles = pallas_triton.tiles()
    for name, program in sorted(found.items()):
        binary = program.with_suffix(".cubin")
        said = _run(tools / "ptxas", "-v", f"-arch={_ARCHITECTURE}", program, "-o", binary)
        loop = _largest_loop(_run(tools / "nvdisasm", "-c", binary))
        kinds = collections.Counter(_operation(instruction) for instruction in loop)
        channels, tokens = tiles[name.removeprefix("selective_scan_")]
        elements = channels * tokens * _STATE / _WARP  # of a thread, in one round of the loop
        yield Cost(
            name,
            int(re.findall(r"Used (\d+) registers", said)[0]),
            int(re.findall(r"(\d+) bytes spill stores", said)[0]),
            len(loop) / elements,
            kinds["MUFU"] / elements,
            kinds["SHFL"] / elements,
        )
    for file in programs.iterdir():
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
