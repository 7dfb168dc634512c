"""Predicts, from counts, the least time that a GPU needs for each kernel of the scan.

A kernel takes no less than its instructions need to be issued, its special functions and float32
operations to be computed, and its bytes to be moved. These are bounds: latency is not in them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from caduceus_jax.kernels.ahead_of_time.devices import Gpu
from caduceus_jax.kernels.ahead_of_time.gpu import CONVOLUTION, Size
from caduceus_jax.kernels.ahead_of_time.machine_code import Cost
from caduceus_jax.kernels.gpu import chunk_parallel, layout, triton_scan
from caduceus_jax.kernels.scan_inputs import ScanInputs

# Shares of the published clock and bandwidth that large kernels are known to keep.
_CLOCK, _BANDWIDTH = 0.96, 0.9
# Per cycle and multiprocessor: threads for which an instruction is issued, and special functions.
_ISSUED, _SPECIAL = 128, 16
# What the kernels of `implementation="triton"` read and write, with every optional argument.
_ARRAYS = {
    "selective_scan_summaries": "u delta b a delta_bias states steps",
    "selective_scan_outputs": ("u delta b c a d_skip z delta_bias initial_states y states ungated"),
    "selective_scan_adjoints": (
        "u delta b c a z delta_bias initial_states grad_y checkpointed_states states"
    ),
    "selective_scan_gradients": (
        "u delta b c a d_skip z delta_bias checkpointed_states ungated grad_y adjoint grad_u "
        "grad_delta grad_z grad_b grad_c grad_a grad_initial_states grad_d_skip grad_delta_bias"
    ),
}


def seconds(cost: Cost, gpu: Gpu, size: Size, dtype: str) -> float:
    """Returns the least time that one kernel needs for one sequence.

    Args:
        cost: the kernel's cost.
        gpu: the device.
        size: sizes of the sequence.
        dtype: type of the sequence.
    """
    cycles = gpu.multiprocessors * gpu.clock * 1e9 * _CLOCK
    elements = math.prod(size[:2] if cost.name == CONVOLUTION else size)
    return max(
        elements * cost.instructions / (_ISSUED * cycles),
        elements * cost.special_functions / (_SPECIAL * cycles),
        elements * cost.float32 / (gpu.lanes * cycles),
        moved(cost.name, size, dtype) / (gpu.bandwidth * _BANDWIDTH),
    )


def moved(kernel: str, size: Size, dtype: str) -> int:
    """Returns the bytes that a kernel of `implementation="triton"` has to move.

    Each array is counted once: B and C, which every block of channels reads, are cached.

    Args:
        kernel: its name.
        size: sizes of the sequence.
        dtype: type of the sequence.
    """
    item = jnp.dtype(dtype).itemsize
    if kernel == CONVOLUTION:
        return 4 * size.length * size.channels * item  # x, its gradient and both results'

    def array(*shape: int, dtype: str = "float32") -> Any:
        """Returns the shape and the type of an array."""
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

    sequence = array(1, size.length, size.channels, dtype=dtype)
    maps, channels = array(1, size.length, size.state), array(1, size.channels)
    a = array(1, size.channels, size.state)
    inputs = ScanInputs(sequence, sequence, a, maps, maps, channels, sequence, channels, None)
    chunk = chunk_parallel.chunk_length(1, size.length, size.channels)
    plan = chunk_parallel.Plan(triton_scan, chunk, True, False, False)
    program = triton_scan.program_of(kernel.removeprefix("selective_scan_"), plan, inputs, True)
    kinds = {name: x.dtype for name, x in inputs._asdict().items() if x is not None}
    kinds["grad_y"] = sequence.dtype
    return sum(
        math.prod(program.shape(name)) * kinds.get(name, layout.dtype(name, inputs)).itemsize
        for name in _ARRAYS[kernel].split()
    )
