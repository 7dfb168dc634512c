import pytest

from caduceus_jax.kernels.ahead_of_time import devices
from caduceus_jax.kernels.ahead_of_time.devices import GPUS
from caduceus_jax.kernels.gpu import target


def test_every_gpu_is_described_to_xla():
    for gpu in GPUS.values():
        text = devices._description(gpu)
        assert f'device_description_str: "{gpu.kind}"' in text
        assert f"core_count: {gpu.multiprocessors}" in text
        assert "memory_bandwidth: 0" not in text and gpu.products > 0
    assert "cuda_compute_capability { major: 12 minor: 0 }" in devices._description(GPUS["rtx5090"])


def test_generations_differ_in_their_float32_units_and_in_how_assemblers_call_them():
    lanes = {name: GPUS[name].lanes for name in ("t4", "a100", "a10", "l4", "h200", "b200")}
    assert lanes == {"t4": 64, "a100": 64, "a10": 128, "l4": 128, "h200": 128, "b200": 128}
    assert [GPUS[name].architecture for name in ("t4", "h100", "b200")] == [
        "sm_75",
        "sm_90a",
        "sm_100a",
    ]


@pytest.mark.skipif(devices.installed("jax_cuda13_plugin"), reason="the plugin is here")
def test_the_missing_plugin_is_named():
    with pytest.raises(ModuleNotFoundError, match="jax_cuda13_plugin"):
        devices.mesh()


@pytest.mark.skipif(not devices.installed("jax_cuda13_plugin"), reason="needs the plugin")
def test_several_hosts_of_gpus_that_are_not_there():
    mesh = devices.mesh(8, "b200", hosts=2)
    assert mesh.devices.size == 16
    assert {device.process_index for device in mesh.devices.flat} == {0, 1}
    with devices.compiling_for(mesh):
        assert target.compute_capability() == 100
    assert target.compute_capability() == 90
