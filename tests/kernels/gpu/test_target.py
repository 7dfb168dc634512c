import types

import jax
import jax.export
import jax.numpy as jnp
import pytest

from caduceus_jax.kernels import PallasTriton, selective_scan
from caduceus_jax.kernels.gpu import ptx, target
from tests.kernels.scan_cases import cast, example


def test_hopper_where_there_is_no_gpu():
    assert target.compute_capability() == 90
    with target.compiling_for(75):
        assert target.compute_capability() == 75
    assert target.compute_capability() == 90


def test_the_gpu_at_hand(monkeypatch):
    gpu = types.SimpleNamespace(compute_capability="12.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda backend: [gpu])
    assert target.compute_capability() == 120


def test_other_makers_are_refused():
    amd = types.SimpleNamespace(compute_capability="gfx942")
    with pytest.raises(NotImplementedError, match="architecture gfx942; supported: GPUs by NVIDIA"):
        target.capability_of(amd)


def test_no_polynomials_where_float32_units_are_few():
    pays = {}
    for capability in (75, 80, 86, 89, 90, 100, 120):
        with target.compiling_for(capability):
            pays[capability] = ptx.mixing_pays()
    assert [capability for capability, pay in pays.items() if not pay] == [75, 80]


def test_pallas_refuses_what_is_older_than_ampere():
    message = "compute capability 7.5; supported: 8.0 and above, or implementation='triton'"
    arguments, options = cast(example(8)), PallasTriton(interpret=False)
    with target.compiling_for(75):
        with pytest.raises(NotImplementedError, match=message):
            jax.eval_shape(lambda: selective_scan(**arguments, implementation=options))


def test_no_kernel_is_exported():
    run = jax.jit(target.refuse_export)
    assert run(jnp.arange(3.0))[2] == target.refuse_export(jnp.arange(3.0))[2] == 2
    with pytest.raises(NotImplementedError, match="in jax.export; supported: implementation='chu"):
        jax.export.export(run)(jnp.arange(3.0))
