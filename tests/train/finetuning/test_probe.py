import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.cli.main import main
from caduceus_jax.train.finetune import finetune
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        text = "".join(rng.choice(list("ACGT"), 24))
        strong, early = sum(map(text.count, "CG")), text[:8].count("A")
        rows.append(
            f"{text},{'strong' if strong > 12 else 'weak'},{strong},{early > 2:d},{strong > 12:d}"
        )
    table = "\n".join(["sequence,label,count,early,strong", *rows]) + "\n"
    (folder / "train.csv").write_text(table)
    for rcps in (True, False):
        config = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=rcps)
        model = cj.CaduceusForMaskedLM(config, rngs=nnx.Rngs(3))
        model.save_pretrained(folder / ("ps" if rcps else "ph"))
    return folder


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(model, data, id=f"{model}-{name}", marks=() if usual else pytest.mark.slow)
        for name, data, by_default in (
            ("classes", {}, ("ps", "ph")),
            ("values", {"kind": "regression", "label": "count"}, ("ph",)),
            ("labels", {"kind": "multi_label", "label": ["early", "strong"]}, ("ps",)),
        )
        for model, usual in (("ps", "ps" in by_default), ("ph", "ph" in by_default))
    ],
)
def test_a_probe_is_a_classifier_that_predicts_what_it_wrote(folder, model, data, tmp_path):
    table = str(folder / "train.csv")
    config = FinetuneConfig(
        out=str(tmp_path / "out"),
        model=str(folder / model),
        data=LabelledConfig(train=table, test=table, **data),
        method="probe",
        rc_mode=None if model == "ps" else "posthoc",
        seeds=[1],
    )
    finetune(config)
    tuned = tmp_path / "out" / "seed-1" / "model"
    described = cj.CaduceusForSequenceClassification.from_pretrained(tuned)
    assert described.labels and described.rc_mode == (None if model == "ps" else "posthoc")
    rows = (tmp_path / "out" / "seed-1" / "predictions.tsv").read_text().splitlines()[1:]
    outputs = len(described.labels)
    logits = np.array([row.split("\t")[-outputs:] for row in rows], float)
    texts = [row.split(",")[0] for row in (folder / "train.csv").read_text().splitlines()[1:]]
    ids = np.stack([cj.Tokenizer().encode(text) for text in texts])
    np.testing.assert_allclose(described(jnp.asarray(ids)).logits, logits, atol=2e-3)


def test_a_fine_tuned_model_can_be_probed(folder, tmp_path):
    table = str(folder / "train.csv")
    config = FinetuneConfig(
        out=str(tmp_path / "tuned"),
        model=str(folder / "ps"),
        data=LabelledConfig(train=table, test=table),
        epochs=1,
        batch_size=16,
        seeds=[1],
    )
    finetune(config)
    tuned = str(tmp_path / "tuned" / "seed-1" / "model")
    finetune(dataclasses.replace(config, out=str(tmp_path / "probe"), model=tuned, method="probe"))
    words = ["predict", str(tmp_path / "probe" / "seed-1" / "model"), table]
    assert main([*words, "--out", str(tmp_path / "new.tsv")]) == 0
