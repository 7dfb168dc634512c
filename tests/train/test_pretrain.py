import dataclasses
import json
import os
import shlex
import signal

import jax
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.model.run_checkpoint import read_run
from caduceus_jax.train import pretrain as module
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data import inputs
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.pretrain import pretrain
from caduceus_jax.train.recorded import check_same_run
from caduceus_jax.train.run.interruption import Interruption
from caduceus_jax.train.run.report import read_metrics

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def config(folder):
    """A tiny run on a genome of one word, with some noise, repeated."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"AACAGATTTC" * 200, np.uint8).copy()
    noise = rng.random(letters.size) < 0.05
    letters[noise] = rng.choice(np.frombuffer(b"ACGT", np.uint8), noise.sum())
    fasta = folder / "genome.fa"
    fasta.write_text(f">one\n{letters.tobytes().decode()}\n")
    return PretrainConfig(
        out=str(folder / "whole"),
        model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        data=DataConfig(fasta=str(fasta)),
        optimizer=OptimizerConfig(lr=2e-2),
        steps=STEPS,
        batch_size=8,
        max_length=32,
        log_every=1,
        eval_every=2,
        checkpoint_every=4,
    )


@pytest.fixture(scope="module")
def whole(config):
    """The folder of a run that nothing disturbed."""
    pretrain(config)
    return config.out


def test_a_run_leaves_all_it_promises(whole, config):
    rows = read_metrics(module.pathlib.Path(whole))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert {"loss", "masked_loss", "grad_norm", "lr", "tokens_per_second"} < set(row)
        assert row["examples"] == 8 * row["step"] and row["skipped"] == 0
        spent = [value for key, value in row.items() if key.startswith("seconds_")]
        assert row["goodput"] == pytest.approx(row["seconds_step"] / sum(spent), rel=1e-5)
        assert ("validation_masked_loss" in row) == (row["step"] % 2 == 0)
    # One step of warm-up, then half a cosine over the other five.
    lr, low = 2e-2, 1e-4
    rates = [1e-6, *(low + (lr - low) * (1 + np.cos(np.pi * done / 5)) / 2 for done in range(5))]
    np.testing.assert_allclose([row["lr"] for row in rows], rates, rtol=1e-5)
    assert rows[-1]["validation_masked_loss"] < rows[1]["validation_masked_loss"]
    names = {path.name for path in module.pathlib.Path(whole).iterdir()}
    expected = {"config.yaml", "metrics.jsonl", "baselines.json", "loss.png"}
    assert names == expected | {"checkpoints", "data", "model", "tensorboard"}
    baselines = json.loads((module.pathlib.Path(whole) / "baselines.json").read_text())
    assert baselines["markov_3"] < baselines["order_0_entropy"] - 0.3


def test_which_scan_a_run_took_is_recorded_and_may_change(whole, config):
    (newest, *_) = sorted((module.pathlib.Path(whole) / "checkpoints").iterdir(), reverse=True)
    recorded = read_run(newest)["config"]
    assert config.scan == "auto" and recorded["scan"] == "chunked"
    # Continued elsewhere, it takes what is fastest there.
    check_same_run(config, recorded | {"scan": "triton"}, newest)


def test_the_trained_model_loads_from_the_runs_folder(whole, config):
    model = cj.CaduceusForMaskedLM.from_pretrained(whole)
    assert dataclasses.replace(model.config, hf_json="") == config.model
    fresh = cj.CaduceusForMaskedLM(config.model, rngs=nnx.Rngs(config.seed))
    trained = np.asarray(model.caduceus.embedding[...])
    assert np.abs(trained - np.asarray(fresh.caduceus.embedding[...])).max() > 1e-3


def test_a_run_that_was_stopped_continues_bit_for_bit(whole, config, folder, monkeypatch, capsys):
    stopped = dataclasses.replace(config, out=str(folder / "stopped"))
    after = Interruption.after

    def stop_at_three(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return after(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "after", stop_at_three)
        with pytest.raises(SystemExit) as exit_:
            pretrain(stopped)
    assert exit_.value.code == 75
    assert "SIGTERM: saved step 3" in capsys.readouterr().err
    # What was trained so far can be used already.
    cj.CaduceusForMaskedLM.from_pretrained(stopped.out)

    pretrain(stopped)
    assert "continues at step 3 of 6" in capsys.readouterr().err
    weights = [
        (module.pathlib.Path(out) / "model" / "model.safetensors").read_bytes()
        for out in (whole, stopped.out)
    ]
    assert weights[0] == weights[1]
    one, other = (read_metrics(module.pathlib.Path(out)) for out in (whole, stopped.out))
    learning = {"step", "loss", "masked_loss", "masked_accuracy", "grad_norm", "lr"}
    exact = learning | {"skipped", "skipped_in_all", "skipped_in_a_row", "examples", "epochs"}
    one, other = (
        [{k: v for k, v in row.items() if k in exact or "validation" in k} for row in rows]
        for rows in (one, other)
    )
    assert set(one[0]) == exact and "validation_loss" in one[1]
    assert one == other


def test_bad_data_ends_a_run_that_then_continues_as_if_there_had_been_none(
    whole, config, folder, monkeypatch, capsys
):
    out = folder / "guarded"
    guarded = dataclasses.replace(
        config, out=str(out), max_skipped=3, checkpoint_every=2, profile_steps="4:5"
    )
    batches = inputs.train_batches

    def infected(*args, first_step, **options):
        for step, batch in enumerate(batches(*args, first_step=first_step, **options), 1):
            yield batch if step < 3 else batch | {"weights": np.full_like(batch["weights"], np.nan)}

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "train_batches", infected)
        with pytest.raises(
            cj.UserError, match="3 steps in a row .* the last good step was 2; "
        ) as e:
            pretrain(guarded)
    assert e.value.exit_status == 1
    assert f"continues from the checkpoint of step 2 in {out}" in str(e.value)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["2"]
    rows = read_metrics(out)
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1, 1]
    assert [row["skipped_in_a_row"] for row in rows] == [0, 0, 1, 2, 3]
    # Nothing has changed: what is validated after the bad step is what was before it.
    assert rows[3]["validation_loss"] == rows[1]["validation_loss"]
    assert "traced steps 4 to 4" in capsys.readouterr().err
    assert len(list((out / "profile").rglob("perfetto_trace.json.gz"))) == 1

    pretrain(dataclasses.replace(guarded, profile_steps=""))
    weights = [
        (module.pathlib.Path(run) / "model" / "model.safetensors").read_bytes()
        for run in (whole, out)
    ]
    assert weights[0] == weights[1]
    assert [row["skipped"] for row in read_metrics(out)] == [0] * 6
    said = capsys.readouterr().out
    assert "in steps" in said and "lost: steps done again" in said


def test_a_finished_run_is_not_trained_again_and_says_what_is_next(whole, config, capsys):
    before = read_metrics(module.pathlib.Path(whole))
    pretrain(config)
    assert read_metrics(module.pathlib.Path(whole)) == before
    shown = capsys.readouterr()
    assert "continues at step 6 of 6" in shown.err
    commands = [shlex.split(line) for line in shown.out.splitlines() if "caduceus-jax" in line]
    fasta = config.data.fasta
    assert commands == [
        ["caduceus-jax", "embed", whole, "your_sequences.fa"]
        + ["--out", f"{whole}/embeddings.parquet"],
        ["caduceus-jax", "score-variants", whole, "your_variants.vcf"]
        + ["--genome", fasta, "--out", f"{whole}/scored.vcf"],
    ]


def test_what_is_next_names_the_files_beside_the_genome():
    data = DataConfig(fasta="configs/data/yeast_mitochondrion.fa")
    embed, score = (
        shlex.split(line)
        for line in module._next_commands(PretrainConfig(out="runs/a b", data=data))
    )
    assert embed[1:3] == ["embed", "runs/a b"]
    assert embed[4] == "--genome"
    assert score[1:3] == ["score-variants", "runs/a b"]
    for path, suffix in ((embed[3], ".bed"), (embed[5], ".fa"), (score[3], ".vcf")):
        assert path.endswith(f"yeast_mitochondrion{suffix}")
        assert module.pathlib.Path(path).is_file()


def test_the_folder_of_another_run_is_left_alone(whole, config):
    with pytest.raises(
        cj.UserError, match=r"holds another run, with other seed \(there 0, now 1\)"
    ):
        pretrain(dataclasses.replace(config, seed=1))
    with pytest.raises(cj.UserError, match="holds a run already"):
        pretrain(dataclasses.replace(config, resume="never"))


def test_settings_that_cannot_work_are_refused_before_a_run_begins(config, folder):
    out = folder / "refused"
    too_short = folder / "short.fa"
    too_short.write_text(">one\nACG\n")
    cases = {
        "batch_size is 6": {"batch_size": len(jax.devices()) + 2},
        "cannot form groups of 8": {"sequence": 8},
        "nothing is held out": {"data": DataConfig(fasta=str(too_short))},
        "does not exist": {"data": DataConfig(fasta="nowhere.fa")},
        "leave them out": {"model": cj.CaduceusConfig(rcps=True, pad_token_id=0)},
    }
    for message, changes in cases.items():
        with pytest.raises(cj.UserError, match=message):
            pretrain(dataclasses.replace(config, out=str(out), **changes))
    # Nothing but the genome, which was prepared to find out.
    assert {path.name for path in out.glob("*")} <= {"data"}


def test_devices_are_chosen_before_the_model_of_init_is_read(config, folder, monkeypatch):
    """Else a run that continues, and does not read it again, would compile another program."""
    order = []

    def read(*_):
        order.append("read")
        raise cj.UserError("enough")

    monkeypatch.setattr(module, "use_cores", lambda most: order.append(most))
    monkeypatch.setattr(module, "begin", read)
    with pytest.raises(cj.UserError, match="enough"):
        pretrain(dataclasses.replace(config, out=str(folder / "order")))
    assert order == [config.batch_size, "read"]
