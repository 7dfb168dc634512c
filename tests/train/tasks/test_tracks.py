import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.evaluation.linear import baselines
from caduceus_jax.train.finetune import finetune
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig, TracksConfig
from caduceus_jax.train.tasks import find_task

BASES, LENGTH, BIN = 12_800, 64, 16
MOTIF = b"ATTA"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A genome, and a signal wherever it has ATTA or its reverse complement TAAT."""
    folder = tmp_path_factory.mktemp("tracks")
    letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), BASES)
    text = letters.tobytes()
    signal = np.zeros(BASES)
    for word in (MOTIF, b"TAAT"):
        at = text.find(word)
        while at >= 0:
            signal[at : at + 4] = 20.0
            at = text.find(word, at + 1)
    signal[:10] = np.nan
    (folder / "g.fa").write_text(f">one\n{text.decode()}\n>two\n{'N' * 640}\n")
    write_bigwig(folder / "s.bw", [("one", BASES), ("two", 640)], [("one", 0, signal)])
    return folder, text, signal


def config(folder, **changes):
    settings = {"length": LENGTH, "bin_size": BIN, **changes}
    tracks = TracksConfig(bigwig=str(folder / "s.bw"), genome=str(folder / "g.fa"), **settings)
    return LabelledConfig(task="tracks", tracks=tracks)


def test_windows_are_split_by_place_and_values_are_logarithms(files):
    folder, text, signal = files
    task = find_task(config(folder))
    counts = [len(part.sequences) for part in (task.train, task.validation, task.test)]
    assert counts == [160, 20, 20]
    assert task.test.names[0] == f"one:{11_520}-{11_584}"
    assert task.train.sequences[3] == text[192:256]
    means = signal[192:256].reshape(-1, BIN).mean(axis=1)
    np.testing.assert_allclose(task.train.labels[3, :, 0], np.log1p(means), rtol=1e-6)
    assert (task.kind, task.classes, task.bin_size) == ("tracks", ("s.bw",), BIN)


def test_regions_name_their_splits(files, tmp_path):
    folder, _, _ = files
    bed = tmp_path / "r.bed"
    bed.write_text("one\t0\t640\ttrain\none\t640\t704\tvalid\none\t704\t770\ttest\n")
    task = find_task(config(folder, regions=str(bed)))
    counts = [len(part.sequences) for part in (task.train, task.validation, task.test)]
    assert counts == [10, 1, 1]
    bed.write_text("one\t0\t640\ttrain\none\t640\t704\tvalid\n")
    with pytest.raises(cj.UserError, match="no window of 64 bases for test"):
        find_task(config(folder, regions=str(bed)))
    with pytest.raises(cj.UserError, match="not a multiple of bin_size"):
        TracksConfig(length=100, bin_size=16)


@pytest.mark.slow
def test_a_model_learns_the_track_better_than_its_content(files, tmp_path):
    folder, _, _ = files
    data = config(folder, stride=32)
    settings = FinetuneConfig(
        out=str(tmp_path / "run"),
        architecture=cj.CaduceusConfig(d_model=16, n_layer=1, d_state=4, rcps=True),
        data=data,
        optimizer=OptimizerConfig(lr=4e-2, weight_decay=0.0),
        epochs=8,
        batch_size=32,
        seeds=[1],
    )
    finetune(settings)
    result = json.loads((tmp_path / "run" / "seed-1" / "result.json").read_text())
    linear = baselines(find_task(data))
    content = linear["G + C of bin and window, linear"]
    assert content["r2"] < 0.4 < 0.55 < result["test"]["r2"]
    # The exported model says the same, in the units that its config names.
    with np.load(tmp_path / "run" / "seed-1" / "predictions.npz") as stored:
        outputs = stored["outputs"]
    tuned = tmp_path / "run" / "seed-1" / "model"
    described = json.loads((tuned / "config.json").read_text())["caduceus_jax_task"]
    model = cj.CaduceusForTracks.from_pretrained(str(tuned), bin_size=described["bin_size"])
    task = find_task(data)
    ids = np.stack([cj.Tokenizer().encode(bases) for bases in task.test.sequences])
    logits = jax.jit(lambda model, ids: model(ids).logits)(model, jnp.asarray(ids))
    values = np.asarray(logits) * np.array(described["scale"]) + np.array(described["centre"])
    np.testing.assert_allclose(values, outputs, atol=1e-4)
