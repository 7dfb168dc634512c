"""`caduceus-jax bench step`: tokens per second of the training step, and its memory."""

import dataclasses
import functools
import itertools
import pathlib
import re
import time
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from caduceus_jax.bench import jobs, measure
from caduceus_jax.bench.report import Report, spread, title
from caduceus_jax.errors import UserError
from caduceus_jax.kernels.options import for_platform
from caduceus_jax.markdown import table
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.planning.topology import SMALLEST, Topology, find_topology
from caduceus_jax.train.sharding import BATCH, abstract, init_sharded, make_mesh, shard_batch
from caduceus_jax.train.step import make_program

KERNELS = tuple(
    f"selective_scan_{name}" for name in ("summaries", "outputs", "adjoints", "gradients")
)
# The first composes chunks; a sequence of one chunk goes without, and none longer than this is one.
_ONE_CHUNK = 2048
TPU_KERNELS = ("selective_scan_forward", "selective_scan_backward")
_GPU = ("pallas_triton", "triton", "chunked")
_TPU = ("mosaic_tpu", "chunked")
# Windows of a step: those of the recipes, or what one H200 holds.
_LONG = PretrainConfig(
    model=CaduceusConfig(d_model=256, n_layer=16, rcps=True),
    batch_size=8,
    max_length=131_072,
    dtype="bfloat16",
    remat=True,
)
_SHORT = dataclasses.replace(
    _LONG,
    model=CaduceusConfig(d_model=128, n_layer=4, rcps=True),
    batch_size=1024,
    max_length=1024,
)
_TINY = dataclasses.replace(
    _SHORT, model=CaduceusConfig(d_model=8, n_layer=1, rcps=True), batch_size=2, max_length=32
)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Says what is timed: recipes by name, with each implementation of the scan."""

    recipes: dict[str, PretrainConfig]
    implementations: tuple[str, ...]
    seconds: float  # for which each step is repeated


SUITES = {
    "gpu": Suite({"PS 128 x 4": _SHORT, "PS 256 x 16": _LONG}, _GPU, seconds=10.0),
    "smoke": Suite({"PS 8 x 1": _TINY}, ("chunked",), seconds=0.0),
}


def step(
    *,
    suite: Literal["gpu", "smoke"] = "gpu",
    compile_only: str | None = None,
    out: pathlib.Path = pathlib.Path("runs/bench"),
    minutes: float = 8.0,
) -> None:
    """Times the training step of Caduceus-PS 128 x 4 at 1,024 and 256 x 16 at 131,072 tokens.

    The step is the one of `caduceus-jax pretrain`, in bfloat16 and with rematerialization, on one
    GPU, with each implementation of the scan. Written are step_gpu.json and step_gpu.md, after
    each case: tokens per second with their spread, memory, compile time. Where a batch does not fit
    it is halved until it does. --suite smoke is the same with a tiny model on any machine: it
    shows that the command works, and its times say nothing.

    --compile-only h200 compiles the steps for an H200 that is not there, writes what they need to
    step_h200.json and step_h200.md, and makes the exit status 1 where a step does not compile or
    has not all kernels in it that its implementation brings. Other GPUs and TPUs are named as
    `caduceus-jax plan` names them, and so are several of them, each of which then has the windows
    of one: h200:8, 2xh200:8, v5p:4x4x4.

    examples:
      caduceus-jax bench step --out runs/h200
      caduceus-jax bench step --compile-only h200
      caduceus-jax bench step --compile-only v5e

    Args:
        suite: models and sizes.
        compile_only: a device, or several, to compile for instead of timing.
        out: folder for the results.
        minutes: no new case is begun after this long.

    Raises:
        UserError: a GPU or the compiler for an absent device is missing.
    """
    deadline = time.monotonic() + 60 * minutes
    chosen = SUITES[suite]
    # Before JAX computes anything: it then looks for no device.
    topology, mesh = _not_here(compile_only) if compile_only else (None, _here(suite))
    names = _TPU if topology and topology.platform == "tpu" else chosen.implementations
    work = functools.partial(_largest, mesh=mesh, seconds=chosen.seconds)
    head = {"title": "The training step", "suite": suite, **measure.machine()}
    if topology is not None:
        work = functools.partial(_compiled_ahead, mesh=mesh, topology=topology)
        kind = mesh.devices.flat[0].device_kind
        head |= {"device": kind, "driver": "which is not there: compiled ahead of time"}
    report = Report(out / f"step_{(compile_only or suite).replace(':', '_')}", head, page)
    for recipe, name in itertools.product(chosen.recipes, filter(jobs.is_there, names)):
        config = chosen.recipes[recipe]
        about = {"recipe": recipe, "length": config.max_length, "implementation": name}
        job = jobs.Job("cases", about, functools.partial(work, config, implementation=name))
        for _, row in jobs.run([job], deadline):
            report.add("cases", row, _line(row))
    report.results["finished"] = True
    report.write()
    print(f"wrote {report.path}.json and .md")
    if topology is not None and any("error" in row for row in report.results["cases"]):
        raise SystemExit(1)


def _here(suite: str) -> Mesh:
    """Returns the device to time on."""
    if suite == "gpu" and jax.default_backend() != "gpu":
        raise UserError(
            "--suite gpu needs an NVIDIA GPU, and JAX computes on "
            f"{jax.default_backend()} here: --compile-only h200 compiles without one, --suite "
            "smoke shows that the command works"
        )
    return make_mesh(jax.devices()[:1])


def _not_here(name: str) -> tuple[Topology, Mesh]:
    """Returns the devices to compile for: those that are named, or one where none are counted."""
    if ":" in name:
        topology = find_topology(name)
        return topology, make_mesh(topology.devices)
    topology = find_topology(f"{name}:{SMALLEST.get(name, '1')}")
    return topology, make_mesh(topology.devices[:1])


def _largest(
    config: PretrainConfig, *, mesh: Mesh, implementation: str, seconds: float
) -> dict[str, Any]:
    """Times the step with the recipe's batch, or with the largest half of a half that fits."""
    windows = config.batch_size
    while True:
        try:
            smaller = dataclasses.replace(config, batch_size=windows)
            return {"windows": windows, **_timed(smaller, mesh, implementation, seconds)}
        except Exception as error:
            if windows == 1 or not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)):
                raise
            windows //= 2


