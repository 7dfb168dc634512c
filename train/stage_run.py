"""Runs a stage: sets it up, and trains its steps."""

import dataclasses
import pathlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from caduceus_jax.kernels import default
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.watchdog import Watchdog
from caduceus_jax.train.config import PretrainConfig, plain, shared
from caduceus_jax.train.data.batches import prefetch_to_device
from caduceus_jax.train.data.inputs import Inputs
from caduceus_jax.train.data.sources import record_stores
from caduceus_jax.train.evaluation.eval_tasks import EvalTasks
from caduceus_jax.train.recorded import save_config
from caduceus_jax.train.run.beginning import RECORDED, TOKENIZER, Beginning, first_state
from caduceus_jax.train.run.checkpoint import Checkpoints, versions
from caduceus_jax.train.run.due import Due, Timetable
from caduceus_jax.train.run.goodput import InFlightSteps, TimeLedger
from caduceus_jax.train.run.interruption import Interruption
from caduceus_jax.train.run.markov import recorded_baselines
from caduceus_jax.train.run.profile import Profile
from caduceus_jax.train.run.recorder import Recorder
from caduceus_jax.train.run.report import Report
from caduceus_jax.train.sharding import abstract, check_batch_size, make_mesh, shard_batch
from caduceus_jax.train.stages import Stage
from caduceus_jax.train.step import TrainState, make_program


class Work(NamedTuple):
    """Holds what a stage works with."""

    mesh: Mesh
    inputs: Inputs
    init: Callable[[], TrainState]
    train_step: Any
    eval_step: Callable[[Any, Any], dict[str, jax.Array]]


class StageEnd(NamedTuple):
    """Says how a stage ended."""

    step: int  # the last step that was done
    stop: signal.Signals | None  # the signal that it was stopped by
    baselines: dict[str, float]


@dataclasses.dataclass
class Run:
    """Holds what the stages of a run have in common, in the order in which a step meets it."""

    beginning: Beginning
    folder: pathlib.Path
    total: int  # steps of all stages
    begun: float  # when this process began, on the monotonic clock
    profile: Profile
    timeline: TimeLedger
    watchdog: Watchdog
    interruption: Interruption
    timetable: Timetable
    report: Report
    checkpoints: Checkpoints
    eval_tasks: EvalTasks


