"""`caduceus-jax pretrain`: the whole of a run, in the order in which it happens."""

import pathlib
import shlex
import time

import jax
from flax import nnx

from caduceus_jax.configs import resolve_data
from caduceus_jax.devices import use_cores
from caduceus_jax.errors import UserError
from caduceus_jax.model import checkpoint
from caduceus_jax.model.run_checkpoint import CHECKPOINTS, load_model
from caduceus_jax.tokenizer import Tokenizer
from caduceus_jax.train import processes
from caduceus_jax.train.config import (
    PretrainConfig,
    check_same_run,
    names,
    plain,
    save_config,
    shared,
)
from caduceus_jax.train.data.batches import (
    ahead,
    check_drawable,
    train_batches,
    validation_batches,
)
from caduceus_jax.train.data.sources import check_place, make_place, open_stores, record_stores
from caduceus_jax.train.data.splits import bases, read_splits, without
from caduceus_jax.train.data.windows import Windows
from caduceus_jax.train.guards import too_many
from caduceus_jax.train.run.checkpoint import Checkpoints, Schedule
from caduceus_jax.train.run.goodput import Flight, Speed, Timeline, device_memory, time_lines
from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption
from caduceus_jax.train.run.markov import recorded_baselines
from caduceus_jax.train.run.profile import Profile
from caduceus_jax.train.run.report import FIGURE, Report, check_wandb, plot_losses, summary
from caduceus_jax.train.sharding import (
    abstract,
    check_batch_size,
    init_sharded,
    make_mesh,
    shard_batch,
    share_of_rows,
)
from caduceus_jax.train.step import make_program


