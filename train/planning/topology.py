"""Devices that are not there, by name: what an ahead-of-time compilation is for."""

import contextlib
import difflib
import importlib.util
import itertools
import math
import os
import re
from typing import Any, NamedTuple

import jax

from caduceus_jax.errors import UserError
from caduceus_jax.kernels.ahead_of_time import devices
from caduceus_jax.kernels.ahead_of_time.devices import GPUS
from caduceus_jax.train.planning.bounds import PEAKS, Peaks

GIB = 2**30


class _Chip(NamedTuple):
    memory: int  # bytes that a program may use
    shapes: tuple[str, ...]
    cores_counted: int = 1  # of a chip, where slices are called by their number


_FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    *("8x8x16", "8x16x16", "16x16x16", "16x16x24"),
)
# Memory is what the TPU compiler calls available when it refuses a program. A device of a 7x is one
# of the two cores of a chip. Of a v4, whose cores JAX joins, the compiler describes each alone,
# with half the memory: one of each chip is taken, and what fits here fits there.
_TPUS = {
    "v4": _Chip(int(15.25 * GIB), _SOLID, 2),
    "v5e": _Chip(int(15.75 * GIB), _FLAT),
    "v5p": _Chip(int(95.73 * GIB), _SOLID, 2),
    "v6e": _Chip(int(31.24 * GIB), _FLAT),
    "7x": _Chip(int(94.74 * GIB), _SOLID, 2),
}
# The smallest slice that can be described.
SMALLEST = {name: chip.shapes[0] for name, chip in _TPUS.items()}
# As the TPU compiler calls what is sold by another name.
_COMPILER_NAMES = {"7x": "tpu7x"}
# JAX takes three quarters of a GPU unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPUS = {name: gpu.memory * 3 // 4 for name, gpu in GPUS.items()}
_COUNTED = (*_GPUS, "cpu")


class Topology(NamedTuple):
    """Devices to compile for."""

    name: str
    platform: str  # "tpu", "gpu" or "cpu"
    devices: list[Any]
    memory: int  # bytes that a program may use on each device
    peaks: Peaks | None  # the most that each device does per second; None where not known

    def compiling(self, mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager[Any]:
        """Opens the context in which a program for a mesh of these devices is lowered."""
        return devices.compiling_for(mesh) if self.platform == "gpu" else contextlib.nullcontext()


def find_topology(name: str) -> Topology:
    """Returns the devices called `name`.

    JAX must not have begun to compute: it then looks for no accelerator, and has as many CPU
    devices as are asked for.

    Args:
        name: a TPU slice such as "v5e:16x16" or "v5p:8x8x4", GPUs of one machine such as "h200:8",
            or "cpu:8"; several slices or machines with their number in front, "2xv5e:16x16" or
            "4xh200:8". Or, as they are ordered, "v5e-256", "v5p-128" or "h200-8": Google counts the
            TensorCores of a v4, v5p and 7x, two per chip, and the chips of a v5e and v6e.

    Raises:
        UserError: no such devices, or their compiler is not installed.
    """
    several = re.fullmatch(r"([1-9][0-9]*)x([^:\-]*[a-z][^:\-]*[:\-].*)", name)
    copies, one = (int(several[1]), several[2]) if several else (1, name)
    one = _ordered(one)
    name = f"{copies}x{one}" if copies > 1 else one
    chip, _, shape = one.partition(":")
    if chip in _TPUS and _known(chip, shape):
        found = _tpus(f"{_COMPILER_NAMES.get(chip, chip)}:{shape}", copies)
        return Topology(name, "tpu", found, _TPUS[chip].memory, PEAKS[chip])
    counted = chip in _GPUS or (chip == "cpu" and copies == 1)
    if not counted or not re.fullmatch("[1-9][0-9]*", shape):
        raise UserError(f"topology {name!r} is not known{_near(one)}")
    count = int(shape)
    if chip in _GPUS:
        return Topology(name, "gpu", _gpus(chip, count, copies), _GPUS[chip], PEAKS[chip])
    with contextlib.suppress(RuntimeError):  # JAX has begun to compute
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"topology is {name}, but JAX runs with {len(devices)} CPU devices")
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Topology(name, "cpu", devices[:count], host // count, None)


def _ordered(name: str) -> str:
    """Returns the shape of a slice that is named by its size: "v5e:16x16" for "v5e-256"."""
    chip, dash, size = name.partition("-")
    if not dash or not size.isdecimal():
        return name
    if chip not in _TPUS:
        return f"{chip}:{size}"
    for shape in _TPUS[chip].shapes:
        if math.prod(map(int, shape.split("x"))) * _TPUS[chip].cores_counted == int(size):
            return f"{chip}:{shape}"
    return name


def _known(chip: str, shape: str) -> bool:
    """Tells whether there is such a slice; its sides in any order."""
    orders = {"x".join(sides) for sides in itertools.permutations(shape.split("x"))}
    return not orders.isdisjoint(_TPUS[chip].shapes)


def _near(name: str) -> str:
    known = [f"{chip}:{shape}" for chip, tpu in _TPUS.items() for shape in tpu.shapes]
    known += [f"{chip}:{count}" for chip in _COUNTED for count in (1, 8)]
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"; did you mean {near[0]}?" if near else "; it is one such as v5e:16x16, h200:8 or cpu:8"
    )


def _tpus(name: str, slices: int) -> list[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"topology {name} needs the TPU compiler: pip install 'jax[tpu]=={jax.__version__}'"
        )
    # libtpu looks for the TPU it runs on, and for other processes that use it; there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    _only_cpu()
    from jax.experimental import topologies

    how = {} if slices == 1 else {"num_slices": slices}
    found = topologies.get_topology_desc(platform="tpu", topology_name=name, **how).devices
    return [x for x in found if not (name.startswith("v4") and x.core_on_chip)]


def _gpus(name: str, count: int, machines: int) -> list[Any]:
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {devices.FLAGS}".strip()
    _only_cpu()
    try:
        return list(devices.mesh(count, name, machines).devices.flat)
    except ModuleNotFoundError:
        version = jax.__version__
        raise UserError(
            f"topology {name} needs the GPU compiler: pip install --no-deps "
            f"jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        ) from None


def _only_cpu() -> None:
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_platforms", "cpu")
