"""Makes every CPU core a device."""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import AxisType

from caduceus_jax.kernels.meshes import CHANNELS
from caduceus_jax.kernels.portable.blocks import LOOPS_ARE_FUNCTIONS

_COUNT_FLAG = "xla_force_host_platform_device_count"
_FLAGS = {
    # A core that is busy with other programs is late where devices add up their gradients, and XLA
    # ends the whole process after it has waited for 40 seconds.
    "--xla_cpu_collective_call_terminate_timeout_seconds": 3600,
    # By default XLA uses half of the 512 bits of a vector, where a CPU has them.
    "--xla_cpu_prefer_vector_width": 512,
    # A loop over at most 8 MiB becomes one function. Otherwise each token of a scan is six, and two
    # threads pass them to and fro.
    "--xla_backend_extra_options": f"{LOOPS_ARE_FUNCTIONS}=8388608",
}


def use_cores(most: int | None = None) -> None:
    """Makes each CPU core a device of its own, so that a batch spreads over all of them.

    XLA runs a recurrence on one core, however many there are. This changes nothing on
    accelerators, nor where the devices have been chosen already: by a flag in XLA_FLAGS, or
    because JAX has begun to compute.

    Args:
        most: largest useful number, such as the batch size: the largest number of cores that
            divides it is used. By default all cores.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    added = (f"{name}={value}" for name, value in _FLAGS.items() if name not in flags)
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()
    if _COUNT_FLAG in flags:
        return
    count = _cores()
    while most is not None and most % count:
        count -= 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun to compute
        pass


def idle_cores() -> int:
    """Counts CPU cores without a device; 0 where the number of devices was chosen."""
    count: int = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    chosen = count != -1 or _COUNT_FLAG in os.environ.get("XLA_FLAGS", "")
    return 0 if chosen or jax.default_backend() != "cpu" else _cores() - 1


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def sharing_sequences() -> AbstractContextManager[Any]:
    """Lets all CPU devices work on each sequence, for what is compiled within the context.

    The scan and the convolution are split by channels, and XLA splits what is around them. It
    changes nothing where there is one device, nor on accelerators.

    examples:
      use_cores()
      with sharing_sequences():
          logits = jax.jit(lambda model, ids: model(ids).logits)(model, ids)
    """
    devices = jax.local_devices()
    if len(devices) == 1 or devices[0].platform != "cpu":
        return contextlib.nullcontext()
    return jax.set_mesh(
        jax.make_mesh((len(devices),), (CHANNELS,), (AxisType.Auto,), devices=devices)
    )
