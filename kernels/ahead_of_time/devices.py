"""Ahead-of-time compilation for NVIDIA GPUs on a machine that has none.

XLA needs the description of a GPU, not the GPU: with the plugins `jax-cuda13-plugin` and
`jax-cuda13-pjrt` of JAX's own version (pip install --no-deps), and no driver, whatever is lowered
for arrays of `mesh()` inside `compiling_for(mesh)` compiles down to machine code.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from caduceus_jax.kernels.gpu import target

# Without a GPU nothing can be tried out, so XLA must choose its matrix products by rule. A program
# with matrix products needs these in XLA_FLAGS before JAX has any backend.
FLAGS = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"


class Gpu(NamedTuple):
    """A GPU to compile for, as its maker publishes it."""

    kind: str  # as JAX names it
    capability: int  # compute capability, 90 for 9.0
    multiprocessors: int
    clock: float  # the highest, in GHz
    memory: int  # bytes
    bandwidth: float  # bytes per second
    cache: int  # bytes of second-level cache
    shared: int  # bytes of shared memory of a multiprocessor
    threads: int = 2048  # of a multiprocessor, at most
    products: float = 0.0  # dense operations of bfloat16 matrix products per second

    @property
    def lanes(self) -> int:
        """Float32 operations that a multiprocessor begins per cycle."""
        return target.float32_lanes(self.capability)

    @property
    def architecture(self) -> str:
        """The name that assemblers have for it."""
        return f"sm_{self.capability}{'a' if self.capability >= 90 else ''}"


_KIB, _MIB, _GIB = 2**10, 2**20, 2**30
# https://www.nvidia.com/en-us/data-center, and the appendix on compute capabilities of the CUDA
# programming guide. A T4 has no matrix units for bfloat16: its figure is that of float16. Of one
# compute capability the first is one that Pallas knows by name.
GPUS = {
    "t4": Gpu("Tesla T4", 75, 40, 1.59, 16 * _GIB, 320e9, 4 * _MIB, 64 * _KIB, 1024, 65e12),
    "a100": Gpu(
        *("NVIDIA A100-SXM4-80GB", 80, 108, 1.41, 80 * _GIB, 2039e9, 40 * _MIB, 164 * _KIB),
        products=312e12,
    ),
    "a10": Gpu("NVIDIA A10", 86, 72, 1.695, 24 * _GIB, 600e9, 6 * _MIB, 100 * _KIB, 1536, 125e12),
    "rtx3090": Gpu(
        *("NVIDIA GeForce RTX 3090", 86, 82, 1.695, 24 * _GIB, 936e9, 6 * _MIB, 100 * _KIB),
        *(1536, 71e12),
    ),
    "l4": Gpu("NVIDIA L4", 89, 58, 2.04, 24 * _GIB, 300e9, 48 * _MIB, 100 * _KIB, 1536, 121e12),
    "rtx4090": Gpu(
        *("NVIDIA GeForce RTX 4090", 89, 128, 2.52, 24 * _GIB, 1008e9, 72 * _MIB, 100 * _KIB),
        *(1536, 165e12),
    ),
    "h100": Gpu(
        *("NVIDIA H100 80GB HBM3", 90, 132, 1.98, 80 * _GIB, 3350e9, 50 * _MIB, 228 * _KIB),
        products=989e12,
    ),
    "h200": Gpu(
        *("NVIDIA H200", 90, 132, 1.98, 150_754_820_096, 4800e9, 50 * _MIB, 228 * _KIB),
        products=989e12,
    ),
    "b200": Gpu(
        *("NVIDIA B200", 100, 148, 1.965, 180 * _GIB, 8000e9, 126 * _MIB, 228 * _KIB),
        products=2250e12,
    ),
    "rtxpro6000": Gpu(
        *("NVIDIA RTX PRO 6000", 120, 188, 2.6, 96 * _GIB, 1792e9, 128 * _MIB, 100 * _KIB),
        *(1536, 500e12),
    ),
    "rtx5090": Gpu(
        *("NVIDIA GeForce RTX 5090", 120, 170, 2.41, 32 * _GIB, 1792e9, 96 * _MIB, 100 * _KIB),
        *(1536, 210e12),
    ),
}


def installed(package: str) -> bool:
    """Tells whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None


def mesh(devices: int = 1, gpu: str = "h200", hosts: int = 1) -> Mesh:
    """Describes GPUs that are not there, along one axis called `data`.

    JAX must not look for a driver: set `jax_platforms` to "cpu" before.

    Args:
        devices: number of devices per host.
        gpu: which, by its name in `GPUS`.
        hosts: number of hosts.

    Returns:
        A mesh to place abstract arrays on.

    Raises:
        ModuleNotFoundError: the plugin is not installed.
    """
    if not installed("jax_cuda13_plugin"):
        raise ModuleNotFoundError("No module named 'jax_cuda13_plugin'", name="jax_cuda13_plugin")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=gpu.upper(),
        target_config=_description(GPUS[gpu]),
        topology=f"1x{hosts}x{devices}",
    )
    return Mesh(np.array(topology.devices), ("data",), axis_types=(AxisType.Auto,))


@contextlib.contextmanager
def compiling_for(mesh: Mesh) -> Iterator[None]:
    """Opens the context in which kernels are lowered for the GPUs of a mesh.

    Since jax 0.11 Pallas asks the mesh what GPU it is for; before, there is nothing to say.
    """
    with contextlib.ExitStack() as stack:
        if mesh.devices.flat[0].platform == "gpu":
            capability = target.capability_of(mesh.devices.flat[0])
            stack.enter_context(target.compiling_for(capability))
        if hasattr(jax.sharding, "use_abstract_mesh"):
            stack.enter_context(jax.sharding.use_abstract_mesh(mesh.abstract_mesh))
        yield


def _description(gpu: Gpu) -> str:
    """Returns the description of a device that XLA reads."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {gpu.shared}
  threads_per_core_limit: {gpu.threads} core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth:.0f} l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {gpu.memory} shared_memory_per_block_optin: {gpu.shared - 1024}
  cuda_compute_capability {{ major: {gpu.capability // 10} minor: {gpu.capability % 10} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{gpu.kind}"
"""
