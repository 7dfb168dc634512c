"""`caduceus-jax pretrain`: the whole of a run, in the order in which it happens."""

import collections
import pathlib
import shlex
import time
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from caduceus_jax.configs import resolve_data
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.run_checkpoint import CHECKPOINTS, load_model
from caduceus_jax.train import processes
from caduceus_jax.train.config import (
    PretrainConfig,
    as_list,
    check_same_run,
    plain,
    read_config,
    save_config,
    shared,
)
from caduceus_jax.train.data.batches import prefetch_to_device
from caduceus_jax.train.data.inputs import Inputs
from caduceus_jax.train.data.sources import record_stores
from caduceus_jax.train.run.beginning import RECORDED, TOKENIZER, begin, first_state
from caduceus_jax.train.run.checkpoint import Checkpoints, versions
from caduceus_jax.train.run.due import Timetable
from caduceus_jax.train.run.goodput import InFlightSteps, TimeLedger, time_lines
from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption
from caduceus_jax.train.run.lease import Lease
from caduceus_jax.train.run.loss_curve import FIGURE, plot_losses, summary
from caduceus_jax.train.run.markov import recorded_baselines
from caduceus_jax.train.run.profile import Profile
from caduceus_jax.train.run.recorder import Recorder
from caduceus_jax.train.run.report import Report, check_wandb
from caduceus_jax.train.run.watchdog import Watchdog
from caduceus_jax.train.sharding import (
    abstract,
    abstract_batch,
    check_batch_size,
    make_mesh,
    shard_batch,
)
from caduceus_jax.train.step import TrainState, make_program


