"""Fine-tuning with one seed: the epochs, the choice of one of them, and its test."""

import json
import logging
import pathlib
import time
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from caduceus_jax.errors import UserError
from caduceus_jax.files import finite, write_text
from caduceus_jax.train.finetuning import progress as stored
from caduceus_jax.train.finetuning.adapter import save_adapter
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.finetuning.examples import (
    Examples,
    Task,
    batches,
    buckets,
    count_batches,
    split,
)
from caduceus_jax.train.finetuning.metrics import better, check_defined, score
from caduceus_jax.train.finetuning.progress import Best, Progress
from caduceus_jax.train.finetuning.start import Start
from caduceus_jax.train.finetuning.step import (
    FinetuneProgram,
    describe,
    make_finetune_program,
    put,
)
from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption

log = logging.getLogger(__name__)


class Tuner:
    """Fine-tunes a model with one seed after the other, on programs that are compiled once.

    Args:
        config: the settings.
        task: the task to learn.
        start: the model that every seed begins with.
        mesh: the devices.
    """

    def __init__(self, config: FinetuneConfig, task: Task, start: Start, mesh: Mesh):
        self.config, self.task, self.start, self.mesh = config, task, start, mesh
        self.metric = config.metric or task.metric
        self._programs: dict[int, FinetuneProgram] = {}

    def run(self, seed: int, folder: pathlib.Path) -> tuple[dict[str, Any], np.ndarray]:
        """Trains with one seed, or continues where it was interrupted.

        Args:
            seed: the seed of the validation part, the head, the order and the strands.
            folder: gets metrics.jsonl, model/ and, for low-rank changes, adapter/.

        Returns:
            The result, and the outputs (examples, outputs) for the test sequences.

        Raises:
            UserError: the loss became NaN, or the score that chooses the epoch is not defined.
            SystemExit: a signal came; the seed's progress is saved.
        """
        config, task = self.config, self.task
        # ---- Data: of the training sequences, some validate ----
        train, validation = task.train, task.validation
        if validation is None:
            train, validation = split(train, config.data.validation_fraction, seed)
        check_defined(self.metric, validation.labels, task.classes)

        # ---- Model ----
        program = self._program(train)
        state, frozen = program.init(seed)
        found = stored.load(folder, state, state.trained)
        progress = found or Progress(1, 0, [], None, [], state, None, 0.0)
        if found:
            log.info(f"seed {seed} continues in epoch {found.epoch}, after batch {found.batch}")

        # ---- Epochs ----
        with Interruption() as interruption:
            while progress.epoch <= config.epochs and not self._stale(progress):
                progress = self._epoch(
                    program, frozen, train, validation, seed, folder, progress, interruption
                )
        best = progress.best
        if best is None:
            raise UserError(
                f"the validation {self.metric} of seed {seed} was not defined in any epoch, so "
                "that no epoch is the best: choose another metric, or raise "
                "data.validation_fraction"
            )

        # ---- Test, once, with the best epoch ----
        outputs = np.empty((0, 0))
        if task.test.sequences:
            outputs = self._predict(program, best.trained, frozen, task.test)
        model = program.export(best.trained, frozen)
        model.task = describe(config, task, self.start)
        model.save_pretrained(folder / "model")
        if config.method == "lora":
            save_adapter(folder / "adapter", config, self.start, model, best.trained)
        result = {
            "seed": seed,
            "best_epoch": best.epoch,
            "epochs": len(progress.rows),
            "steps": int(progress.state.step),
            "first_loss": progress.first_loss,
            "seconds": round(progress.seconds, 1),
            "trained_parameters": int(sum(x.size for x in jax.tree.leaves(best.trained))),
            "training_sequences": len(train.sequences),
            "validation": best.scores,
            "test": score(outputs, task.test.labels, task.kind) if len(outputs) else {},
        }
        return result, outputs

    def _epoch(
        self,
        program: FinetuneProgram,
        frozen: Any,
        train: Examples,
        validation: Examples,
        seed: int,
        folder: pathlib.Path,
        progress: Progress,
        interruption: Interruption,
    ) -> Progress:
        """Trains for the rest of an epoch and validates; returns where the next one begins."""
        begun = time.monotonic()
        config, epoch, state = self.config, progress.epoch, progress.state
        losses: list[Any] = []
        rng = np.random.default_rng((seed, epoch))
        read = self._batches(train, rng=rng, augment=self.start.augments, skip=progress.batch)
        for batch in read:
            state, metrics = program.train_step(state, frozen, put(batch, self.mesh))
            losses.append(metrics["loss"])
            if stop := interruption.after(int(state.step)):
                stored.save(folder, _advanced(progress, state, losses, begun))
                log.info(f"{stop.name}: saved in epoch {epoch}; the same command continues")
                raise SystemExit(EXIT_STATUS[stop])
        progress = _advanced(progress, state, losses, begun)
        values = np.asarray(progress.losses)
        if not np.isfinite(values).all():
            raise UserError(
                f"training loss became NaN in epoch {epoch} (seed {seed}): lower --optimizer.lr"
            )
        predicted = self._predict(program, state.trained, frozen, validation)
        scores = score(predicted, validation.labels, self.task.kind)
        row = {"epoch": epoch, "train_loss": float(values.mean()), **scores}
        log.info(
            f"seed {seed}, epoch {epoch}/{config.epochs}: training loss {values.mean():.4f}, "
            f"validation {self.metric} {scores[self.metric]:.4f}, {progress.seconds:.0f} s"
        )
        best = progress.best
        if better(scores[self.metric], best.score if best else None, self.metric):
            best = Best(scores[self.metric], epoch, jax.device_get(state.trained), scores)
        rows = [*progress.rows, finite(row)]
        lines = "".join(json.dumps(each) + "\n" for each in rows)
        write_text(folder / "metrics.jsonl", lines)
        after = Progress(epoch + 1, 0, [], progress.first_loss, rows, state, best, progress.seconds)
        stored.save(folder, after)
        return after

    def _stale(self, progress: Progress) -> bool:
        """Tells whether the validation score has not improved for as long as patience lasts."""
        patience, best = self.config.patience, progress.best
        done = progress.epoch - 1
        since = best.epoch if best else 0
        return bool(patience) and progress.batch == 0 and done - since >= patience

    def _program(self, train: Examples) -> FinetuneProgram:
        found = buckets(train, self.task.max_length, self.config.batch_size, single=self._single)
        steps = schedule_steps(self.config, self.task, count_batches(found, self.config.batch_size))
        if steps not in self._programs:
            self._programs[steps] = make_finetune_program(
                self.config, self.task, self.start, self.mesh, steps=steps
            )
        return self._programs[steps]

    @property
    def _single(self) -> bool:
        """Tells whether all rows have one length: the original's padding changes what is read."""
        return self.config.protocol == "paper" or self.task.kind == "tracks"

    def _batches(self, examples: Examples, **options: Any) -> Iterator[dict[str, np.ndarray]]:
        pad: Literal["left", "right"] = "left" if self.config.protocol == "paper" else "right"
        return batches(
            examples,
            self.start.tokenizer,
            self.task.max_length,
            batch_size=self.config.batch_size,
            pad=pad,
            single=self._single,
            least=self.mesh.size,
            **options,
        )

    def _predict(
        self, program: FinetuneProgram, trained: Any, frozen: Any, examples: Examples
    ) -> np.ndarray:
        """Computes the outputs of all examples, in their order."""
        outputs: np.ndarray | None = None
        for batch in self._batches(examples):
            found = np.asarray(program.predict(trained, frozen, put(batch, self.mesh)))
            if outputs is None:
                outputs = np.empty((len(examples.sequences), *found.shape[1:]), found.dtype)
            rows = batch["rows"][: int(batch["weights"].sum())]
            outputs[rows] = found[: len(rows)]
        assert outputs is not None
        return outputs


def schedule_steps(config: FinetuneConfig, task: Task, epoch_steps: int) -> int:
    """Computes the length of the learning rate's schedule: the run's own, or the original's.

    Args:
        config: the settings; their protocol decides.
        task: the task, whose sequences the original counts.
        epoch_steps: number of batches of an epoch.
    """
    if config.protocol == "clean":
        return config.epochs * epoch_steps
    # The original counts the test sequences, and those that validate, as trained on.
    held = len(task.validation.sequences) if task.validation else 0
    rows = len(task.train.sequences) + held + len(task.test.sequences)
    return config.epochs * -(-rows // config.batch_size)


def _advanced(progress: Progress, state: Any, losses: list[Any], begun: float) -> Progress:
    """Returns the progress after some batches of an epoch."""
    values = [*progress.losses, *map(float, jax.device_get(losses))]
    first = progress.first_loss
    return progress._replace(
        batch=progress.batch + len(losses),
        losses=values,
        first_loss=first if first is not None or not values else values[0],
        state=state,
        seconds=progress.seconds + time.monotonic() - begun,
    )
