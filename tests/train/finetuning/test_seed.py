"""Within a seed: interruption, rows of different lengths, scores that are undefined."""

import dataclasses
import json
import os
import pathlib
import signal

import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.model.files import weights
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.finetune import finetune
from caduceus_jax.train.finetuning import seed as module
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig
from caduceus_jax.train.run.interruption import Interruption

ARCHITECTURE = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)


def write(path, count, positive=0.5, length=20, seed=0):
    """Sequences of two compositions; the first few are positive."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) < round(count * positive)
    rows = [
        f"{''.join(rng.choice(list(('AT', 'CG')[int(label)]), length))},{int(label)}"
        for label in labels
    ]
    path.write_text("\n".join(["sequence,label", *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("seed")


@pytest.fixture(scope="module")
def config(folder):
    return FinetuneConfig(
        out=str(folder / "whole"),
        architecture=ARCHITECTURE,
        data=LabelledConfig(
            train=write(folder / "train.csv", 48), test=write(folder / "test.csv", 20, seed=1)
        ),
        optimizer=OptimizerConfig(lr=2e-2, weight_decay=0.0),
        epochs=3,
        batch_size=8,
        seeds=[1],
    )


def files(out):
    """What does not depend on the clock."""
    seed = pathlib.Path(out) / "seed-1"
    result = json.loads((seed / "result.json").read_text())
    del result["seconds"]
    names = ("metrics.jsonl", "predictions.tsv", "model/model.safetensors")
    return [result, *((seed / name).read_bytes() for name in names)]


@pytest.fixture(scope="module")
def whole(config):
    finetune(config)
    return files(config.out)


# Within the first epoch, at its end, within the second.
@pytest.mark.parametrize("stops", [(2, 6), pytest.param((2, 6, 9), marks=pytest.mark.slow)])
def test_a_seed_that_is_interrupted_continues_to_the_same_bytes(
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
                finetune(stopped)
        assert exit_.value.code == 75
        assert (tmp_path / "stopped" / "seed-1" / "progress.npz").is_file()
    finetune(stopped)
    assert files(stopped.out) == whole
    assert not (tmp_path / "stopped" / "seed-1" / "progress.npz").exists()


def test_the_weights_are_read_once_for_all_seeds(config, folder, monkeypatch):
    cj.CaduceusForMaskedLM(ARCHITECTURE, rngs=nnx.Rngs(3)).save_pretrained(folder / "pretrained")
    read, count = weights.from_folder, []
    monkeypatch.setattr(weights, "from_folder", lambda *a, **k: count.append(1) or read(*a, **k))
    several = dataclasses.replace(
        config, out=str(folder / "several"), model=str(folder / "pretrained"), seeds=[1, 2, 3]
    )
    finetune(dataclasses.replace(several, epochs=1))
    assert len(count) == 1


def test_few_positives_are_in_the_validation_part_of_every_seed(config, folder):
    rare = write(folder / "rare.csv", 100, positive=0.03)
    data = LabelledConfig(train=rare, test=config.data.test)
    changed = dataclasses.replace(
        config, out=str(folder / "rare"), data=data, metric="auroc", seeds=[1, 2], epochs=1
    )
    finetune(dataclasses.replace(changed, class_weights="balanced"))
    for seed in (1, 2):
        place = folder / "rare" / f"seed-{seed}"
        text = (place / "metrics.jsonl").read_text() + (place / "result.json").read_text()
        assert "NaN" not in text
        assert json.loads((place / "result.json").read_text())["validation"]["auroc"] is not None


def test_a_score_that_is_not_defined_is_a_sentence_and_never_the_best(config, folder):
    one = write(folder / "one.csv", 10, positive=0.0)
    data = dataclasses.replace(config.data, validation=one)
    out = folder / "undefined"
    for method in ("all", "probe"):
        changed = dataclasses.replace(
            config, out=str(out / method), data=data, metric="auroc", method=method
        )
        with pytest.raises(cj.UserError, match="auroc, which cannot be computed: the 10 valid"):
            finetune(changed)
    # Another metric is, and what is not stands as null in the files.
    finetune(dataclasses.replace(config, out=str(out / "accuracy"), data=data, epochs=1))
    result = json.loads((out / "accuracy" / "seed-1" / "result.json").read_text())
    assert result["validation"]["auroc"] is None and result["validation"]["accuracy"] is not None
    summary = json.loads((out / "accuracy" / "summary.json").read_text())
    assert summary["validation"]["auroc"] == {
        "mean": None,
        "std": None,
        "range": None,
        "values": [None],
    }


def test_one_long_row_does_not_make_all_rows_long(config, folder, monkeypatch):
    lines = (folder / "train.csv").read_text().splitlines()
    rows = [*lines, f"{'ACGT' * 125},1"]
    (folder / "long.csv").write_text("\n".join(rows) + "\n")
    read, seen = module.batches, []

    def spy(*args, **options):
        for batch in read(*args, **options):
            if options.get("rng") is not None:
                seen.append(batch["input_ids"].shape)
            yield batch

    monkeypatch.setattr(module, "batches", spy)
    data = dataclasses.replace(
        config.data, train=str(folder / "long.csv"), validation=config.data.test
    )
    finetune(dataclasses.replace(config, out=str(folder / "long"), data=data, epochs=1))
    tokens = sum(rows * length for rows, length in seen)
    assert tokens < 49 * 32 + 2 * 4 * 500  # all rows as long as one would be 49 x 500
    assert (8, 32) in seen and max(length for _, length in seen) == 500
