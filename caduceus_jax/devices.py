"""Which devices a command works on."""

import os

import jax

# A core that other programs keep busy arrives late where devices add up their gradients. XLA ends
# the whole process after 40 seconds of that.
_PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds"
_PATIENCE_SECONDS = 3600


def use_cores(most: int | None = None) -> None:
    """Makes each CPU core a device of its own, so that a batch spreads over all of them.

    XLA walks through a recurrence on one core, whatever their number. This changes nothing on
    accelerators, and nothing where the devices have been chosen already: by a flag in XLA_FLAGS,
    or because JAX has begun to compute.

    Args:
        most: largest useful number, such as the batch size: the most cores that divide it are
            used. By default all cores.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _PATIENCE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_PATIENCE}={_PATIENCE_SECONDS}".strip()
    if "xla_force_host_platform_device_count" in flags:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = cores or 1
    while most is not None and most % count:
        count -= 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has begun to compute
        pass
