"""Runs that begin with another model's weights, and what a run keeps of them."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.pretrain import pretrain
from caduceus_jax.train.run.beginning import begin, check_vocabulary, first_state
from caduceus_jax.train.run.report import read_metrics
from caduceus_jax.train.sharding import make_mesh
from caduceus_jax.train.step import make_program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beginning")
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 1500))
    (folder / "genome.fa").write_text(f">one\n{text}\n")
    return folder


@pytest.fixture(scope="module")
def plant(folder):
    """A model whose vocabulary is that of PlantCaduceus."""
    golden = pathlib.Path(__file__).parents[2] / "golden" / "ps_vocabulary8"
    stored = cj.CaduceusForMaskedLM.from_pretrained(golden)
    small = dataclasses.replace(stored.config, d_model=8, n_layer=1, d_state=4)
    model = cj.CaduceusForMaskedLM(small, tokenizer=stored.tokenizer, rngs=nnx.Rngs(7))
    model.save_pretrained(folder / "plant")
    return str(folder / "plant")


@pytest.fixture(scope="module")
def config(folder, plant):
    return PretrainConfig(
        out=str(folder / "run"),
        init=plant,
        data=DataConfig(fasta=str(folder / "genome.fa")),
        optimizer=OptimizerConfig(lr=1e-3),
        steps=2,
        batch_size=4,
        max_length=32,
        log_every=1,
        eval_every=2,
        checkpoint_every=2,
    )


@pytest.fixture(scope="module")
def run(config):
    pretrain(config)
    return pathlib.Path(config.out)


def test_the_first_state_has_the_weights_and_the_tokenizer(config, plant, tmp_path):
    beginning = begin(config, tmp_path)
    assert beginning.config.model.vocab_size == 8 and beginning.tokenizer.mask_id == 1
    mesh = make_mesh(jax.devices()[:2])
    program = make_program(beginning.config, mesh, beginning.tokenizer)
    state = first_state(beginning, program.init, mesh)
    expected = nnx.state(cj.CaduceusForMaskedLM.from_pretrained(plant), nnx.Param)
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(state.step) == 0


def test_a_run_trains_on_with_the_model_s_own_vocabulary(run, plant, config, capsys):
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert cj.Tokenizer.from_pretrained(run / "model").mask_id == 1
    assert cj.CaduceusForMaskedLM.from_pretrained(run).config.vocab_size == 8
    # It continues without the model that it began with.
    moved = pathlib.Path(plant).rename(plant + "-moved")
    try:
        pretrain(config)
    finally:
        moved.rename(plant)
    assert "continues at step 2 of 2" in capsys.readouterr().err


def test_a_new_run_begins_at_a_checkpoint_with_or_without_the_optimizer(run, config, folder):
    checkpoint = str(run / "checkpoints" / "2")
    losses = []
    for name, with_optimizer in (("with", True), ("without", False)):
        again = dataclasses.replace(
            config, out=str(folder / name), init=checkpoint, init_optimizer=with_optimizer
        )
        beginning = begin(again, folder / name)
        mesh = make_mesh(jax.devices()[:2])
        program = make_program(beginning.config, mesh, beginning.tokenizer)
        state = first_state(beginning, program.init, mesh)
        moments = [float(np.abs(x).sum()) for x in jax.tree.leaves(state.opt_state)]
        assert (sum(moments) > 3) == with_optimizer
        trained = nnx.state(cj.CaduceusForMaskedLM.from_pretrained(run), nnx.Param)
        for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(trained), strict=True):
            np.testing.assert_array_equal(one, other)
        losses.append(sum(moments))
    with pytest.raises(cj.UserError, match="is not a run or one of its checkpoints"):
        wrong = dataclasses.replace(config, out=str(folder / "no"), init_optimizer=True)
        beginning = begin(wrong, folder / "no")
        first_state(beginning, program.init, mesh)


def test_contradictions_are_refused(config, plant, tmp_path):
    other = cj.CaduceusConfig(d_model=16, rcps=True)
    with pytest.raises(cj.UserError, match="has an architecture of its own: leave model out"):
        begin(dataclasses.replace(config, model=other), tmp_path)
    augmented = dataclasses.replace(config.data, rc_mode="augment")
    with pytest.raises(cj.UserError, match="data.rc_mode is augment, but model.rcps"):
        begin(dataclasses.replace(config, data=augmented), tmp_path)
    with pytest.raises(cj.UserError, match="init_optimizer is set, but no checkpoint is named"):
        PretrainConfig(init_optimizer=True)
    with pytest.raises(cj.UserError, match="model.vocab_size is 8, but there are 12 tokens"):
        check_vocabulary(begin(config, tmp_path).config.model, cj.Tokenizer())


def test_a_running_mean_of_the_weights_is_validated_and_exported(config, folder):
    averaged = dataclasses.replace(
        config, out=str(folder / "ema"), ema_decay=0.5, optimizer=OptimizerConfig(lr=1e-1)
    )
    pretrain(averaged)
    run = pathlib.Path(averaged.out)
    exported = cj.CaduceusForMaskedLM.from_pretrained(run / "model")
    # What was saved holds both; the exported model is the mean, and differs from the last step.
    stored = json.loads((run / "checkpoints" / "2" / "run.json").read_text())
    assert stored["config"]["ema_decay"] == 0.5
    beginning = begin(averaged, run)
    mesh = make_mesh(jax.devices()[:1])
    program = make_program(beginning.config, mesh, beginning.tokenizer)
    from caduceus_jax.train.run.checkpoint import read_state
    from caduceus_jax.train.sharding import abstract

    state = read_state(run / "checkpoints" / "2", abstract(program.init, mesh))
    means = jax.tree.leaves(state.ema)
    for one, other in zip(jax.tree.leaves(nnx.state(exported, nnx.Param)), means, strict=True):
        np.testing.assert_array_equal(one, other)
    last = jax.tree.leaves(state.params)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(means, last, strict=True))
    pretrain(averaged)  # and a finished run is found finished


def test_a_dry_run_trains_nothing(config, folder, capsys):
    dry = dataclasses.replace(config, out=str(folder / "dry"), dry_run=True)
    pretrain(dry)
    said = capsys.readouterr().out
    assert "dry run: 43 windows to train on, 5 held out; a step of 4 windows of 32 tokens" in said
    assert {path.name for path in (folder / "dry").iterdir()} == {"data"}


def test_a_longer_run_says_how_its_rate_goes_on(run, config, folder):
    import shutil

    longer = folder / "longer"
    shutil.copytree(run, longer)
    more = dataclasses.replace(config, out=str(longer), steps=4, eval_every=4)
    with pytest.raises(cj.UserError, match="steps was 2 when this run began, and is 4 now: with"):
        pretrain(more)
    held = dataclasses.replace(config.optimizer, decay_steps=2)
    pretrain(dataclasses.replace(more, optimizer=held))
    rows = read_metrics(longer)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    np.testing.assert_allclose([row["lr"] for row in rows[2:]], config.optimizer.lr_min, rtol=1e-5)
