"""`caduceus-jax plan`: compiles a run's step for devices that are not attached."""

import dataclasses
import json
import re
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from caduceus_jax.errors import UserError
from caduceus_jax.kernels import options
from caduceus_jax.settings import recipe_only
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import PretrainConfig, StepConfig
from caduceus_jax.train.planning.bounds import bounds
from caduceus_jax.train.planning.collectives import Collective, collectives
from caduceus_jax.train.planning.divisions import Division, fastest, try_divisions
from caduceus_jax.train.planning.plan_report import lines, share_of
from caduceus_jax.train.planning.step_costs import Cost, step_costs
from caduceus_jax.train.planning.topology import GIB, Topology, find_topology
from caduceus_jax.train.sharding import (
    abstract,
    abstract_batch,
    check_batch_size,
    make_mesh,
    row_shares,
)
from caduceus_jax.train.step import make_program


def _with_settings_of(other: type) -> Callable[[type], type]:
    """Makes a dataclass accept what stands in the recipes of another one, and not read it."""

    def add(cls: type) -> type:
        known = {field.name for base in cls.__mro__[1:-1] for field in dataclasses.fields(base)}
        for field in dataclasses.fields(other):
            if field.name not in known:
                cls.__annotations__[field.name] = field.type
                setattr(cls, field.name, recipe_only(field.default))
        return cls

    return add


@dataclasses.dataclass(frozen=True)
@_with_settings_of(PretrainConfig)
class PlanConfig(StepConfig):
    """A step of pretraining, and the devices that it is planned for.

    Recipes of pretraining are read, without their data and folders.

    Args:
        topology: devices to compile for: a TPU slice such as v5e:16x16 or v5p:8x8x4, h200:8 (GPUs
            of one machine), or cpu:8; v5e-256, v5p-128 and h200-8 are names of some of them.
        search: also find the largest batch that fits, by compiling: twice as many windows each
            time until they do not fit, then between the two. Where the recipe does not fit, also
            try other divisions by fsdp, sequence, tensor and microbatches with the same batch, and
            name the fastest that fits.
        json: print JSON instead of tables.
        model: the architecture.
        optimizer: settings of the optimizer.
        steps: number of optimizer steps.
        batch_size: windows per step, over all devices.
        microbatches: pieces in which each device computes its windows, one after the other.
        max_length: tokens per window.
        fsdp: devices that share parameters and the optimizer's state.
        sequence: devices that share the length of each window.
        tensor: devices that share the inner channels.
        dtype: type of activations and matrix products.
        scan: implementation of the selective scan.
        remat: "blocks" computes each block again in the backward pass, "scans" all but its scans,
            "none" nothing.
        seed: the seed of the initial weights.
        ema_decay: decay of a running mean of the weights; null is none.
        layer_norms: also measure each layer's gradient norm and update.
        z_loss: weight of the square of the logits' logsumexp in the training loss.
        skip_spikes: skip steps whose loss or gradient norm is a spike.
    """

    topology: str = ""
    search: bool = False
    json: bool = False


class Memory(NamedTuple):
    """Bytes on each device."""

    arguments: int
    outputs: int
    reused: int  # outputs that take the place of arguments
    temporaries: int
    program: int
    peak: int  # most that is in use at any time, if the compiler reports it; otherwise 0

    @property
    def needed(self) -> int:
        """Bytes that are set aside for the program, from its beginning to its end."""
        return self.arguments + self.outputs - self.reused + self.temporaries + self.program


class DoesNotFit(UserError):
    """What was planned needs more memory than the devices have."""

    exit_status = 1


class Attempt(NamedTuple):
    """One compilation."""

    windows: int  # per step and group of devices that share a window
    fits: bool
    # Bytes on each device that must be there; None if the compiler gives up without saying.
    needed: int | None
    lower_seconds: float
    compile_seconds: float


class Compiled(NamedTuple):
    """One compilation, and what came of it if anything."""

    attempt: Attempt
    memory: Memory | None
    collectives: list[Collective]


