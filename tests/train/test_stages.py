"""Curricula: stages of longer windows, interrupted and continued, and added to a finished run."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.pretrain import pretrain
from caduceus_jax.train.run.interruption import Interruption
from caduceus_jax.train.run.report import read_metrics
from caduceus_jax.train.stages import devices_in_use, stages_of

CURRICULUM = [
    {"steps": 3, "max_length": 32, "batch_size": 4, "lr": 1e-2},
    {"steps": 2, "max_length": 64, "batch_size": 2, "sequence": 2, "lr": 5e-3},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 3000))
    (folder / "genome.fa").write_text(f">one\n{text}\n")
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return PretrainConfig(
        out=str(folder / "whole"),
        model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        data=DataConfig(fasta=str(folder / "genome.fa")),
        optimizer=OptimizerConfig(lr=2e-2),
        steps=3,
        batch_size=8,
        max_length=16,
        log_every=1,
        eval_every=100,
        checkpoint_every=100,
        stages=CURRICULUM,
    )


@pytest.fixture(scope="module")
def whole(config):
    pretrain(config)
    return pathlib.Path(config.out)


def test_a_stage_has_what_it_sets_and_otherwise_what_the_one_before_has(config):
    first, second, third = stages_of(config)
    assert [(s.start, s.end, s.examples) for s in (first, second, third)] == [
        (0, 3, 0),
        (3, 6, 24),
        (6, 8, 36),
    ]
    assert (second.config.max_length, third.config.max_length) == (32, 64)
    assert [s.config.optimizer.lr for s in (first, second, third)] == [2e-2, 1e-2, 5e-3]
    assert third.config.sequence == 2 and second.config.sequence == 1
    assert len({s.config.seed for s in (first, second, third)}) == 3
    assert devices_in_use([first, second, third]) == 4
    wrong = dataclasses.replace(config, stages=[{"steps": 1, "seed": 3}])
    with pytest.raises(cj.UserError, match="stages has seed in stage 1; a stage sets steps, max_"):
        stages_of(wrong)
    with pytest.raises(cj.UserError, match="no number of steps in stage 1"):
        stages_of(dataclasses.replace(config, stages=[{"lr": 1e-3}]))
    with pytest.raises(cj.UserError, match="stages, stage 1: batch_size is 0"):
        stages_of(dataclasses.replace(config, stages=[{"steps": 1, "batch_size": 0}]))


def test_every_stage_has_its_windows_rate_and_checkpoint(whole):
    rows = read_metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["examples"] for row in rows] == [8, 16, 24, 28, 32, 36, 38, 40]
    # A stage of two or three steps has no warm-up: it begins at its largest rate.
    np.testing.assert_allclose([rows[i]["lr"] for i in (0, 3, 6)], [2e-2, 1e-2, 5e-3], rtol=1e-6)
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert [i + 1 for i, row in enumerate(rows) if "validation_loss" in row] == [3, 6, 8]
    run = json.loads((whole / "checkpoints" / "8" / "run.json").read_text())
    assert run["place"]["stage"] == 2 and run["place"]["step"] == 8


EXACT = ("step", "loss", "grad_norm", "lr", "examples", "epochs", "masked_loss")


def exact(folder):
    return [{key: row[key] for key in EXACT} for row in read_metrics(folder)]


# At the end of a stage and within the last one; within each stage, and at the end of one.
@pytest.mark.parametrize("stops", [(3, 7), pytest.param((2, 3, 5, 7), marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_in_every_stage_has_the_same_bytes(
    whole, config, tmp_path, monkeypatch, stops
):
    stopped = dataclasses.replace(config, out=str(tmp_path / "stopped"))
    after = Interruption.after
    for at in stops:

        def stop(self, step, at=at):
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return after(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "after", stop)
            with pytest.raises(SystemExit) as exit_:
                pretrain(stopped)
        assert exit_.value.code == 75
    pretrain(stopped)
    weights = [
        (out / "model" / "model.safetensors").read_bytes() for out in (whole, tmp_path / "stopped")
    ]
    assert weights[0] == weights[1]
    assert exact(whole) == exact(tmp_path / "stopped")


def test_stages_may_be_added_and_not_changed(whole, config, folder):
    longer = folder / "longer"
    shutil.copytree(whole, longer)
    more = [*CURRICULUM, {"steps": 2, "max_length": 32, "batch_size": 4, "lr": 1e-3}]
    pretrain(dataclasses.replace(config, out=str(longer), stages=more))
    rows = read_metrics(longer)
    assert [row["step"] for row in rows] == list(range(1, 11))
    np.testing.assert_allclose(rows[8]["lr"], 1e-3, rtol=1e-6)
    changed = [{**CURRICULUM[0], "lr": 1.0}, CURRICULUM[1]]
    with pytest.raises(cj.UserError, match="holds another run, with other stages"):
        pretrain(dataclasses.replace(config, out=str(longer), stages=changed))


def test_the_losses_are_those_recorded(whole):
    """Golden: a curriculum of three lengths, to as many digits as rounding leaves."""
    recorded = json.loads((pathlib.Path(__file__).with_name("stages_losses.json")).read_text())
    found = [row["loss"] for row in read_metrics(whole)]
    np.testing.assert_allclose(found, recorded, rtol=1e-5)
    assert jax.device_count() == 4