def _timed(
    config: PretrainConfig, mesh: Mesh, implementation: Any, seconds: float
) -> dict[str, Any]:
    program = make_program(config, mesh, Tokenizer(), implementation)
    state = init_sharded(program.init, mesh)
    batch = shard_batch(_batch(config), mesh)
    compiled, cost = measure.compile_for(program.train_step, (state, batch))
    device, before = mesh.devices.flat[0], _peak(mesh.devices.flat[0])

    def call() -> Any:
        """Runs one step and waits for nothing."""
        nonlocal state  # the step consumes the one it is given
        state, metrics = compiled(state, batch)
        return metrics

    times = measure.timed_within(call, jax.block_until_ready, seconds)
    tokens = 1e3 * config.batch_size * config.max_length
    peak = _peak(device)
    return {
        **times,
        **cost,
        **_contents(compiled),
        "tokens_per_s": tokens / times["median_ms"],
        "min_tokens_per_s": tokens / times["max_ms"],
        "max_tokens_per_s": tokens / times["min_ms"],
        # The device keeps the highest figure of the whole process: a lower one does not show.
        "peak_bytes": peak if peak > before else None,
    }


def _compiled_ahead(
    config: PretrainConfig, *, mesh: Mesh, topology: Topology, implementation: str
) -> dict[str, Any]:
    """Compiles the step for devices that are not there, and looks for the kernels in it.

    Each device has the recipe's windows, or half of them, a quarter and so on until they fit.
    """
    wanted = KERNELS if config.max_length > _ONE_CHUNK else KERNELS[1:]
    wanted = wanted if topology.platform == "gpu" else TPU_KERNELS
    windows = config.batch_size
    while True:
        try:
            whole = dataclasses.replace(config, batch_size=windows * mesh.size)
            found = _compiled(whole, mesh, topology, implementation)
        except Exception as error:
            if windows == 1 or not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)):
                raise
        else:
            if windows == 1 or found.get("needed_bytes", 0) <= topology.memory:
                break
        windows //= 2
    missing = [name for name in wanted if name not in found["kernels"]]
    if found.get("needed_bytes", 0) > topology.memory:
        found["error"] = f"needs more than the {topology.memory / 2**30:.2f} GiB of the device"
    elif implementation != "chunked" and missing:
        found["error"] = f"compiled without {', '.join(missing)}"
    return found