def plan(config: PlanConfig) -> None:
    """Estimates the memory and the time per step that a recipe needs on given devices.

    The training step is compiled for the devices, which need not be there: no accelerator is used
    or looked for, and no data is read. All settings of `caduceus-jax pretrain` can be given.

    Printed are the memory of each device by kind, what the devices send each other (kind, origin,
    how often and how many bytes per step), the arithmetic and the memory traffic of a step, counted
    by hand, and the least time that they take at the devices' published peaks: a prediction, not a
    measurement. The TPU compiler comes with `pip install 'jax[tpu]'`.

    Where the recipe does not fit the devices the status is 1, so that what launches a run can ask
    first.

    examples:
      caduceus-jax plan --config caduceus_ps_131k --topology v5e:16x16
      caduceus-jax plan --config caduceus_ps_131k_8gpu --topology h200:8 --search

    Args:
        config: everything there is to choose.
    """
    if not config.topology:
        raise UserError("--topology is missing: it is one such as v5e:16x16, h200:8 or cpu:8")
    topology = find_topology(config.topology)
    parts = {name: getattr(config, name) for name in ("fsdp", "sequence", "tensor")}
    mesh = make_mesh(topology.devices, **parts)
    check_batch_size(config.batch_size, mesh, config.microbatches)
    groups = row_shares(mesh)
    first = _compile(config, topology, mesh, config.batch_size // groups)
    attempts = [first.attempt]
    if config.search:
        attempts += _search(config, topology, mesh, first.attempt)
    tried = []
    if config.search and not first.attempt.fits:
        tried = _divisions(config, topology)
    report = _report(config, topology, mesh, first, attempts, tried)
    print(json.dumps(report, indent=1) if config.json else "\n".join(lines(report)))
    if not first.attempt.fits:
        raise DoesNotFit(_refusal(report, _advice(config, report)))


def _report(
    config: PlanConfig,
    topology: Topology,
    mesh: Any,
    first: Compiled,
    attempts: list[Attempt],
    tried: list[Division],
) -> dict[str, Any]:
    """Collects everything that is known of a plan, as JSON knows it."""
    groups = row_shares(mesh)
    costs = {
        kind: Cost(*(count // mesh.size for count in cost))
        for kind, cost in step_costs(config).items()
    }
    return {
        "topology": topology.name,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "windows": config.batch_size,
        "windows_per_group": config.batch_size // groups,
        "tokens_per_window": config.max_length,
        "available_bytes": topology.memory,
        "fits": first.attempt.fits,
        "needed_bytes": first.attempt.needed,
        "memory": None if first.memory is None else first.memory._asdict(),
        "collectives": [row._asdict() for row in first.collectives],
        "per_device": {kind: cost._asdict() for kind, cost in costs.items()},
        "predicted": None
        if topology.peaks is None
        else {
            kind: found._asdict() | {"least": found.least}
            for kind, found in bounds(topology.peaks, costs, first.collectives).items()
        },
        "lower_seconds": first.attempt.lower_seconds,
        "compile_seconds": first.attempt.compile_seconds,
        "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "largest_windows_per_group": max((a.windows for a in attempts if a.fits), default=0)
        if config.search
        else None,
        "tried": [attempt._asdict() for attempt in attempts],
        "divisions": [division._asdict() for division in tried],
    }


def implementation_for(scan: str, platform: str) -> options.Options:
    """Returns the scan that a run on another platform takes, whatever the default backend is.

    Args:
        scan: name of the scan in a recipe.
        platform: "tpu", "gpu" or "cpu".

    Raises:
        UserError: the kernels are made for another platform.
    """
    try:
        return options.for_platform(None if scan == "auto" else scan, platform)
    except NotImplementedError as error:
        made_for = " and ".join(f"{name.upper()}s" for name in options.resolve(scan).platforms)
        raise UserError(f"scan is {scan}, which is for {made_for}: use auto") from error


def _compile(config: PlanConfig, topology: Topology, mesh: Any, windows: int) -> Compiled:
    """Compiles the step with so many windows per group; nothing is allocated."""
    config = dataclasses.replace(config, batch_size=windows * row_shares(mesh))
    chosen = implementation_for(config.scan, topology.platform)
    program = make_program(config, mesh, Tokenizer(), chosen)
    batch = abstract_batch(config.batch_size, config.max_length, mesh)
    begun = time.monotonic()
    with topology.compiling(mesh):
        lowered = program.train_step.lower(abstract(program.init, mesh), batch)
        seconds = time.monotonic() - begun
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            spent = time.monotonic() - begun - seconds
            attempt = Attempt(windows, False, _said(str(error)), seconds, spent)
            return Compiled(attempt, None, [])
    spent = time.monotonic() - begun - seconds
    stats = compiled.memory_analysis()
    memory = Memory(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes,
        stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        stats.generated_code_size_in_bytes,
        getattr(stats, "peak_memory_in_bytes", 0),
    )
    # The TPU compiler packs arrays whose lives do not overlap, and refuses what does not fit.
    fits = topology.platform == "tpu" or memory.needed <= topology.memory
    needed = memory.needed
    if fits and needed > topology.memory:  # set aside more than once: what is alive at once counts
        needed = memory.peak or topology.memory
    attempt = Attempt(windows, fits, needed, seconds, spent)
    return Compiled(attempt, memory, collectives(compiled.as_text()))


# Sentences in which compilers say how much they would need.
_NEEDED = (
    re.compile(r"Used ([\d.]+)([KMGT])i?B? of [\d.]+[KMGT]i?B? hbm", re.IGNORECASE),
    re.compile(r"total memory required[^(]*\(([\d.]+)([KMGT])i?B?\)", re.IGNORECASE),
    re.compile(r"(?:requires?|needs?|allocat\w+|allocation of)\D{0,40}?([\d.]+) ?([KMGT])i?B"),
)


def _said(error: str) -> int | None:
    """Finds how many bytes a compiler says that it would need."""
    for sentence in _NEEDED:
        if found := sentence.search(error):
            return int(float(found[1]) * 1024 ** (" KMGT".index(found[2].upper())))
    if found := re.search(r"allocat\w+ (\d{6,}) bytes", error):
        return int(found[1])
    return None


def _divisions(config: PlanConfig, topology: Topology) -> list[Division]:
    """Compiles the step divided in other ways."""

    def attempt(division: Division) -> tuple[bool, int | None, list[Collective], float]:
        """Compiles one division."""
        changed = division.of(config)
        parts = {name: getattr(division, name) for name in ("fsdp", "sequence", "tensor")}
        mesh = make_mesh(topology.devices, **parts)
        found = _compile(changed, topology, mesh, config.batch_size // row_shares(mesh))
        seconds = found.attempt.compile_seconds
        return found.attempt.fits, found.attempt.needed, found.collectives, seconds

    return try_divisions(config, len(topology.devices), topology.memory, attempt)


def _search(config: PlanConfig, topology: Topology, mesh: Any, first: Attempt) -> list[Attempt]:
    """Doubles the windows until they do not fit, then bisects; each piece has whole ones."""
    attempts: list[Attempt] = []
    pieces = config.microbatches

    def fits(windows: int) -> bool:
        """Compiles with so many windows, and returns whether they fit."""
        attempts.append(_compile(config, topology, mesh, windows * pieces).attempt)
        return attempts[-1].fits

    tried = first.windows // pieces
    low, high = (tried, None) if first.fits else (0, tried)
    while high is None:
        if fits(2 * low):
            low *= 2
        else:
            high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return attempts


def _advice(config: PlanConfig, report: dict[str, Any]) -> str:
    """Lists what would need less memory and is not done yet."""
    largest, ways = report["largest_windows_per_group"], []
    if largest:
        ways.append(f"at most {largest} window{'s' * (largest != 1)} {share_of(report)} fits")
    if best := fastest(Division(**row) for row in report["divisions"]):
        size = f" ({best.needed / GIB:.2f} GiB)" if best.needed else ""
        ways.append(f"the same batch fits with {best.words() or 'windows divided only'}{size}")
    if ways:
        return ", and ".join(ways)
    windows = report["windows_per_group"]
    if config.remat != "blocks":
        ways.append("remat blocks")
    if windows > config.microbatches:
        ways.append(f"microbatches {min(windows, 2 * config.microbatches)}")
    if windows > 1:
        ways.append("a smaller batch_size")
    rows = report["mesh"]["data"] * config.fsdp
    if config.fsdp < rows and config.model.d_model % (2 * config.fsdp) == 0:
        ways.append(f"fsdp {2 * config.fsdp}")
    if config.max_length // config.sequence > 2048:
        ways.append(f"sequence {2 * config.sequence}")
    ways.append("more devices")
    return f"use {', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}"


def _refusal(report: dict[str, Any], advice: str) -> str:
    """Says in one sentence why a recipe cannot run, and how to fix it."""
    available = report["available_bytes"] / GIB
    needed = report["needed_bytes"]
    size = f"{needed / GIB:.2f} GiB of {available:.2f}" if needed else f"more than {available:.2f}"
    return (
        f"batch_size {report['windows']} does not fit {report['topology']}: it needs {size} GiB on "
        f"each device; {advice}"
    )
