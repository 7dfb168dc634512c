"""The CUDA kernel of mamba_ssm (Gu & Dao 2023), on the same device and the same inputs as ours.

torch and mamba_ssm are imported inside the functions: nothing else of the package needs them.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax

# Its kernel has the length last.
_SEQUENCES = ("u", "delta", "B", "C", "z")


def importable() -> bool:
    """Tells whether mamba_ssm and a torch that sees the GPU are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "mamba_ssm")):
        return False
    import torch  # pyright: ignore[reportMissingImports]

    return torch.cuda.is_available()


def runs(inputs: dict[str, jax.Array]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Prepares calls of its kernel on copies of our arguments, forward and with all gradients.

    Args:
        inputs: arguments of `selective_scan`: u, delta, A, B, C, D, z, delta_bias.

    Returns:
        "forward" and "forward_backward": functions that launch the kernel and return y and, for
        the latter, the gradients as `d_u` and so on. The cotangent is y, as in
        `runs.scan_gradient`.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from mamba_ssm.ops import (  # pyright: ignore[reportMissingImports]
        selective_scan_interface,
    )

    theirs = {}
    for name, value in jax.block_until_ready(inputs).items():
        tensor = torch.from_dlpack(value)
        tensor = tensor.transpose(1, 2) if name in _SEQUENCES else tensor
        theirs[name] = tensor.clone(memory_format=torch.contiguous_format).requires_grad_()

    def scan() -> Any:
        """Launches the kernel."""
        return selective_scan_interface.selective_scan_fn(**theirs, delta_softplus=True)

    def forward() -> dict[str, Any]:
        """Launches the forward pass alone."""
        with torch.no_grad():
            return {"y": scan()}

    def forward_backward() -> dict[str, Any]:
        """Launches both passes."""
        y = scan()
        gradients = torch.autograd.grad(y, list(theirs.values()), y.detach())
        return {"y": y.detach()} | {
            f"d_{name}": g for name, g in zip(theirs, gradients, strict=True)
        }

    return {"forward": forward, "forward_backward": forward_backward}


def wait(_: Any) -> None:
    """Waits until everything that torch has launched is done."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.cuda.synchronize()


def differences(theirs: dict[str, Any], ours: dict[str, jax.Array]) -> dict[str, float]:
    """Compares y and every gradient: largest difference over the largest magnitude of theirs.

    Args:
        theirs: the result of `forward_backward`.
        ours: y and the gradients of our scan, sequences as (batch, length, channels).
    """
    import torch  # pyright: ignore[reportMissingImports]

    found = {}
    for name, value in theirs.items():
        here = torch.from_dlpack(jax.block_until_ready(ours[name]))
        if name == "y" or name.removeprefix("d_") in _SEQUENCES:
            value = value.transpose(1, 2)
        expected = value.float()
        found[name] = float((here.float() - expected).abs().max() / expected.abs().max())
    return found
