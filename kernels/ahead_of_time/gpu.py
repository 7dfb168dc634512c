"""Compiles the GPU kernels ahead of time for one GPU, on any machine, and counts what they cost.

    pip install --no-deps jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX triton jax-triton
    python -m caduceus_jax.kernels.ahead_of_time.gpu

JAX is the version of jax that is installed. No GPU and no driver is needed: XLA compiles for a
description of the device. Triton brings its assembler and disassembler; jax-triton is needed for
`implementation="triton"` only.

Prints a Markdown table for each implementation and dtype: registers, spilled bytes, and for the
loop over tokens the instructions issued, special-function instructions and shuffles for each state
element (a token, a channel, a state), as counted in the machine code; and the temporary memory of
forward and backward. For the convolution's gradients the element is a token and a channel. Then
what other sizes spill. Exits with 1 where a kernel of the first table spills.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from caduceus_jax.kernels import bidirectional_conv1d, selective_scan
from caduceus_jax.kernels.ahead_of_time import devices
from caduceus_jax.kernels.ahead_of_time.devices import GPUS, installed
from caduceus_jax.kernels.ahead_of_time.machine_code import Assembler, Cost
from caduceus_jax.kernels.options import for_platform

IMPLEMENTATIONS = ("triton", "pallas_triton")
CONVOLUTION = "causal_conv_gradients"
_HEAD = (
    "implementation",
    "dtype",
    "kernel",
    "registers",
    "spilled",
    "instructions",
    "MUFU",
    "SHFL",
)
# Other sizes than the first: they are looked at for spilled registers only.
_OTHER_SIZES = ((131_072, 512, 8), (131_072, 512, 32), (100_001, 400, 16), (100_001, 400, 8))


class Size(NamedTuple):
    """The sizes of one sequence."""

    length: int = 131_072
    channels: int = 512
    state: int = 16


SIZE = Size()


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables.

    Args:
        arguments: command-line arguments; `--gpu a100` compiles for another GPU than an H200.

    Returns:
        The exit status: 0, 1 where a kernel spills registers, 2 where something is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m caduceus_jax.kernels.ahead_of_time.gpu")
    parser.add_argument("--gpu", choices=GPUS, default="h200", help="compile for this GPU")
    parser.add_argument("--quick", action="store_true", help="compile the first size only")
    options = parser.parse_args(arguments)
    if missing := missing_packages():
        print(f"needs {' and '.join(missing)}: see the head of {__file__}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        assembler = Assembler(pathlib.Path(folder))
        jax.config.update("jax_platforms", "cpu")  # the plugin would look for a driver
        names = [n for n in IMPLEMENTATIONS if n != "triton" or installed("jax_triton")]
        print(f"| {' | '.join(_HEAD)} |\n|{' --- |' * len(_HEAD)}")
        summary, spilled = [], 0
        for name in names:
            for dtype in ("bfloat16", "float32"):
                costs, memory = count_scan(assembler, options.gpu, name, dtype)
                summary.append(_rows(name, dtype, costs, memory))
                of_convolution, memory = count_convolution(assembler, options.gpu, name, dtype)
                if of_convolution:
                    _rows(name, dtype, of_convolution, memory)
                spilled += sum(cost.spilled_bytes for cost in (*costs, *of_convolution))
        print("", *summary, "", sep="\n")
        for name in names if not options.quick else ():
            for sizes in _OTHER_SIZES:
                for dtype in ("bfloat16", "float32"):
                    costs, _ = count_scan(assembler, options.gpu, name, dtype, Size(*sizes))
                    found = sum(cost.spilled_bytes for cost in costs)
                    size = " x ".join(map(str, sizes))
                    print(f"{name}, {dtype}, {size}: {found} bytes spilled", flush=True)
    return int(spilled > 0)


def missing_packages() -> list[str]:
    """Returns what is not installed and needed to compile for a GPU."""
    return [name for name in ("jax_cuda13_plugin", "triton") if not installed(name)]


def count_scan(
    assembler: Assembler,
    gpu: str,
    implementation: str,
    dtype: str,
    size: Size = SIZE,
    *,
    gate: bool = True,
) -> tuple[list[Cost], int]:
    """Compiles a scan forward and backward, with every optional argument but the initial state.

    Args:
        assembler: reads the programs.
        gpu: name of the GPU, in `GPUS`.
        implementation: name of the implementation.
        dtype: type of the sequences.
        size: sizes of the sequence.
        gate: whether the scan is gated by z.

    Returns:
        The costs of its kernels, and its temporary memory in bytes.
    """
    options = for_platform(implementation, "gpu")
    memory = _compile(gpu, *_scan(options, jnp.dtype(dtype), size, gate))
    return [*assembler.costs(_elements(implementation), GPUS[gpu].architecture)], memory


def count_convolution(
    assembler: Assembler, gpu: str, implementation: str, dtype: str, size: Size = SIZE
) -> tuple[list[Cost], int]:
    """Compiles the gradients of a causal convolution of width 4 in both directions.

    Args:
        assembler: reads the programs.
        gpu: name of the GPU, in `GPUS`.
        implementation: name of the implementation of the scan beside it.
        dtype: type of the sequences.
        size: sizes of the sequence.

    Returns:
        The cost of its kernel, and its temporary memory in bytes; no cost where the convolution
        is XLA's.
    """
    options = for_platform(implementation, "gpu")
    if options.convolution is None:
        return [], 0
    memory = _compile(gpu, *_convolution(options, jnp.dtype(dtype), size))
    # 128 channels, four tokens per round.
    return [*assembler.costs({CONVOLUTION: 128 * 4}, GPUS[gpu].architecture)], memory


def _rows(implementation: str, dtype: str, costs: list[Cost], memory: int) -> str:
    """Prints rows of the table, and returns what all of them come to."""
    issued = {}
    for cost in costs:
        name = cost.name.removeprefix("selective_scan_")
        issued[name] = cost.instructions
        cells = (implementation, dtype, name, cost.registers, cost.spilled_bytes)
        rates = (cost.instructions, cost.special_functions, cost.shuffles)
        print(f"| {' | '.join(map(str, cells))} | {' | '.join(f'{x:.2f}' for x in rates)} |")
    sys.stdout.flush()
    if "outputs" not in issued:
        return ""
    forward = issued["summaries"] + issued["outputs"]
    backward = issued["adjoints"] + issued["gradients"]
    return (
        f"{implementation}, {dtype}: forward {forward:.2f} and backward {backward:.2f} "
        f"instructions per element, {memory / 2**30:.2f} GiB of temporary memory"
    )


def _elements(implementation: str) -> dict[str, int]:
    """Counts the state elements of one round of each kernel's loop."""
    if implementation == "triton":
        from caduceus_jax.kernels.gpu import triton_scan

        tiles = {name: tile[:2] for name, tile in triton_scan.TILES.items()}
    else:
        from caduceus_jax.kernels.gpu import pallas_scan

        tiles = {name: (16 * block, n) for name, (block, n) in pallas_scan.TILES.items()}
    return {f"selective_scan_{name}": size * tokens for name, (size, tokens) in tiles.items()}


