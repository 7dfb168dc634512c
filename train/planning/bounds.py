"""Lower bounds on the time of a training step, one kind of work at a time."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from caduceus_jax.kernels.ahead_of_time.devices import GPUS
from caduceus_jax.train.planning.collectives import Collective
from caduceus_jax.train.planning.step_costs import Cost


class Peaks(NamedTuple):
    """Holds the most that a device can do per second."""

    products: float  # floating-point operations of matrix products in bfloat16
    exponentials: float | None  # None where it is not known
    bytes: float  # between memory and compute units
    sent: float  # bytes to other devices, over all its links


# As the makers publish them: https://cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e and /tpu7x; of
# links, those that send. Exponentials follow from the cycles that products are published for: a
# TPU core has 1,024 lanes beside 4 matrix units of 128 x 128. For a v6e and a 7x the pages of their
# maker disagree about, or lack, the number of matrix units. A device of a 7x is one of two cores.
_TPUS = {
    "v4": Peaks(275e12, 275e12 / 128, 1228e9, 300e9),
    "v5e": Peaks(197e12, 197e12 / 128, 819e9, 200e9),
    "v5p": Peaks(459e12, 459e12 / 128, 2765e9, 600e9),
    "v6e": Peaks(918e12, None, 1600e9, 400e9),
    "7x": Peaks(2307e12 / 2, None, 7380e9 / 2, 1200e9 / 2),
}
# What a GPU sends to those of its machine: by NVLink, or by PCI Express 3, 4 or 5.
_LINKS = {"a100": 300e9, "h100": 450e9, "h200": 450e9, "b200": 900e9, "t4": 16e9}
_LINKS |= dict.fromkeys(("a10", "rtx3090", "l4", "rtx4090"), 32e9)
_LINKS |= dict.fromkeys(("rtxpro6000", "rtx5090"), 64e9)
# A multiprocessor of an H100 or H200 computes 16 exponentials in the cycle of 2,048 multiply-adds;
# those of other GPUs, 16 per cycle of their highest clock.
_EXPONENTIALS: dict[str, float] = dict.fromkeys(("h100", "h200"), 989e12 / 256)
PEAKS: Mapping[str, Peaks] = _TPUS | {
    name: Peaks(
        gpu.products,
        _EXPONENTIALS.get(name, 16e9 * gpu.multiprocessors * gpu.clock),
        gpu.bandwidth,
        _LINKS[name],
    )
    for name, gpu in GPUS.items()
}


class Bounds(NamedTuple):
    """Holds the seconds that each resource is busy with one kind of work, at least."""

    arithmetic: float | None
    exponentials: float | None
    memory: float | None
    links: float | None

    @property
    def least(self) -> float:
        """The longest: resources may work at the same time."""
        return max(bound for bound in self if bound is not None)


def bounds(
    peaks: Peaks, costs: Mapping[str, Cost], sent: Iterable[Collective]
) -> dict[str, Bounds]:
    """Computes the bounds of each kind of work in a step of one device.

    The arithmetic of scans and convolutions has no published peak and is left out; so are norms,
    gates and the optimizer. An all-reduce sends what it adds up twice.

    Args:
        peaks: the device's peaks.
        costs: costs of a step on the device.
        sent: bytes that it sends per step.
    """
    found = {
        kind: Bounds(
            cost.flops / peaks.products if kind == "matrix products" else None,
            cost.exponentials / peaks.exponentials if peaks.exponentials else None,
            cost.bytes / peaks.bytes,
            None,
        )
        for kind, cost in costs.items()
    }
    total = sum(row.bytes * (2 if row.kind == "all-reduce" else 1) for row in sent)
    return found | {"between devices": Bounds(None, None, None, total / peaks.sent)}
