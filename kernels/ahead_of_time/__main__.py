"""Compiles the kernels for every GPU and TPU they are made for, on any machine, in one table.

    pip install --no-deps jax-cuda13-plugin==JAX jax-cuda13-pjrt==JAX triton jax-triton
    pip install libtpu
    python -m caduceus_jax.kernels.ahead_of_time

JAX is the version of jax that is installed. No accelerator and no driver is needed. Of GPUs the
table has the registers and the spilled bytes of the worst kernel, instructions in the loop over
tokens for each state element (a token, a channel, a state; without the state for the convolution),
and the least milliseconds that they come to for one sequence; of TPUs the instruction bundles of
the loops over tokens for each token and 128 channels, and what the whole schedule comes to on one
core. GPUs of one compute capability run the same machine code.

Exits with 1 where a kernel does not compile that should, 2 where a compiler is missing.
"""

import argparse
import importlib.metadata
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from caduceus_jax.kernels.ahead_of_time import gpu, predict, schedule, tpu
from caduceus_jax.kernels.ahead_of_time.devices import GPUS, installed
from caduceus_jax.kernels.ahead_of_time.machine_code import Assembler, Cost

_KERNELS = ("summaries", "outputs", "adjoints", "gradients")
_GPU_HEAD = (
    *("GPU", "compute capability", "scan", " / ".join(_KERNELS), "registers", "spilled"),
    *("forward, ms", "backward, ms", "convolution backward", "ms"),
)
_TPU_HEAD = ("TPU", "kernel", "bundles", "ms")
_PACKAGES = ("jax", "jax-triton", "triton", "jax-cuda13-plugin", "libtpu")


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables.

    Args:
        arguments: arguments of the command line.

    Returns:
        The exit status: 0, 1 where a kernel does not compile, 2 where a compiler is missing.
    """
    parser = argparse.ArgumentParser(
        prog="python -m caduceus_jax.kernels.ahead_of_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chips = [chip.name for chip in tpu.CHIPS]
    parser.add_argument(
        "--devices", nargs="+", choices=[*GPUS, *chips], default=[*GPUS, *chips], metavar="DEVICE"
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args(arguments)
    gpus = [name for name in GPUS if name in options.devices]
    tpus = [chip for chip in tpu.CHIPS if chip.name in options.devices]
    missing = [*(gpu.missing_packages() if gpus else []), *(["libtpu"] if tpus else [])]
    if missing := [name for name in missing if not installed(name)]:
        print(f"needs {' and '.join(missing)}: see the head of {__file__}", file=sys.stderr)
        return 2
    print(f"{options.dtype}, {' x '.join(map(str, gpu.SIZE))}; {_versions()}")
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        assembler = Assembler(pathlib.Path(folder)) if gpus else None
        schedule.prepare(folder)
        jax.config.update("jax_platforms", "cpu")  # the plugin would look for a driver
        if assembler is not None:
            _print_head(_GPU_HEAD)
            failed += sum(_print_gpus(assembler, gpus, options.dtype))
        if tpus:
            _print_head(_TPU_HEAD)
            failed += sum(_print_tpu(chip, pathlib.Path(folder), options.dtype) for chip in tpus)
    return int(failed > 0)


def _print_gpus(assembler: Assembler, gpus: list[str], dtype: str) -> Iterator[bool]:
    """Prints rows of the GPUs; whether a kernel does not compile that should."""
    for capability, names in itertools.groupby(gpus, lambda name: GPUS[name].capability):
        alike = list(names)
        for implementation in gpu.IMPLEMENTATIONS:
            try:
                costs, _ = gpu.count_scan(assembler, alike[0], implementation, dtype)
                convolution = gpu.count_convolution(assembler, alike[0], implementation, dtype)[0]
            except NotImplementedError as error:  # which is what it is to say
                _print_row(", ".join(alike), capability / 10, implementation, str(error))
                continue
            except Exception as error:
                assembler.forget()
                _print_row(", ".join(alike), capability / 10, implementation, _one_line(error))
                yield True
                continue
            for name in alike:
                cells = _gpu_cells({c.name: c for c in (*costs, *convolution)}, name, dtype)
                _print_row(name, capability / 10, implementation, *cells)
            yield False


def _gpu_cells(costs: dict[str, Cost], name: str, dtype: str) -> Iterator[str]:
    """Makes the cells of the table for one implementation on one GPU."""
    scan = [costs[f"selective_scan_{kernel}"] for kernel in _KERNELS]
    convolution = costs.get(gpu.CONVOLUTION)
    ms = [1e3 * predict.seconds(c, GPUS[name], gpu.SIZE, dtype) for c in scan]
    yield " / ".join(f"{cost.instructions:.2f}" for cost in scan)
    yield str(max(cost.registers for cost in scan))
    yield str(max(cost.spilled_bytes for cost in costs.values()))
    yield f"{ms[0] + ms[1]:.2f}"
    yield f"{ms[2] + ms[3]:.2f}"
    if convolution is None:  # it is XLA's
        yield from ("", "")
        return
    yield f"{convolution.instructions:.2f}"
    yield f"{1e3 * predict.seconds(convolution, GPUS[name], gpu.SIZE, dtype):.2f}"


def _print_tpu(chip: tpu.Chip, folder: pathlib.Path, dtype: str) -> bool:
    """Prints the rows of a TPU; whether a kernel does not compile."""
    try:
        for kernel in tpu.kernels(chip, folder, dtype):
            _print_row(chip.name, kernel.name, f"{kernel.inner:.1f}", f"{kernel.ms:.2f}")
    except Exception as error:
        _print_row(chip.name, _one_line(error))
        return True
    return False


def _print_head(names: tuple[str, ...]) -> None:
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")


def _print_row(*cells: Any) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].replace("|", "/")


def _versions() -> str:
    here = (name for name in _PACKAGES if installed(name.replace("-", "_")))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in here)


if __name__ == "__main__":
    sys.exit(main())