def _compile(gpu: str, function: Callable[..., Any], arguments: Any) -> int:
    """Compiles it, and returns its temporary memory in bytes."""
    mesh = devices.mesh(gpu=gpu)
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), arguments
    )
    with devices.compiling_for(mesh):
        compiled = jax.jit(function).lower(arguments).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this version of XLA does not report its memory")
    return memory.temp_size_in_bytes


def _scan(options: Any, dtype: Any, size: Size, gate: bool) -> tuple[Callable[..., Any], Any]:
    """Returns the scan with its gradients, and its arguments."""
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
    if not gate:
        del arguments["z"]

    def both(arguments) -> tuple[jax.Array, Any]:
        """Runs the scan forward and backward."""
        scan = lambda a: selective_scan(**a, implementation=options)  # noqa: E731
        y, pull_back = jax.vjp(scan, arguments)
        return y, pull_back(y)

    return both, arguments


def _convolution(options: Any, dtype: Any, size: Size) -> tuple[Callable[..., Any], Any]:
    """Returns the gradients of the causal convolution in both directions, of width 4."""
    sequence = jax.ShapeDtypeStruct((1, size.length, size.channels), dtype)
    weight = jax.ShapeDtypeStruct((2, 4, size.channels), jnp.float32)
    bias = jax.ShapeDtypeStruct((2, size.channels), jnp.float32)

    def gradients(arguments) -> Any:
        """Runs the convolution's backward pass."""
        arguments, grads = arguments
        convolve = lambda *a: bidirectional_conv1d(*a, implementation=options)  # noqa: E731
        return jax.vjp(convolve, *arguments)[1](grads)

    return gradients, ((sequence, weight, bias), (sequence, sequence))


if __name__ == "__main__":
    sys.exit(main())
