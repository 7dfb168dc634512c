"""Meshes over devices of several slices or machines, which JAX numbers by `slice_index`."""

import dataclasses

import numpy as np
import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.train.sharding import make_mesh


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that is not there."""

    id: int
    process_index: int
    slice_index: int | None
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100"
    client: None = None


def devices(slices, each, platform="gpu"):
    """The devices of some machines, last machine first."""
    return [
        Device(s * each + i, s, s, platform) for s in reversed(range(slices)) for i in range(each)
    ]


def slices_along(mesh, axis):
    """How many slices a line of devices along an axis is spread over at most."""
    numbers = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    lines = np.moveaxis(numbers, mesh.axis_names.index(axis), -1).reshape(-1, mesh.shape[axis])
    return max(len(set(line)) for line in lines.tolist())


@pytest.mark.parametrize("platform", ["gpu", "cpu"])
@pytest.mark.parametrize(
    ("division", "shape"),
    [
        ({}, (16, 1, 1, 1)),
        ({"sequence": 8}, (2, 1, 8, 1)),
        ({"sequence": 2, "tensor": 2}, (4, 1, 2, 2)),
        ({"fsdp": 2, "tensor": 4}, (2, 2, 1, 4)),
        ({"fsdp": 16}, (1, 16, 1, 1)),
        ({"fsdp": 8, "sequence": 2}, (1, 8, 2, 1)),
    ],
)
def test_length_and_channels_stay_within_a_slice(platform, division, shape):
    mesh = make_mesh(devices(2, 8, platform), **division)
    assert tuple(mesh.shape.values()) == shape
    assert len(set(mesh.devices.flat)) == 16
    assert slices_along(mesh, "sequence") == slices_along(mesh, "tensor") == 1
    # Data goes across slices where it can; otherwise fsdp does.
    across = "data" if shape[0] > 1 else "fsdp"
    assert slices_along(mesh, across) == 2
    if shape[0] > 1:
        assert slices_along(mesh, "fsdp") == 1


def test_data_and_fsdp_share_slices_that_neither_can_divide_alone():
    mesh = make_mesh(devices(6, 4), fsdp=12)
    assert tuple(mesh.shape.values()) == (2, 12, 1, 1)
    assert slices_along(mesh, "fsdp") == 3


def test_windows_longer_than_a_slice_take_whole_slices():
    mesh = make_mesh(devices(4, 2), sequence=4)
    assert tuple(mesh.shape.values()) == (2, 1, 4, 1)
    rows = mesh.devices.reshape(2, 4)
    assert [sorted({d.slice_index for d in row}) for row in rows] == [[0, 1], [2, 3]]


def test_devices_without_slices_are_one():
    unnumbered = [Device(i, 0, None) for i in range(4)]
    assert make_mesh(unnumbered, sequence=2).devices.reshape(-1).tolist() == unnumbered


def test_machines_of_different_sizes_are_refused():
    uneven = [*devices(1, 2), Device(2, 1, 1)]
    with pytest.raises(UserError, match="the machines or slices have 2, 1 devices"):
        make_mesh(uneven)
