"""Ahead-of-time compilation for an H200 on a machine that has none.

XLA needs the description of a GPU, not the GPU: with the plugins `jax-cuda13-plugin` and
`jax-cuda13-pjrt` of JAX's own version (pip install --no-deps), and no driver, whatever is lowered
for arrays of `mesh()` inside `compiling_for(mesh)` compiles down to the machine code of sm_90a.
"""

import contextlib
import importlib.util
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

# What XLA is told of the device.
_DESCRIPTION = """
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
# Without a GPU nothing can be tried out, so XLA must choose its matrix products by rule. A program
# with matrix products needs these in XLA_FLAGS before JAX has any backend.
FLAGS = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"


def installed(package: str) -> bool:
    """Whether a package is there; it is not imported."""
    return importlib.util.find_spec(package) is not None


def mesh(devices: int = 1) -> Mesh:
    """H200s that are not there, along one axis called `data`.

    JAX must not look for a driver: set `jax_platforms` to "cpu" before.

    Args:
        devices: how many; by default 1.

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
        topology_name="H200",
        target_config=_DESCRIPTION,
        topology=f"1x1x{devices}",
    )
    return Mesh(np.array(topology.devices), ("data",), axis_types=(AxisType.Auto,))


def compiling_for(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """The context in which Pallas kernels are lowered for the devices of a mesh.

    Since jax 0.11 Pallas asks the mesh what GPU it is for; before, there is nothing to say.
    """
    if hasattr(jax.sharding, "use_abstract_mesh"):
        return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    return contextlib.nullcontext()