@processes.end_together
def pretrain(config: PretrainConfig) -> None:
    """Trains a Caduceus model to predict masked bases of genomes.

    Settings come from a YAML recipe (--config, a file or the name of a shipped one) and from the
    options below, which override it.

    Ctrl-C or SIGTERM interrupts the run: it saves a checkpoint and exits with status 130 or 75,
    and the same command continues it as if nothing had happened.

    On several hosts, start the same command on each, with --out on a file system that all of them
    see. Commands for pods and clusters: https://caduceus-jax.github.io/caduceus-jax/pods/

    examples:
      caduceus-jax pretrain --config quickstart
      caduceus-jax pretrain --config quickstart --steps 500 --optimizer.lr 4e-3 --out runs/mine
      caduceus-jax pretrain --config caduceus_ps_1k --data.fasta genomes/hg38 --data.intervals \\
          sequences.bed

    Args:
        config: the settings of the run.
    """
    begun = time.monotonic()

    # ---- Processes: this one alone, or several that train one model ----
    processes.start(config.coordinator, config.processes, config.process)
    folder, first = pathlib.Path(config.out), processes.index() == 0
    beginning = begin(config, folder)
    config, tokenizer = beginning.config, beginning.tokenizer
    if config.wandb:
        check_wandb()

    # ---- Mesh: all devices ----
    use_cores(config.batch_size * config.sequence * config.tensor // processes.count())
    mesh = make_mesh(fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    check_batch_size(config.batch_size, mesh, config.microbatches)

    with Lease(folder) as lease, Watchdog(config.watchdog_seconds) as watchdog:
        # ---- Config: the folder is this run's, or new ----
        processes.broadcast_from_first("whose run it is", lambda: _check_folder(config, folder))

        # ---- Data: windows of the two splits ----
        inputs = Inputs(config, mesh, tokenizer, folder / "data")
        processes.check_same({**shared(config), "genome": inputs.position(0), **_software(config)})

        # ---- Model: what a step does; nothing is allocated yet ----
        _, init, train_step, eval_step = make_program(config, mesh, tokenizer)

        if config.dry_run:
            with watchdog.paused():
                return _dry_run(config, inputs, init, train_step, mesh)

        # ---- Restore, or begin: each array is made where it will live ----
        with (
            Interruption() as interruption,
            Checkpoints(
                folder / CHECKPOINTS,
                config.keep,
                config.keep_every,
                config.strict,
                check=lease.check,
            ) as checkpoints,
        ):
            if checkpoints.latest is None:
                state = first_state(beginning, init, mesh)
            else:
                processes.broadcast_from_first(
                    "the checkpoint's settings",
                    lambda: check_same_run(config, checkpoints.recorded(), checkpoints.folder),
                )
                state, position = checkpoints.restore(abstract(init, mesh))
                inputs.check(position)
            if first:
                save_config(config, folder / RECORDED)
                if config.init:
                    tokenizer.save_pretrained(folder / TOKENIZER)
                record_stores(inputs.stores, folder / "data")
            done = int(state.step)
            report = Report(
                folder,
                steps=config.steps,
                first_step=done,
                speaks=first,
                wandb=config.wandb,
                settings=plain(config),
            )
            timeline = TimeLedger(begun, report.spent)
            traced = config.profiled if first else range(0)
            stop = None
            with report, Profile(traced, folder / "profile", report.say) as profile:
                # ---- Baselines: what simple models reach on the held-out sequence ----
                baselines = processes.broadcast_from_first(
                    "the baselines",
                    lambda: recorded_baselines(
                        inputs.splits, folder / "baselines.json", begun=done > 0
                    ),
                )
                _introduce(config, report, inputs, state.params, mesh.size, done, baselines)

                # ---- Loop: the next batches are on their way while a step is computed ----
                batches = prefetch_to_device(
                    inputs.train_batches(done), lambda batch: shard_batch(batch, mesh)
                )
                flight, timetable = InFlightSteps(timeline), Timetable(config)
                recorder = Recorder(
                    config, report, timeline, windows=len(inputs.train), first_step=done
                )
                for step in range(done + 1, config.steps + 1):
                    profile.before(step, state)
                    with timeline.during("input"):
                        batch = next(batches)
                    state = flight.run(step, train_step, state, batch)
                    if step == done + 1:
                        report.say(f"first step after {time.monotonic() - begun:.0f} s")
                    due = timetable.at(step, stop=interruption.after(step))
                    recorder.record(
                        flight.finished(wait=due.wait),
                        due,
                        step,
                        lambda: _validate(eval_step, state.averaged, inputs, mesh, watchdog),  # noqa: B023
                        lambda: (int(state.guard.last_good), checkpoints.latest),  # noqa: B023
                    )
                    watchdog.step(step)
                    # While steps are skipped, no good checkpoint is replaced.
                    if due.save and (not recorder.skipped_in_a_row or due.last):
                        with timeline.during("save"):
                            checkpoints.save(state, inputs.position(step), plain(config))
                    if stop := due.stop:
                        report.say(
                            f"{stop.name}: saved step {step} in {folder}; the same command "
                            "continues"
                        )
                        break

            # ---- Export: the model as others load it, from the checkpoint, and the curve ----
            with timeline.during("save"), watchdog.paused():
                checkpoints.wait()
                if first:
                    trained = folder / CHECKPOINTS / str(checkpoints.latest)
                    model = load_model(trained)
                    checkpoint.save(folder / checkpoint.RUN_MODEL, *model, tokenizer=tokenizer)
                    plot_losses(report.rows, baselines, folder / FIGURE)
                processes.all_gather("the export", "done")
    if stop and int(state.step) < config.steps:
        raise SystemExit(EXIT_STATUS[stop])
    if first:
        print("\n".join(summary(baselines, report.rows, inputs.held_out_in_words())))
        timeline.count_until(time.monotonic())
        print("\n".join(time_lines(timeline.seconds)))
        print(f"curve: {folder / FIGURE}")
        print("\n".join(["next:", *_next_commands(config)]))


def _validate(
    eval_step: Callable[[Any, Any], dict[str, jax.Array]],
    params: nnx.State,
    inputs: Inputs,
    mesh: Mesh,
    watchdog: Watchdog,
) -> dict[str, float]:
    """Computes the losses, in nats per base, and the accuracy on the held-out windows.

    Of several genomes, also the loss of each by its name.
    """
    sums = [collections.Counter[str]() for _ in inputs.stores]
    for genome, batch in inputs.validation_batches():
        with watchdog.work("validation"):
            found = jax.device_get(eval_step(params, shard_batch(batch, mesh)))
        sums[genome].update({name: float(value) for name, value in found.items()})
    total = collections.Counter[str]()
    for part in sums:
        total.update(part)
    row = {
        "validation_loss": total["nats"] / max(total["predicted"], 1),
        "validation_masked_loss": total["masked_nats"] / max(total["masked"], 1),
        "validation_masked_accuracy": total["masked_right"] / max(total["masked"], 1),
    }
    if len(sums) > 1:
        for store, part in zip(inputs.stores, sums, strict=True):
            loss = part["masked_nats"] / max(part["masked"], 1)
            row[f"validation_masked_loss/{store.name}"] = loss
    return row


def _introduce(
    config: PretrainConfig,
    report: Report,
    inputs: Inputs,
    params: nnx.State,
    devices: int,
    done: int,
    baselines: dict[str, float],
) -> None:
    """Reports what the run consists of before its first step."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    report.say(
        f"{parameters:,} parameters, {len(inputs.train):,} windows of {config.max_length:,} bases, "
        f"{inputs.train_bases:,} bases to train on and {inputs.held_out_bases:,} held out, "
        f"{devices} {jax.default_backend()} device{'s' * (devices > 1)}"
    )
    report.say(
        f"continues at step {done} of {config.steps}"
        if done
        else f"baselines on the held-out bases: order-0 entropy "
        f"{baselines['order_0_entropy']:.4f}, order-3 Markov model {baselines['markov_3']:.4f} "
        "nats/base"
    )
    if done < config.steps:
        report.say("compiling the training step")


def _dry_run(
    config: PretrainConfig,
    inputs: Inputs,
    init: Callable[[], TrainState],
    train_step: Any,
    mesh: Mesh,
) -> None:
    """Compiles a step and reports what it needs; nothing is trained or saved."""
    batch = abstract_batch(config.batch_size, config.max_length, mesh)
    begun = time.monotonic()
    compiled = train_step.lower(abstract(init, mesh), batch).compile()
    seconds, stats = time.monotonic() - begun, compiled.memory_analysis()
    if processes.index() == 0:
        needed = ""
        if stats is not None:
            size = stats.argument_size_in_bytes + stats.temp_size_in_bytes
            needed = f", {size / 2**30:.2f} GiB on each"
        print(
            f"dry run: {len(inputs.train):,} windows to train on, {len(inputs.held_out):,} held "
            f"out; a step of {config.batch_size} windows of {config.max_length:,} tokens was "
            f"compiled for {mesh.size} device{'s' * (mesh.size > 1)} in {seconds:.1f} s{needed}"
        )
    processes.all_gather("the dry run", "done")


def _software(config: PretrainConfig) -> dict[str, str]:
    """Returns what must be the same in all processes beside settings and data."""
    return {f"version of {name}": version for name, version in versions().items()}


def _check_folder(config: PretrainConfig, folder: pathlib.Path) -> None:
    """Checks that a folder which holds a run holds this one."""
    recorded = folder / RECORDED
    if recorded.exists() and config.resume == "never":
        raise UserError(f"{folder} holds a run already: choose another folder with --out")
    if recorded.exists():
        check_same_run(config, read_config(recorded), recorded)


def _next_commands(config: PretrainConfig) -> list[str]:
    """Lists commands for the trained model, with the run's genome and the files beside it."""
    genome = resolve_data(as_list(config.data.fasta)[0])
    if genome.is_dir():  # prepared from a file that may be anywhere
        genome = pathlib.Path("your_genome.fa")
    regions, variants = genome.with_suffix(".bed"), genome.with_suffix(".vcf")
    out = pathlib.Path(config.out)
    embed = ["embed", out, "your_sequences.fa"]
    if regions.is_file():
        embed = ["embed", out, regions, "--genome", genome]
    known = variants if variants.is_file() else "your_variants.vcf"
    score = ["score-variants", out, known, "--genome", genome]
    return [
        "  " + shlex.join(map(str, ["caduceus-jax", *command, "--out", out / result]))
        for command, result in ((embed, "embeddings.parquet"), (score, "scored.vcf"))
    ]
