"""Ways to divide a step among devices, and which of them to try first."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from caduceus_jax.train.config import StepConfig
from caduceus_jax.train.planning.collectives import Collective

MOST_TRIED = 6  # compilations, each of which takes minutes for a large model
_SHORTEST = 1024  # tokens of a window on one device
_ACTIVATIONS = 40  # bytes kept per token and inner channel while one block is computed


class Division(NamedTuple):
    """One way to divide a step, and what a compiler said about it."""

    fsdp: int
    sequence: int
    tensor: int
    microbatches: int
    fits: bool | None = None  # None: not tried
    needed: int | None = None  # bytes on each device
    sent: int | None = None  # bytes that each device sends in a step
    compile_seconds: float = 0.0

    def words(self) -> str:
        """Names the settings that are not 1."""
        names = ("fsdp", "sequence", "tensor", "microbatches")
        return ", ".join(
            f"{name} {getattr(self, name)}" for name in names if getattr(self, name) > 1
        )

    def of(self, config: Any) -> Any:
        """Returns the settings with this division."""
        return dataclasses.replace(
            config,
            fsdp=self.fsdp,
            sequence=self.sequence,
            tensor=self.tensor,
            microbatches=self.microbatches,
        )


def candidates(config: StepConfig, devices: int, available: int) -> list[Division]:
    """Lists divisions of a step that may fit, those that send least first.

    The batch stays as it is. What a division needs is estimated only to leave out the hopeless.

    Args:
        config: the step.
        devices: number of devices.
        available: bytes on each.
    """
    found: list[tuple[float, Division]] = []
    sizes = [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
    for fsdp, sequence, tensor in itertools.product(sizes, sizes, (1, 2, 4)):
        if devices % (fsdp * sequence * tensor) or config.max_length % sequence:
            continue
        if config.max_length // sequence < _SHORTEST and sequence > 1:
            continue
        if config.model.d_model % fsdp or config.model.d_inner % tensor:
            continue
        rows = devices // (sequence * tensor)
        windows, left = divmod(config.batch_size, rows)
        if left:
            continue
        for microbatches in (2**i for i in range(windows.bit_length()) if windows % 2**i == 0):
            division = Division(fsdp, sequence, tensor, microbatches)
            if estimated_bytes(config, division, devices) <= 1.25 * available:
                found.append((_sent(config, division, devices), division))
    return [division for _, division in sorted(found)]


def parameters(config: StepConfig) -> int:
    """Counts the parameters of the projections, which are nearly all of them."""
    return config.model.n_layer * 3 * config.model.d_model * config.model.d_inner


def estimated_bytes(config: StepConfig, division: Division, devices: int) -> float:
    """Estimates the bytes that a division needs on each device.

    Counted are parameters, gradients and two moments in float32; one layer gathered; the residual
    stream before each block in two bytes and the inside of one block, or of all without remat.
    """
    model, whole = config.model, parameters(config)
    layer = whole / model.n_layer
    tokens = _tokens(config, division, devices) * (2 if model.rcps else 1)
    inside = tokens * model.d_inner * _ACTIVATIONS / division.tensor
    blocks = 1 if config.remat == "blocks" else model.n_layer
    stream = tokens * model.d_model * 2 * model.n_layer
    return 16 * whole / division.fsdp / division.tensor + 8 * layer + stream + blocks * inside


def try_divisions(
    config: StepConfig,
    devices: int,
    available: int,
    attempt: Callable[[Division], tuple[bool, int | None, Iterable[Collective], float]],
) -> list[Division]:
    """Compiles the most promising divisions, and returns what came of each.

    Args:
        config: the step.
        devices: number of devices.
        available: bytes on each.
        attempt: compiles one: whether it fits, bytes needed, what is sent, seconds.
    """
    tried: list[Division] = []
    own = Division(config.fsdp, config.sequence, config.tensor, config.microbatches)
    for division in candidates(config, devices, available):
        if division == own or len(tried) == MOST_TRIED:
            continue
        fits, needed, sent, seconds = attempt(division)
        total = sum(row.bytes * (2 if row.kind == "all-reduce" else 1) for row in sent)
        tried.append(
            division._replace(
                fits=fits, needed=needed, sent=total if fits else None, compile_seconds=seconds
            )
        )
        if sum(bool(each.fits) for each in tried) == 2:
            break
    return tried


def fastest(tried: Iterable[Division]) -> Division | None:
    """Returns the division that fits and sends least: all else of a step is the same for all."""
    return min((d for d in tried if d.fits), key=lambda d: d.sent or 0, default=None)


def _tokens(config: StepConfig, division: Division, devices: int) -> float:
    """Counts the tokens that a device computes at a time."""
    rows = devices // (division.sequence * division.tensor)
    windows = config.batch_size / rows / division.microbatches
    return windows * config.max_length / division.sequence


def _sent(config: StepConfig, division: Division, devices: int) -> float:
    """Estimates the bytes that a device sends in a step."""
    whole, model = parameters(config), config.model
    gathers = 0 if division.fsdp == 1 else 3 * 2 * whole * division.microbatches
    sums = 8 * whole / division.fsdp
    activations = 0.0
    if division.tensor > 1:
        tokens = _tokens(config, division, devices) * division.microbatches
        activations = 12 * tokens * (2 if model.rcps else 1) * model.d_model * model.n_layer
    shards = division.sequence if division.sequence > 1 else 0
    states = 16 * shards * model.n_layer * model.d_inner * (model.d_state + 1)
    return gathers + sums + activations + states + 1e6 * division.microbatches
