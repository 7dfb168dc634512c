"""Reads NVIDIA's machine code of a kernel: registers, spilled bytes, instructions of its loop."""

import collections
import os
import pathlib
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

_WARP = 32
# What the float32 units of a multiprocessor execute. Other arithmetic has units of its own.
_FLOAT32 = ("FFMA", "FMUL", "FADD", "FFMA2", "FMUL2", "FADD2")


class Cost(NamedTuple):
    """Holds what one kernel costs; everything from `instructions` on is per element."""

    name: str
    registers: int
    spilled_bytes: int
    instructions: float
    special_functions: float
    shuffles: float
    float32: float


class Assembler:
    """Keeps every program that XLA or jax-triton makes, and reads its machine code.

    It sets variables of the environment, and has to be made before JAX has any backend.

    Args:
        folder: an empty folder for the programs.
    """

    def __init__(self, folder: pathlib.Path):
        import triton  # pyright: ignore[reportMissingImports]

        self.tools = pathlib.Path(str(triton.__file__)).parent / "backends/nvidia/bin"
        self.programs, self.ptxas = folder / "programs", folder / "cuda/bin/ptxas"
        self.programs.mkdir()
        self.ptxas.parent.mkdir(parents=True)
        # Triton brings a second assembler for what the first does not know.
        self.ptxas.write_text(
            f'#!/bin/sh\n[ -f "$1" ] && cp "$1" "$(mktemp {self.programs}/XXXXXXXX.ptx)"\n'
            f'said=$({self.tools}/ptxas "$@" 2>&1) || exec {self.tools}/ptxas-blackwell "$@"\n'
            'echo "$said"\n'
        )
        self.ptxas.chmod(self.ptxas.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{self.ptxas.parent}:{os.environ['PATH']}"
        os.environ["JAX_TRITON_DUMP_DIR"] = str(self.programs)
        os.environ["XLA_FLAGS"] = " ".join(
            [
                os.environ.get("XLA_FLAGS", ""),
                "--xla_gpu_enable_libnvptxcompiler=false --xla_gpu_enable_libnvjitlink=false",
                f"--xla_gpu_cuda_data_dir={folder / 'cuda'}",
            ]
        )
        # A program that was compiled before would not be compiled again.
        jax.config.update("jax_enable_compilation_cache", False)

    def costs(self, elements: Mapping[str, int], architecture: str) -> Iterator[Cost]:
        """Reads the cost of each of these kernels among the programs, which are removed.

        Args:
            elements: elements per round of each kernel's loop, by the kernel's name.
            architecture: the architecture's name for assemblers, such as "sm_90a".
        """
        found = {}
        for program in self.programs.rglob("*.ptx"):
            name = re.search(r"\.entry (\w+)", program.read_text())
            if name and name[1] in elements:
                found[name[1]] = program.rename(self.programs.parent / f"{name[1]}.ptx")
        for name, program in sorted(found.items()):
            binary = program.with_suffix(".cubin")
            said = _run(self.ptxas, program, "-v", f"-arch={architecture}", "-o", binary)
            loop = largest_loop(_run(self.tools / "nvdisasm", "-c", binary))
            kinds = collections.Counter(operation(instruction) for instruction in loop)
            per_thread = elements[name] / _WARP
            yield Cost(
                name,
                int(re.findall(r"Used (\d+) registers", said)[0]),
                int(re.findall(r"(\d+) bytes spill stores", said)[0]),
                len(loop) / per_thread,
                kinds["MUFU"] / per_thread,
                kinds["SHFL"] / per_thread,
                sum(kinds[kind] for kind in _FLOAT32) / per_thread,
            )
        self.forget()

    def forget(self) -> None:
        """Removes the programs."""
        for file in self.programs.rglob("*"):
            if file.is_file():
                file.unlink()


def largest_loop(disassembly: str) -> list[str]:
    """Returns the instructions between the backward branch that spans the most and its target."""
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


def operation(instruction: str) -> str:
    """Returns what an instruction does: `@!P0 MUFU.EX2 R1, R2` is a MUFU."""
    return re.sub(r"^@!?U?P\w+ ", "", instruction).split()[0].split(".")[0]


def _run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    done.check_returncode()
    return done.stdout + done.stderr