def _compiled(
    config: PretrainConfig, mesh: Mesh, topology: Topology, implementation: str
) -> dict[str, Any]:
    with topology.compiling(mesh):
        options = for_platform(implementation, topology.platform)
        program = make_program(config, mesh, Tokenizer(), options)
        state = abstract(program.init, mesh)
        place = NamedSharding(mesh, BATCH)
        batch = {
            name: jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=place)
            for name, rows in _batch(config).items()
        }
        compiled, cost = measure.compile_for(program.train_step, (state, batch))
    return {"windows": config.batch_size, **cost, **_contents(compiled)}


def _contents(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Returns the bytes of memory of a compiled step, and the kernels whose names are in it."""
    text, memory = compiled.as_text() or "", compiled.memory_analysis()
    kernels = [name for name in (*KERNELS, *TPU_KERNELS) if name in text]
    found: dict[str, Any] = {"kernels": kernels}
    if memory is not None:
        found["needed_bytes"] = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
    return found


def _batch(config: PretrainConfig) -> dict[str, np.ndarray]:
    """Draws random bases, of which the usual share is masked."""
    rng, tokenizer = np.random.default_rng(0), Tokenizer()
    shape = (config.batch_size, config.max_length)
    bases = rng.choice(tokenizer.encode("ACGT"), size=shape).astype(np.int32)
    hidden = rng.random(shape) < config.data.mask_probability
    return {
        "input_ids": np.where(hidden, tokenizer.mask_id, bases).astype(np.int32),
        "labels": np.where(hidden, bases, tokenizer.pad_id).astype(np.int32),
        "weights": np.ones(shape, np.float32),
    }


def _peak(device: Any) -> int:
    """Returns the most bytes ever in use on the device, 0 if it does not report them."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use", 0)


def page(results: dict[str, Any]) -> str:
    """Writes the results as a page of Markdown."""
    head = ("model", "window", "windows", "scan", "tokens/s (min - max)", "ms per step")
    head += ("peak, GiB", "needed, GiB", "compiling, s", "kernels")
    rows = [_cells(row) for row in results["cases"]]
    notes = [
        "",
        "bfloat16, rematerialization. Peak is what the device reports, where this step "
        "needed more than all before it; needed is what the compiler sets aside.",
    ]
    return "\n".join([*title(results), *table(head, rows), *notes]) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    gib = lambda key: f"{row[key] / 2**30:.2f}" if row.get(key) else ""  # noqa: E731
    windows = str(row.get("windows", ""))
    cells = [row["recipe"], f"{row['length']:,}", windows, row["implementation"]]
    speed = milliseconds = ""
    if "error" in row:
        speed = row["error"].replace("|", "/")
    elif "median_ms" in row:
        low, high = (f"{row[f'{end}_tokens_per_s']:,.0f}" for end in ("min", "max"))
        speed, milliseconds = f"{row['tokens_per_s']:,.0f} ({low} - {high})", spread(row)
    compiling = f"{row['compile_ms'] / 1e3:.1f}" if "compile_ms" in row else ""
    kernels = str(len(row.get("kernels", ())))
    memory = [gib("peak_bytes"), gib("needed_bytes")]
    return [*cells, speed, milliseconds, *memory, compiling, kernels]


def _line(row: dict[str, Any]) -> str:
    about = f"{row['recipe']} at {row['length']:,} tokens, {row['implementation']}"
    if "error" in row:
        return f"{about}: {row['error']}"
    memory = f"{row['needed_bytes'] / 2**30:.2f} GiB" if "needed_bytes" in row else "memory unknown"
    if "median_ms" not in row:
        return f"{about}: compiled in {row['compile_ms'] / 1e3:.1f} s, {memory}"
    return f"{about}: {row['tokens_per_s']:,.0f} tokens/s, {row['windows']} windows, {memory}"