@processes.end_together
def pretrain(config: PretrainConfig) -> None:
    """Trains a Caduceus model to predict masked bases of genomes.

    Settings come from a YAML recipe (--config, a file or the name of a shipped one) and from the
    options below, which override it.

    Ctrl-C or SIGTERM interrupts the run: it saves a checkpoint and exits with status 130 or 75,
    and the same command continues it as if nothing had happened.

    On several hosts, start the same command on each, with --out on a file system that all of them
    see; docs/pods.md has the commands.

    examples:
      caduceus-jax pretrain --config quickstart
      caduceus-jax pretrain --config quickstart --steps 500 --optimizer.lr 4e-3 --out runs/mine
      caduceus-jax pretrain --config caduceus_ps_1k --data.fasta genomes/hg38 --data.intervals \\
          sequences.bed

    Args:
        config: everything there is to choose.
    """
    begun = time.monotonic()

    # ---- Processes: this one alone, or several that train one model ----
    processes.start(config.coordinator, config.processes, config.process)
    process = processes.index()

    # ---- Config: the folder is this run's, or new ----
    tokenizer = Tokenizer()
    _check_vocabulary(config, tokenizer)
    if config.wandb:
        check_wandb()
    folder = pathlib.Path(config.out)
    recorded = folder / "config.yaml"
    processes.first_does("whose run it is", lambda: _check_folder(config, recorded))

    # ---- Mesh: all devices ----
    use_cores(config.batch_size * config.sequence * config.tensor // processes.count())
    mesh = make_mesh(fsdp=config.fsdp, sequence=config.sequence, tensor=config.tensor)
    check_batch_size(config.batch_size, mesh, config.microbatches)

    # ---- Data: windows of the two splits ----
    stores = open_stores(config.data, folder / "data")
    splits = read_splits(stores, config.data, config.max_length)
    shape = {"length": config.max_length, "inward": splits.inward}
    stride = config.data.stride or config.max_length
    train_windows = Windows(stores, splits.train, stride=stride, avoid=splits.avoid, **shape)
    held_out = Windows(stores, splits.validation, stride=config.max_length, **shape)
    check_drawable(train_windows, config.data)
    if not len(held_out):
        raise UserError("nothing is held out to validate on: raise data.validation_fraction")
    share, of_shares = share_of_rows(mesh)
    shares = {"batch_size": config.batch_size, "process": share, "processes": of_shares}

    data = make_place(0, stores, len(train_windows))
    processes.check_same({**shared(config), "genome": data})

    # ---- Model: what a step does; nothing is allocated yet ----
    graphdef, init, train_step, eval_step = make_program(config, mesh, tokenizer)

    def validate(params: nnx.State) -> dict[str, float]:
        fixed = validation_batches(held_out, config.data, tokenizer, **shares)
        parts = [jax.device_get(eval_step(params, shard_batch(batch, mesh))) for batch in fixed]
        sums = {key: sum(float(part[key]) for part in parts) for key in parts[0]}
        return {
            "validation_loss": sums["nats"] / max(sums["predicted"], 1),
            "validation_masked_loss": sums["masked_nats"] / max(sums["masked"], 1),
            "validation_masked_accuracy": sums["masked_right"] / max(sums["masked"], 1),
        }

    # ---- Restore, or begin: each array is made where it will live ----
    if process == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, recorded)
        record_stores(stores, folder / "data")
    with (
        Interruption() as interruption,
        Checkpoints(
            folder / CHECKPOINTS, config.keep, config.keep_every, config.strict
        ) as checkpoints,
    ):
        schedule = Schedule(config.checkpoint_every, config.keep_every, config.checkpoint_minutes)
        stop = None
        if checkpoints.latest is None:
            state = init_sharded(init, mesh)
        else:
            state, place = checkpoints.restore(abstract(init, mesh))
            check_place(place, stores, len(train_windows))
        first = int(state.step)
        report = Report(
            folder,
            steps=config.steps,
            first_step=first,
            speaks=process == 0,
            wandb=config.wandb,
            settings=plain(config),
        )
        timeline = Timeline(begun, report.spent)
        traced = config.profiled if process == 0 else range(0)
        with (
            report,
            Flight(timeline) as flight,
            Profile(traced, folder / "profile", report.say) as profile,
        ):
            # ---- What there is to beat ----
            lines = processes.first_does(
                "what there is to beat",
                lambda: recorded_baselines(splits, folder / "baselines.json", begun=first > 0),
            )
            to_train_on = bases(without(splits.train, splits.avoid))
            parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
            report.say(
                f"{parameters:,} parameters, {len(train_windows):,} windows of "
                f"{config.max_length:,} bases, {to_train_on:,} bases to train on and "
                f"{bases(splits.validation):,} held out, {mesh.size} {jax.default_backend()} "
                f"device{'s' * (mesh.size > 1)}"
            )
            report.say(
                f"continues at step {first} of {config.steps}"
                if first
                else f"to beat on the held-out bases: order-0 entropy "
                f"{lines['order_0_entropy']:.4f}, order-3 Markov model {lines['markov_3']:.4f} "
                "nats/base"
            )
            if first < config.steps:
                report.say("compiling the training step")

            # ---- Loop: the next batches are on their way while a step is computed ----
            read = train_batches(
                train_windows, config.data, tokenizer, seed=config.seed, first_step=first, **shares
            )
            batches = ahead(read, lambda batch: shard_batch(batch, mesh))
            speed, in_a_row = Speed(config, timeline), 0
            for step in range(first + 1, config.steps + 1):
                profile.before(step, state)
                with timeline.during("input"):
                    batch = next(batches)
                state = flight.run(step, train_step, state, batch)
                if step == first + 1:
                    report.say(f"first step after {time.monotonic() - begun:.0f} s")
                last = step == config.steps
                evaluating = last or step % config.eval_every == 0
                logged = evaluating or step % config.log_every == 0
                stop = interruption.after(step)
                saving = schedule.due(step, logged=logged) or stop or last

                # ---- What is known: of steps before this one, or of all ----
                for done, row in flight.finished(wait=evaluating or bool(saving)):
                    report.advance(done)
                    if done == first + 1:
                        speed.begin(done)
                    evaluated = evaluating and done == step
                    if evaluated or row["skipped"] or done % config.log_every == 0:
                        seen = done * config.batch_size
                        row |= speed.since_last(done) | timeline.goodput() | device_memory()
                        row |= {"examples": seen, "epochs": seen / len(train_windows)}
                        if evaluated:
                            with timeline.during("validate"):
                                row |= validate(state.params)
                        report.write(done, row)
                    in_a_row = int(row["skipped_in_a_row"])
                    if in_a_row >= config.max_skipped:
                        good = int(state.guard.last_good)
                        raise too_many(in_a_row, good, checkpoints.latest, config.out)
                # What led to steps that must be skipped takes no good checkpoint's place.
                if saving and (not in_a_row or stop or last):
                    with timeline.during("save"):
                        place = make_place(step, stores, len(train_windows))
                        checkpoints.save(state, place, plain(config))
                if stop:
                    report.say(
                        f"{stop.name}: saved step {step} in {folder}; the same command continues"
                    )
                    break

        # ---- Export: the model as others load it, from the checkpoint, and the curve ----
        with timeline.during("save"):
            checkpoints.wait()
        if process == 0:
            trained = folder / CHECKPOINTS / str(checkpoints.latest)
            checkpoint.save(folder / checkpoint.RUN_MODEL, *load_model(trained))
            plot_losses(report.rows, lines, folder / FIGURE)
        processes.gather("the export", "done")
    if stop and int(state.step) < config.steps:
        raise SystemExit(EXIT_STATUS[stop])
    if process == 0:
        held = f"{bases(splits.validation):,} held-out bases"
        if (limit := config.data.validation_windows) and limit < len(held_out):
            held += f" (the model: in {limit:,} of their {len(held_out):,} windows)"
        print("\n".join(summary(lines, report.rows, held)))
        timeline.count_until(time.monotonic())
        print("\n".join(time_lines(timeline.seconds)))
        print(f"curve: {folder / FIGURE}")
        print("\n".join(["next:", *_next_commands(config)]))