def set_up(stage: Stage, tokenizer: Tokenizer, folder: pathlib.Path) -> Work:
    """Checks and opens everything that a stage needs; nothing is allocated.

    Args:
        stage: a stage of the run.
        tokenizer: letters to token ids.
        folder: the run's folder.

    Raises:
        UserError: the devices, the data or the other processes do not fit the settings.
    """
    config = stage.config
    mesh = make_mesh(fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    check_batch_size(config.batch_size, mesh, config.microbatches)
    inputs = Inputs(config, mesh, tokenizer, folder / "data")
    software = {f"version of {name}": version for name, version in versions().items()}
    software["implementation of the scan"] = _scan(config)
    processes.check_same({**shared(config), "genome": inputs.position(0), **software})
    default.agree()
    program = make_program(config, mesh, tokenizer)
    return Work(mesh, inputs, program.init, program.train_step, program.eval_step)


def _scan(config: PretrainConfig) -> str:
    """Returns the name of the scan that a run takes."""
    return default.name() if config.scan == "auto" else config.scan


def train_stage(run: Run, stage: Stage, work: Work, done: int) -> StageEnd:
    """Trains a stage to its end, or until a signal asks to stop.

    Args:
        run: the run that the stage is part of.
        stage: a stage with steps to do.
        work: opened for it by `set_up`.
        done: steps of the run that are done.
    """
    start = _state(run, stage, work, done)
    if processes.index() == 0:
        _record(run.beginning, work.inputs, run.folder)
    # ---- Baselines: what simple models reach on the held-out sequence ----
    baselines = processes.broadcast_from_first(
        "the baselines",
        lambda: recorded_baselines(
            work.inputs.splits, run.folder / "baselines.json", begun=done > 0
        ),
    )
    _introduce(run, stage, work, start.params, done, baselines)
    recorder = Recorder(
        stage.config,
        run.report,
        run.timeline,
        windows=len(work.inputs.train),
        first_step=done,
        stage=(stage.start, stage.examples),
    )
    for step, state, due, finished in _steps(run, stage, work, start, done):
        recorder.record(
            finished,
            due,
            step,
            lambda: _validate(run, work, state.averaged),  # noqa: B023
            lambda: (int(state.guard.last_good), run.checkpoints.latest),  # noqa: B023
        )
        run.watchdog.step(step)
        run.checkpoints.raise_failure()
        # While steps are skipped, no good checkpoint is replaced.
        if due.save and (not recorder.skipped_in_a_row or due.last):
            with run.timeline.during("save"):
                position = {**work.inputs.position(step), "stage": stage.index}
                settings = plain(run.beginning.config) | {"scan": _scan(run.beginning.config)}
                run.checkpoints.save(state, position, settings)
        if due.stop:
            out = run.beginning.config.out
            run.report.say(
                f"{due.stop.name}: saved step {step} in {out}; the same command continues"
            )
            return StageEnd(step, due.stop, baselines)
    return StageEnd(max(done, stage.end), None, baselines)


def _steps(
    run: Run, stage: Stage, work: Work, state: TrainState, done: int
) -> Iterator[tuple[int, TrainState, Due, Iterator[tuple[int, dict[str, float]]]]]:
    """Dispatches step after step, with the next batches on their way while one is computed.

    Yields the number of a step, the state after it, what is due, and the metrics of steps that are
    known to be finished.
    """
    batches = prefetch_to_device(
        work.inputs.train_batches(done - stage.start), lambda batch: shard_batch(batch, work.mesh)
    )
    flight = InFlightSteps(run.timeline)
    for step in range(done + 1, stage.end + 1):
        run.profile.before(step, state)
        with run.timeline.during("input"):
            batch = next(batches)
        with run.watchdog.work(f"stage {stage.index}"):  # the first is compiled
            state = flight.run(step, work.train_step, state, batch)
        if step == done + 1:
            run.report.say(f"first step after {time.monotonic() - run.begun:.0f} s")
        due = run.timetable.at(step, stop=run.interruption.after(step))
        yield step, state, due, flight.finished(wait=due.wait)


def _state(run: Run, stage: Stage, work: Work, done: int) -> TrainState:
    """Restores the state, or makes the first; each array is made where it will live."""
    with run.watchdog.work(f"the beginning of stage {stage.index}"):
        if run.checkpoints.latest is None:
            return first_state(run.beginning, work.init, work.mesh)
        run.checkpoints.wait()
        state, position = run.checkpoints.restore(abstract(work.init, work.mesh))
        if position.get("stage", 0) == stage.index:
            work.inputs.check(position)
        return stage.schedule_of(state, done)


def _record(beginning: Beginning, inputs: Inputs, folder: pathlib.Path) -> None:
    """Writes down what run this is, and with which genomes and tokenizer."""
    save_config(beginning.config, folder / RECORDED)
    if beginning.config.init:
        beginning.tokenizer.save_pretrained(folder / TOKENIZER)
    record_stores(inputs.stores, folder / "data")


def _validate(run: Run, work: Work, params: nnx.State) -> dict[str, float]:
    """Computes the losses, in nats per base, and the accuracy on the held-out windows.

    They are those of `_losses`; the scores of `eval_tasks` stand beside them.
    """
    stores = work.inputs.stores
    sums = [Counter[str]() for _ in stores]
    for genome, batch in work.inputs.validation_batches():
        with run.watchdog.work(f"validation of windows of {batch['labels'].shape[1]}"):
            found = jax.device_get(work.eval_step(params, shard_batch(batch, work.mesh)))
        sums[genome].update({name: float(value) for name, value in found.items()})
    row = _losses([store.name for store in stores], sums)
    with run.watchdog.paused():
        config, tokenizer = run.beginning.config, run.beginning.tokenizer
        return row | run.eval_tasks.scores(config.model, params, tokenizer)


def _losses(names: Sequence[str], sums: Sequence[Counter[str]]) -> dict[str, float]:
    """Divides what was summed over the held-out windows by the bases that it was summed over.

    Args:
        names: the genomes.
        sums: the counts of `eval_step`, added up over the windows of each genome.

    Returns:
        The losses in nats per base, and the accuracy; of several genomes, also the loss of each
        that has held-out windows, by its name, and its place in `data.fasta` if others share that.
    """
    total = sum(sums, Counter[str]())
    row = {
        "validation_loss": total["nats"] / max(total["predicted"], 1),
        "validation_masked_loss": total["masked_nats"] / max(total["masked"], 1),
        "validation_masked_accuracy": total["masked_right"] / max(total["masked"], 1),
    }
    if len(sums) > 1:
        for number, (name, part) in enumerate(zip(names, sums, strict=True), start=1):
            which = name if names.count(name) == 1 else f"{name} ({number})"
            if part["masked"]:
                row[f"validation_masked_loss/{which}"] = part["masked_nats"] / part["masked"]
    return row


def _introduce(
    run: Run, stage: Stage, work: Work, params: Any, done: int, baselines: dict[str, float]
) -> None:
    """Reports what a stage consists of before its first step."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    inputs, devices, report = work.inputs, work.mesh.size, run.report
    report.say(
        f"{parameters:,} parameters, {len(inputs.train):,} windows of "
        f"{stage.config.max_length:,} bases, {inputs.train_bases:,} bases to train on and "
        f"{inputs.held_out_bases:,} held out, {devices} {jax.default_backend()} "
        f"device{'s' * (devices > 1)}"
    )
    if stage.index and done == stage.start:
        report.say(f"stage {stage.index} begins after step {done} of {run.total}")
    elif done:
        report.say(f"continues at step {done} of {run.total}")
    else:
        report.say(
            "baselines on the held-out bases: order-0 entropy "
            f"{baselines['order_0_entropy']:.4f}, order-3 Markov model "
            f"{baselines['markov_3']:.4f} nats/base"
        )
    if done < stage.end:
        if stage.config.scan == "auto" and jax.default_backend() != "cpu":
            choice = default.choose()
            report.say(f"selective scan: {choice.name} ({choice.why})")
        report.say("compiling the training step")
