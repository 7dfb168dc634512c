"""Which devices a command works on."""

import os

import jax


def use_cores(most: int | None = None) -> None:
    """Makes each CPU core a device of its own, so that a batch spreads over all of them.

    XLA walks through a recurrence on one core, whatever their number. This changes nothing on
    accelerators, and nothing where the devices have been chosen already: by a flag in XLA_FLAGS,
    or because JAX has begun to compute.

    Args:
        most: largest useful number, such as the batch size: the most cores that divide it are
            used. By default all cores.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = cores or 1
    while most is not None and most % count:
        count -= 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun to compute
        pass
