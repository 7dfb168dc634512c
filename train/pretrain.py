"""`caduceus-jax pretrain`: the whole of a run, in the order in which it happens."""

import pathlib
import shlex
import time

from caduceus_jax.configs import resolve_data
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.run_checkpoint import CHECKPOINTS, load_model
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.cluster.lease import Lease
from caduceus_jax.train.cluster.watchdog import Watchdog
from caduceus_jax.train.config import PretrainConfig, plain
from caduceus_jax.train.data.config import as_list
from caduceus_jax.train.evaluation.eval_tasks import EvalTasks
from caduceus_jax.train.recorded import check_same_run, read_config
from caduceus_jax.train.run.beginning import RECORDED, Beginning, begin
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.run.due import Timetable
from caduceus_jax.train.run.goodput import TimeLedger, time_lines
from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption
from caduceus_jax.train.run.loss_curve import FIGURE, plot_losses, summary
from caduceus_jax.train.run.profile import Profile
from caduceus_jax.train.run.report import Report, check_wandb
from caduceus_jax.train.sharding import abstract, abstract_batch
from caduceus_jax.train.stage_run import Run, set_up, train_stage
from caduceus_jax.train.stages import Stage, devices_in_use, stages_of
from caduceus_jax.train.storage.remote import is_remote
from caduceus_jax.train.storage.run_folder import RunFolder


@processes.end_together
def pretrain(config: PretrainConfig) -> None:
    """Trains a Caduceus model to predict masked bases of genomes.

    Settings come from a YAML recipe (--config, a file or the name of a shipped one) and from the
    options below, which override it.

    Ctrl-C or SIGTERM interrupts the run: it saves a checkpoint and exits with status 130 or 75,
    and the same command continues it as if nothing had happened.

    On several hosts, start the same command on each, with --out in a bucket or a folder that all of
    them see. Commands for pods and clusters: https://caduceus-jax.github.io/caduceus-jax/pods/

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
    # Before the model of `init` is read: once JAX computes, its devices and flags are settled.
    use_cores(devices_in_use(stages_of(config)) // processes.count())
    with RunFolder(config.out) as place:
        folder = place.path
        beginning = begin(config, folder)
        config, stages = beginning.config, stages_of(beginning.config)
        if config.wandb:
            check_wandb()

        lease = Lease(folder, shared=not is_remote(config.out))
        with lease, Watchdog(config.watchdog_seconds) as watchdog:
            # ---- Config: the folder is this run's, or new ----
            processes.broadcast_from_first("whose run it is", lambda: _check_folder(config, folder))
            if config.dry_run:
                with watchdog.paused():
                    return _dry_run(stages, beginning.tokenizer, folder)
            _train(beginning, stages, begun, place, lease, watchdog)


def _train(
    beginning: Beginning,
    stages: list[Stage],
    begun: float,
    place: RunFolder,
    lease: Lease,
    watchdog: Watchdog,
) -> None:
    """Trains what is left of a run, exports the model and says how it went."""
    config, first = beginning.config, processes.index() == 0
    folder = place.path
    keeping = (folder / CHECKPOINTS, config.keep, config.keep_every, config.strict)
    checkpoints = Checkpoints(
        *keeping,
        check=lease.check,
        saved=place.saved,
        one_writer=is_remote(config.out) and processes.count() > 1,
        watchdog=watchdog,
    )
    with Interruption() as signals, checkpoints:
        done = _check_checkpoint(config, checkpoints)
        pending = [stage for stage in stages if stage.end > done] or stages[-1:]
        work = set_up(pending[0], beginning.tokenizer, folder)
        tasks = EvalTasks(as_list(config.eval_tasks))
        report = _report(config, folder, total := stages[-1].end, done)
        timeline = TimeLedger(begun, report.spent)
        timetable = Timetable(config, [stage.end for stage in stages])
        traced = config.profiled if first else range(0)
        with report, Profile(traced, folder / "profile", report.say) as profile:
            run = Run(
                *(beginning, folder, total, begun, profile, timeline),
                *(watchdog, signals, timetable, report, checkpoints, tasks),
            )

            # ---- Stages: mesh, data and model of each, and its steps ----
            for stage in pending:
                if stage is not pending[0]:
                    work = set_up(stage, beginning.tokenizer, folder)
                end = train_stage(run, stage, work, done)
                done = end.step
                if end.stop:
                    break

        # ---- Export: the model as others load it, from the checkpoint, and the curve ----
        with timeline.during("save"), watchdog.paused():
            checkpoints.wait()
            if first:
                _export(run, end.baselines)
            processes.all_gather("the export", "done")
    if end.stop and done < total:
        raise SystemExit(EXIT_STATUS[end.stop])
    if first:
        print("\n".join(summary(end.baselines, report.rows, work.inputs.held_out_in_words())))
        timeline.count_until(time.monotonic())
        print("\n".join(time_lines(timeline.seconds)))
        print(f"curve: {config.out}/{FIGURE}")
        print("\n".join(["next:", *_next_commands(config)]))


def _check_checkpoint(config: PretrainConfig, checkpoints: Checkpoints) -> int:
    """Checks that the newest checkpoint is of this run; returns the number of its steps."""
    if not checkpoints.latest:
        return 0
    processes.broadcast_from_first(
        "the checkpoint's settings",
        lambda: check_same_run(config, checkpoints.recorded(), checkpoints.folder),
    )
    return checkpoints.latest


def _report(config: PretrainConfig, folder: pathlib.Path, total: int, done: int) -> Report:
    return Report(
        folder,
        steps=total,
        first_step=done,
        speaks=processes.index() == 0,
        wandb=config.wandb,
        settings=plain(config),
    )


def _export(run: Run, baselines: dict[str, float]) -> None:
    """Writes the model of the newest checkpoint in Hugging Face layout, and the curve."""
    trained = run.folder / CHECKPOINTS / str(run.checkpoints.latest)
    model = load_model(trained)
    checkpoint.save(run.folder / checkpoint.RUN_MODEL, *model, tokenizer=run.beginning.tokenizer)
    plot_losses(run.report.rows, baselines, run.folder / FIGURE)


def _dry_run(stages: list[Stage], tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    """Compiles a step of each stage and reports what it needs; nothing is trained or saved."""
    EvalTasks(as_list(stages[0].config.eval_tasks))
    for stage in stages:
        work, config = set_up(stage, tokenizer, folder), stage.config
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
    if genome.is_dir() or is_remote(
        as_list(config.data.fasta)[0]
    ):  # prepared from a file that may be anywhere
        genome = pathlib.Path("your_genome.fa")
    regions, variants = genome.with_suffix(".bed"), genome.with_suffix(".vcf")
    out = "your_copy_of_the_run" if is_remote(config.out) else config.out
    embed = ["embed", out, "your_sequences.fa"]
    if regions.is_file():
        embed = ["embed", out, regions, "--genome", genome]
    known = variants if variants.is_file() else "your_variants.vcf"
    score = ["score-variants", out, known, "--genome", genome]
    return [
        "  " + shlex.join(map(str, ["caduceus-jax", *command, "--out", f"{out}/{result}"]))
        for command, result in ((embed, "embeddings.parquet"), (score, "scored.vcf"))
    ]
