import json

import jax.numpy as jnp
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.genomics.files.bigwig import write_bigwig
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.finetune import finetune
from caduceus_jax.train.finetuning.config import FinetuneConfig, GenesConfig, LabelledConfig
from caduceus_jax.train.finetuning.examples import encode
from caduceus_jax.train.tasks import find_task

LENGTH, GENES = 32, 90


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Genes whose expression is in a signal beside the sequence, and in nothing else."""
    folder = tmp_path_factory.mktemp("genes")
    rng = np.random.default_rng(0)
    texts = {name: "".join(rng.choice(list("ACGT"), 2_000)) for name in ("one", "two")}
    (folder / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    signal = {name: np.zeros(2_000) for name in texts}
    rows = ["gene,chrom,tss,cage"]
    for i in range(GENES):
        name = "two" if i % 3 == 0 else "one"
        tss, level = 40 + 20 * i, rng.integers(0, 5)
        signal[name][tss - 5 : tss + 5] = np.expm1(level)
        rows.append(f"g{i},{name},{tss + 1},{level / 2}")
    (folder / "genes.csv").write_text("\n".join(rows) + "\n")
    sizes = [(name, 2_000) for name in texts]
    write_bigwig(folder / "s.bw", sizes, [(name, 0, track) for name, track in signal.items()])
    return folder, texts, signal


def data(folder, **changes):
    settings = {"length": LENGTH, "validation_contigs": "", "test_contigs": "two", **changes}
    genes = GenesConfig(table=str(folder / "genes.csv"), genome=str(folder / "g.fa"), **settings)
    return LabelledConfig(task="genes", label="cage", genes=genes)


def test_the_site_is_in_the_middle_and_n_lies_outside(files):
    folder, texts, signal = files
    task = find_task(data(folder, signals=str(folder / "s.bw"), length=100))
    assert (len(task.train.sequences), len(task.test.sequences)) == (60, 30)
    first = task.test.sequences[
        0
    ].decode()  # of base 40, and the window begins 10 before the contig
    assert first == "N" * 10 + texts["two"][:90]
    assert task.train.names[0] == "genes.csv:3"
    batch = encode(
        task.test.take(np.array([0, 0])),
        cj.Tokenizer(),
        100,
        pad="right",
        reverse=np.array([False, True]),
    )
    expected = np.concatenate([np.zeros(10), np.log1p(signal["two"][:90])])
    np.testing.assert_allclose(batch["signals"][0, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(batch["signals"][1, :, 0], expected[::-1], rtol=1e-6)
    assert batch["labels"].shape == (2, 1)


@pytest.mark.slow
def test_a_model_reads_the_signals(files, tmp_path):
    folder, _, _ = files
    settings = FinetuneConfig(
        out=str(tmp_path / "run"),
        architecture=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        data=data(folder, signals=str(folder / "s.bw")),
        optimizer=OptimizerConfig(lr=3e-2, weight_decay=0.0),
        epochs=12,
        batch_size=16,
        seeds=[1],
    )
    finetune(settings)
    result = json.loads((tmp_path / "run" / "seed-1" / "result.json").read_text())
    assert result["test"]["pearson"] > 0.8
    assert set(result["test"]) >= {"mse", "mae", "pearson"}
    stored = tmp_path / "run" / "seed-1" / "model"
    model = cj.CaduceusForSequenceClassification.from_pretrained(str(stored))
    assert model.signals.shape == (1, 8)
    with pytest.raises(cj.UserError, match="signals: the model needs them"):
        model(jnp.zeros((1, 4), int))


def test_what_cannot_be_used_is_named(files, tmp_path):
    folder, _, _ = files
    good = (folder / "genes.csv").read_text()
    cases = {
        "no column tss": good.replace("tss", "start"),
        r"genes.csv:2: tss is 'here', which is not a number": good.replace("two,41,", "two,here,"),
        r"genes.csv:2: .* has no contig chrX": good.replace("g0,two", "g0,chrX"),
        "has no genes for test": good.replace(",two,", ",one,"),
        "the column split has 'dev'": good.replace("cage\n", "cage,split\n")
        .replace("\ng", ",dev\ng")
        .replace("split,dev", "split")
        .rstrip()
        + ",dev\n",
    }
    for message, text in cases.items():
        (tmp_path / "genes.csv").write_text(text)
        (tmp_path / "g.fa").write_text((folder / "g.fa").read_text())
        with pytest.raises(cj.UserError, match=message):
            find_task(data(tmp_path))