def _check_folder(config: PretrainConfig, recorded: pathlib.Path) -> None:
    """Makes sure that a folder which holds a run holds this one."""
    if recorded.exists() and config.resume == "never":
        raise UserError(f"{recorded.parent} holds a run already: choose another folder with --out")
    if recorded.exists():
        check_same_run(config, recorded)


def _check_vocabulary(config: PretrainConfig, tokenizer: Tokenizer) -> None:
    """Makes sure that the model speaks the tokens that the data will have."""
    size, model = tokenizer.vocab_size, config.model
    complement = tuple(tokenizer.complement.tolist())
    if model.vocab_size < size:
        raise UserError(f"model.vocab_size is {model.vocab_size}, but there are {size} tokens")
    if model.pad_token_id != tokenizer.pad_id or model.complement_map[:size] != complement:
        raise UserError(
            "model.pad_token_id and model.complement_map must be those of the tokenizer: leave "
            "them out"
        )


def _next_commands(config: PretrainConfig) -> list[str]:
    """What to type next, with this run's genome and what lies beside it under the same name."""
    genome = resolve_data(names(config.data.fasta)[0])
    if genome.is_dir():  # prepared from a file that may be anywhere
        genome = pathlib.Path("your_genome.fa")
    regions, variants = genome.with_suffix(".bed"), genome.with_suffix(".vcf")
    out = pathlib.Path(config.out)
    embed = ["embed", out, "your_sequences.fa"]
    if regions.is_file():
        embed = ["embed", out, regions, "--genome", genome]
    known = variants if variants.is_file() else "your_variants.vcf"
    score = ["score-variants", out, known, genome]
    return [
        "  " + shlex.join(map(str, ["caduceus-jax", *command, "--out", out / result]))
        for command, result in ((embed, "embeddings.parquet"), (score, "scored.vcf"))
    ]
