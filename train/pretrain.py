"""`caduceus-jax pretrain`: the whole of a run, in the order in which it happens."""

import collections
import pathlib
import shlex
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from caduceus_jax.configs import resolve_data
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.run_checkpoint import CHECKPOINTS, load_model
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.lease import Lease
from caduceus_jax.train.cluster.watchdog import Watchdog
from caduceus_jax.train.config import (
    PretrainConfig,
    as_list,
    plain,
    shared,
)
from caduceus_jax.train.data.batches import prefetch_to_device
from caduceus_jax.train.data.inputs import Inputs
from caduceus_jax.train.data.sources import record_stores
from caduceus_jax.train.recorded import check_same_run, read_config, save_config
from caduceus_jax.train.run.beginning import (
    RECORDED,
    TOKENIZER,
    Beginning,
    begin,
    first_state,
)
from caduceus_jax.train.run.checkpoint import Checkpoints, versions
from caduceus_jax.train.run.due import Timetable
from caduceus_jax.train.run.goodput import InFlightSteps, TimeLedger, time_lines
from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption
from caduceus_jax.train.run.loss_curve import FIGURE, plot_losses, summary
from caduceus_jax.train.run.markov import recorded_baselines
from caduceus_jax.train.run.profile import Profile
from caduceus_jax.train.run.recorder import Recorder
from caduceus_jax.train.run.report import Report, check_wandb
from caduceus_jax.train.sharding import (
    abstract,
    abstract_batch,
    check_batch_size,
    make_mesh,
    shard_batch,
)
from caduceus_jax.train.stages import Stage, devices_in_use, stages_of
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
    stages = stages_of(config)
    if config.wandb:
        check_wandb()
    use_cores(devices_in_use(stages) // processes.count())

    with Lease(folder) as lease, Watchdog(config.watchdog_seconds) as watchdog:
        # ---- Config: the folder is this run's, or new ----
        processes.broadcast_from_first("whose run it is", lambda: _check_folder(config, folder))
        if config.dry_run:
            with watchdog.paused():
                return _dry_run(stages, tokenizer, folder)
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
            done, stop, total = checkpoints.latest or 0, None, stages[-1].end
            if done:
                processes.broadcast_from_first(
                    "the checkpoint's settings",
                    lambda: check_same_run(config, checkpoints.recorded(), checkpoints.folder),
                )
            pending = [stage for stage in stages if stage.end > done] or stages[-1:]
            work = _set_up(pending[0], tokenizer, folder)
            report = Report(
                folder,
                steps=total,
                first_step=done,
                speaks=first,
                wandb=config.wandb,
                settings=plain(config),
            )
            timeline = TimeLedger(begun, report.spent)
            timetable = Timetable(config, [stage.end for stage in stages])
            traced = config.profiled if first else range(0)
            with report, Profile(traced, folder / "profile", report.say) as profile:
                for stage in pending:
                    # ---- Mesh, data, model of the stage: nothing is allocated yet ----
                    if stage is not pending[0]:
                        work = _set_up(stage, tokenizer, folder)
                    inputs, mesh = work.inputs, work.mesh

                    # ---- Restore, or begin: each array is made where it will live ----
                    with watchdog.work(f"the beginning of stage {stage.index}"):
                        if checkpoints.latest is None:
                            state = first_state(beginning, work.init, mesh)
                        else:
                            checkpoints.wait()
                            state, position = checkpoints.restore(abstract(work.init, mesh))
                            if position.get("stage", 0) == stage.index:
                                inputs.check(position)
                        state = stage.schedule_of(state, done)
                    if first:
                        _record(beginning, inputs, folder)

                    # ---- Baselines: what simple models reach on the held-out sequence ----
                    baselines = processes.broadcast_from_first(
                        "the baselines",
                        lambda: recorded_baselines(
                            inputs.splits,  # noqa: B023
                            folder / "baselines.json",
                            begun=done > 0,  # noqa: B023
                        ),
                    )
                    _introduce(stage, total, report, work, state.params, done, baselines)

                    # ---- Loop: the next batches are on their way while a step is computed ----
                    batches = prefetch_to_device(
                        inputs.train_batches(done - stage.start),
                        lambda batch: shard_batch(batch, mesh),  # noqa: B023
                    )
                    flight = InFlightSteps(timeline)
                    recorder = Recorder(
                        stage.config,
                        report,
                        timeline,
                        windows=len(inputs.train),
                        first_step=done,
                        stage=(stage.start, stage.examples),
                    )
                    for step in range(done + 1, stage.end + 1):
                        profile.before(step, state)
                        with timeline.during("input"):
                            batch = next(batches)
                        with watchdog.work(f"stage {stage.index}"):  # compiled first
                            state = flight.run(step, work.train_step, state, batch)
                        if step == done + 1:
                            report.say(f"first step after {time.monotonic() - begun:.0f} s")
                        due = timetable.at(step, stop=interruption.after(step))
                        recorder.record(
                            flight.finished(wait=due.wait),
                            due,
                            step,
                            lambda: _validate(work, state.averaged, watchdog),  # noqa: B023
                            lambda: (int(state.guard.last_good), checkpoints.latest),  # noqa: B023
                        )
                        watchdog.step(step)
                        # While steps are skipped, no good checkpoint is replaced.
                        if due.save and (not recorder.skipped_in_a_row or due.last):
                            with timeline.during("save"):
                                position = {**inputs.position(step), "stage": stage.index}
                                checkpoints.save(state, position, plain(config))
                        if stop := due.stop:
                            report.say(
                                f"{stop.name}: saved step {step} in {folder}; the same command "
                                "continues"
                            )
                            break
                    done = int(state.step)
                    if stop:
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
    if stop and done < total:
        raise SystemExit(EXIT_STATUS[stop])
    if first:
        print("\n".join(summary(baselines, report.rows, inputs.held_out_in_words())))
        timeline.count_until(time.monotonic())
        print("\n".join(time_lines(timeline.seconds)))
        print(f"curve: {folder / FIGURE}")
        print("\n".join(["next:", *_next_commands(config)]))


class Work(NamedTuple):
    """What a stage works with."""

    mesh: Mesh
    inputs: Inputs
    init: Callable[[], TrainState]
    train_step: Any
    eval_step: Callable[[Any, Any], dict[str, jax.Array]]


def _set_up(stage: Stage, tokenizer: Tokenizer, folder: pathlib.Path) -> Work:
    """Checks and opens everything that a stage needs; nothing is allocated."""
    config = stage.config
    mesh = make_mesh(fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    check_batch_size(config.batch_size, mesh, config.microbatches)
    inputs = Inputs(config, mesh, tokenizer, folder / "data")
    software = {f"version of {name}": version for name, version in versions().items()}
    processes.check_same({**shared(config), "genome": inputs.position(0), **software})
    program = make_program(config, mesh, tokenizer)
    return Work(mesh, inputs, program.init, program.train_step, program.eval_step)


def _record(beginning: Beginning, inputs: Inputs, folder: pathlib.Path) -> None:
    """Writes down what run this is, and with which genomes and tokenizer."""
    save_config(beginning.config, folder / RECORDED)
    if beginning.config.init:
        beginning.tokenizer.save_pretrained(folder / TOKENIZER)
    record_stores(inputs.stores, folder / "data")


def _validate(work: Work, params: nnx.State, watchdog: Watchdog) -> dict[str, float]:
    """Computes the losses, in nats per base, and the accuracy on the held-out windows.

    Of several genomes, also the loss of each by its name.
    """
    stores = work.inputs.stores
    sums = [collections.Counter[str]() for _ in stores]
    for genome, batch in work.inputs.validation_batches():
        with watchdog.work(f"validation of windows of {batch['labels'].shape[1]}"):
            found = jax.device_get(work.eval_step(params, shard_batch(batch, work.mesh)))
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
        for store, part in zip(stores, sums, strict=True):
            loss = part["masked_nats"] / max(part["masked"], 1)
            row[f"validation_masked_loss/{store.name}"] = loss
    return row


def _introduce(
    stage: Stage,
    total: int,
    report: Report,
    work: Work,
    params: nnx.State,
    done: int,
    baselines: dict[str, float],
) -> None:
    """Reports what a stage consists of before its first step."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    inputs, devices = work.inputs, work.mesh.size
    report.say(
        f"{parameters:,} parameters, {len(inputs.train):,} windows of "
        f"{stage.config.max_length:,} bases, {inputs.train_bases:,} bases to train on and "
        f"{inputs.held_out_bases:,} held out, {devices} {jax.default_backend()} "
        f"device{'s' * (devices > 1)}"
    )
    if stage.index and done == stage.start:
        report.say(f"stage {stage.index} begins after step {done} of {total}")
    elif done:
        report.say(f"continues at step {done} of {total}")
    else:
        report.say(
            "baselines on the held-out bases: order-0 entropy "
            f"{baselines['order_0_entropy']:.4f}, order-3 Markov model "
            f"{baselines['markov_3']:.4f} nats/base"
        )
    if done < stage.end:
        report.say("compiling the training step")


def _dry_run(stages: list[Stage], tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    """Compiles a step of each stage and reports what it needs; nothing is trained or saved."""
    for stage in stages:
        work, config = _set_up(stage, tokenizer, folder), stage.config
        batch = abstract_batch(config.batch_size, config.max_length, work.mesh)
        begun = time.monotonic()
        compiled = work.train_step.lower(abstract(work.init, work.mesh), batch).compile()
        seconds, stats = time.monotonic() - begun, compiled.memory_analysis()
        needed, devices = "", work.mesh.size
        if stats is not None:
            size = stats.argument_size_in_bytes + stats.temp_size_in_bytes
            needed = f", {size / 2**30:.2f} GiB on each"
        if processes.index() == 0:
            print(
                f"dry run: {len(work.inputs.train):,} windows to train on, "
                f"{len(work.inputs.held_out):,} held out; a step of {config.batch_size} windows of "
                f"{config.max_length:,} tokens was compiled for {devices} "
                f"device{'s' * (devices > 1)} in {seconds:.1f} s{needed}"
            )
    processes.all_gather("the dry run", "done")


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
