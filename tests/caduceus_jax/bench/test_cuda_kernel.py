"""The adapter to mamba_ssm, whose kernel is played by the equation in torch on the CPU."""

import sys
import types

import jax
import jax.numpy as jnp
import pytest

from caduceus_jax.bench import cuda_kernel, runs
from caduceus_jax.costs import Shape


def equation(torch):
    """`selective_scan_fn` as mamba_ssm defines it: sequences (batch, channels, length)."""
    silu, softplus = torch.nn.functional.silu, torch.nn.functional.softplus

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        assert delta_softplus and all(x.is_contiguous() for x in (u, delta, B, C, z))
        dtype = u.dtype
        u, delta, B, C, z = (x.float() for x in (u, delta, B, C, z))
        step = softplus(delta + delta_bias[:, None])
        h, y = torch.zeros(*u.shape[:2], A.shape[1]), []
        for t in range(u.shape[2]):
            drive = (step[..., t] * u[..., t])[..., None] * B[:, None, :, t]
            h = torch.exp(step[..., t, None] * A) * h + drive
            y.append((h * C[:, None, :, t]).sum(-1))
        return ((torch.stack(y, -1) + D[:, None] * u) * silu(z)).to(dtype)

    return selective_scan_fn


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_their_results_are_compared_with_ours(monkeypatch, dtype):
    torch = pytest.importorskip("torch")
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = equation(torch)
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["mamba_ssm.ops"].selective_scan_interface = interface
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    inputs = runs.draw(Shape(2, 9, 6, 4), dtype)
    y, (gradients,) = jax.jit(runs.scan_gradient("reference"))(inputs)
    ours = {"y": y} | {f"d_{name}": value for name, value in gradients.items()}
    calls = cuda_kernel.runs(inputs)
    theirs = calls["forward_backward"]()
    assert (calls["forward"]()["y"] == theirs["y"]).all()
    differences = cuda_kernel.differences(theirs, ours)
    assert set(differences) == {"y", *(f"d_{name}" for name in inputs)}
    assert max(differences.values()) < (1e-5 if dtype == "float32" else 1e-2)
    off = ours | {"d_B": ours["d_B"] + jnp.abs(ours["d_B"]).max()}
    assert cuda_kernel.differences(theirs, off)["d_B"] == pytest.approx(1, rel=0.01)


def test_without_mamba_ssm_there_is_nothing_to_compare_with(monkeypatch):
    monkeypatch.setattr(cuda_kernel.importlib.util, "find_spec", lambda name: None)
    assert not cuda_kernel.importable()
