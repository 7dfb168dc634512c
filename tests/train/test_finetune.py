import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import caduceus_jax as cj
from caduceus_jax.cli.main import main
from caduceus_jax.train import finetune as module
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.finetune import finetune
from caduceus_jax.train.finetuning.config import FinetuneConfig, LabelledConfig
from caduceus_jax.train.finetuning.seed import schedule_steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table whose classes differ in composition alone, and a small model."""
    folder = tmp_path_factory.mktemp("finetune")
    rng = np.random.default_rng(0)
    for part, count in (("train", 120), ("test", 33)):
        rows = []
        for _ in range(count):
            label = rng.integers(2)
            bases = rng.choice(
                list("ACGT"), 20, p=[(0.4, 0.1, 0.1, 0.4), (0.1, 0.4, 0.4, 0.1)][label]
            )
            rows.append(f"{''.join(bases)},{['weak', 'strong'][label]}")
        (folder / f"{part}.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    architecture = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True)
    model = cj.CaduceusForMaskedLM(architecture, rngs=nnx.Rngs(3))
    model.save_pretrained(str(folder / "pretrained"))
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return FinetuneConfig(
        out=str(folder / "all"),
        model=str(folder / "pretrained"),
        data=LabelledConfig(train=str(folder / "train.csv"), test=str(folder / "test.csv")),
        optimizer=OptimizerConfig(lr=2e-2, weight_decay=0.0),
        epochs=3,
        batch_size=16,
        seeds=[1, 2],
    )


@pytest.fixture(scope="module")
def whole(config):
    finetune(config)
    return pathlib.Path(config.out)


def read(path):
    return json.loads(path.read_text())


def test_devices_are_chosen_before_the_model_is_read(config, folder, monkeypatch):
    """A model of a training run is read by JAX, which settles its devices and flags."""
    order = []

    def read(*_):
        order.append("read")
        raise cj.UserError("enough")

    monkeypatch.setattr(module, "use_cores", lambda most: order.append(most))
    monkeypatch.setattr(module, "read_start", read)
    with pytest.raises(cj.UserError, match="enough"):
        finetune(dataclasses.replace(config, out=str(folder / "order")))
    assert order == [config.batch_size, "read"]


def test_the_task_is_learnt_and_everything_is_on_disk(whole):
    summary = read(whole / "summary.json")
    assert summary["task"] == whole.parent.name and summary["seeds"] == [1, 2]
    assert summary["classes"] == ["strong", "weak"]
    assert summary["test"]["accuracy"]["mean"] > 0.85
    values = [read(whole / f"seed-{s}" / "result.json")["test"]["accuracy"] for s in (1, 2)]
    assert summary["test"]["accuracy"]["values"] == values
    assert summary["test"]["accuracy"]["range"] == pytest.approx(abs(values[0] - values[1]))
    assert {path.name for path in (whole / "seed-1").iterdir()} == {
        *("metrics.jsonl", "model", "predictions.tsv", "result.json")
    }
    rows = (whole / "seed-1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]


def test_rows_in_are_rows_out_and_the_model_says_the_same(whole, folder):
    header, *rows = (whole / "seed-1" / "predictions.tsv").read_text().splitlines()
    assert header.split("\t") == ["name", "label", "strong", "weak"]
    table = (folder / "test.csv").read_text().splitlines()[1:]
    assert [row.split("\t")[:2] for row in rows] == [
        [f"test.csv:{line}", text.split(",")[1]] for line, text in enumerate(table, start=2)
    ]
    model = cj.CaduceusForSequenceClassification.from_pretrained(str(whole / "seed-1" / "model"))
    ids = np.stack([cj.Tokenizer().encode(text.split(",")[0]) for text in table])
    written = np.array([row.split("\t")[2:] for row in rows], float)
    np.testing.assert_allclose(model(jnp.asarray(ids)).logits, written, atol=1e-4)
    described = read(whole / "seed-1" / "model" / "config.json")
    assert described["id2label"] == {"0": "strong", "1": "weak"}


def test_seeds_that_are_done_stay_and_another_run_is_left_alone(whole, config, capsys):
    before = (whole / "seed-1" / "result.json").stat().st_mtime_ns
    finetune(config)
    assert (whole / "seed-1" / "result.json").stat().st_mtime_ns == before
    assert "accuracy" in capsys.readouterr().out
    with pytest.raises(cj.UserError, match="another fine-tuning, with other epochs"):
        finetune(dataclasses.replace(config, epochs=4))


def test_a_folder_and_its_own_export_give_the_same_first_loss(whole, config, folder):
    """The model folder in Hugging Face layout, and what our own class saves from it."""
    again = folder / "again"
    cj.CaduceusForMaskedLM.from_pretrained(config.model).save_pretrained(str(again))
    changed = dataclasses.replace(
        config, out=str(folder / "same"), model=str(again), epochs=1, seeds=[1]
    )
    finetune(changed)
    first = [
        read(pathlib.Path(out) / "seed-1" / "result.json")["first_loss"]
        for out in (config.out, changed.out)
    ]
    assert first[0] == first[1]


@pytest.mark.parametrize(
    "changes",
    [
        # By default the test of a model with its own vocabulary trains with LoRA.
        pytest.param({"method": "lora", "lora_rank": 2}, marks=pytest.mark.slow),
        {"method": "probe"},
        {"protocol": "paper"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_other_ways_learn_it_too(config, folder, changes):
    name = "-".join(map(str, changes.values()))
    changed = dataclasses.replace(config, out=str(folder / name), seeds=[1], **changes)
    finetune(changed)
    result = read(folder / name / "seed-1" / "result.json")
    assert result["test"]["accuracy"] > 0.8
    everything = 8 * 16 + 2 * 8  # at the least: the embedding and the head
    if changes.get("method"):
        assert result["trained_parameters"] < 500
    else:
        assert result["trained_parameters"] > everything


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="clean"),
        pytest.param({"protocol": "paper"}, id="paper", marks=pytest.mark.slow),
        pytest.param({"rc_mode": "posthoc"}, id="posthoc"),
    ],
)
def test_predictions_for_new_files_are_those_of_the_test(config, folder, tmp_path, changes, capsys):
    """Probabilities of the logits that the fine-tuning wrote, whatever shape the model has."""
    texts = [text.split(",")[0] for text in (folder / "test.csv").read_text().splitlines()[1:]]
    short = [text[: 12 + i % 9] for i, text in enumerate(texts)]
    rows = [f"{text},{('weak', 'strong')[i % 2]}" for i, text in enumerate(short)]
    (tmp_path / "test.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    fasta = tmp_path / "test.fa"
    fasta.write_text("".join(f">s{i}\n{text}\n" for i, text in enumerate(short)))
    model = config.model
    if changes.get("rc_mode"):
        model = str(tmp_path / "one_strand")
        architecture = cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4)
        cj.CaduceusForMaskedLM(architecture, rngs=nnx.Rngs(3)).save_pretrained(model)
    data = dataclasses.replace(config.data, test=str(tmp_path / "test.csv"))
    out = tmp_path / "out"
    finetune(
        dataclasses.replace(
            config, out=str(out), model=model, data=data, epochs=1, seeds=[1], **changes
        )
    )
    capsys.readouterr()
    tuned = str(out / "seed-1" / "model")
    assert main(["predict", tuned, str(fasta), "--out", str(tmp_path / "new.tsv")]) == 0
    shown = capsys.readouterr()
    header, *rows = (tmp_path / "new.tsv").read_text().splitlines()
    assert header.split("\t") == ["name", "length", "status", "predicted", "p_strong", "p_weak"]
    written = (out / "seed-1" / "predictions.tsv").read_text().splitlines()[1:]
    logits = np.array([row.split("\t")[2:] for row in written], float)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = [row.split("\t") for row in rows]
    np.testing.assert_allclose(np.array([row[4:] for row in found], float), expected, atol=1e-5)
    labels = [("strong", "weak")[best] for best in logits.argmax(axis=1)]
    assert [row[:4] for row in found] == [
        [f"s{i}", str(len(text)), "ok", label]
        for i, (text, label) in enumerate(zip(short, labels, strict=True))
    ]
    counts = sorted((label, labels.count(label)) for label in set(labels))
    assert shown.out == "".join(f"{label}\t{count}\n" for label, count in counts)


def test_values_are_predicted_in_their_own_units(config, folder, tmp_path, capsys):
    rows = [text.split(",")[0] for text in (folder / "train.csv").read_text().splitlines()[1:]]
    table = "\n".join(["sequence,gc", *(f"{t},{200 + 10 * t.count('G')}" for t in rows)])
    (tmp_path / "gc.csv").write_text(table + "\n")
    data = LabelledConfig(
        train=str(tmp_path / "gc.csv"), test=str(tmp_path / "gc.csv"), label="gc", kind="regression"
    )
    out = tmp_path / "out"
    finetune(dataclasses.replace(config, out=str(out), data=data, epochs=1, seeds=[1]))
    tuned = cj.load(out / "seed-1" / "model")
    written = (out / "seed-1" / "predictions.tsv").read_text().splitlines()[1:]
    expected = np.array([row.split("\t")[-1] for row in written], float)
    assert abs(expected.mean() - 250) < 30
    longer = [text + "ACGT" for text in rows]  # beyond what was trained on: not read
    predicted = cj.predict(tuned, longer)["predicted_gc"].to_numpy()
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)
    command = ["predict", str(out / "seed-1" / "model"), str(tmp_path / "gc.csv")]
    assert main([*command, "--out", str(tmp_path / "new.tsv")]) == 0
    header, *new = [t.split("\t") for t in (tmp_path / "new.tsv").read_text().splitlines()]
    assert header == ["sequence", "gc", "status", "predicted_gc"]
    assert [row[0] for row in new] == rows and {row[2] for row in new} == {"ok"}
    np.testing.assert_allclose(np.array([row[3] for row in new], float), expected, rtol=1e-4)
    wrong = {
        ("--sequence", "dna"): "has no column dna; it has sequence, gc: pass --sequence",
        ("--context-length", "9"): "gc.csv is a table of sequences: --genome and --context-length",
    }
    for words, message in wrong.items():
        assert main([*command, *words, "--out", str(tmp_path / "wrong.tsv")]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "gc.csv").write_text("sequence\nACGT\nAC!T\n")
    assert main([*command, "--out", str(tmp_path / "wrong.tsv")]) == 2
    assert "gc.csv:3: '!' is not a nucleotide" in capsys.readouterr().err
    frame = cj.predict(tuned, rows[:3])
    assert frame.columns == ["name", "length", "status", "predicted_gc"] and len(frame) == 3


def test_only_a_fine_tuned_model_predicts(config):
    with pytest.raises(cj.UserError, match="the model was not fine-tuned and predicts only"):
        cj.predict(cj.load(config.model), ["ACGT"])


def test_a_probe_is_its_formula(config, folder):
    out = folder / "formula"
    finetune(dataclasses.replace(config, out=str(out), method="probe", seeds=[1]))
    saved = np.load(out / "seed-1" / "probe.npz")
    model = cj.CaduceusForMaskedLM.from_pretrained(config.model)
    texts = [t.split(",")[0] for t in (folder / "test.csv").read_text().splitlines()[1:]]
    embedded = cj.inference.embed(model, texts)
    rows = (out / "seed-1" / "predictions.tsv").read_text().splitlines()[1:]
    written = np.array([row.split("\t")[2:] for row in rows], float)
    np.testing.assert_allclose(embedded @ saved["weight"].T + saved["bias"], written, atol=1e-4)


def test_settings_that_cannot_work_are_refused_before_anything_is_written(config, folder):
    out = folder / "refused"
    cases = {
        "reads both strands by construction: use rc_mode equivariant": {"rc_mode": "posthoc"},
        "metric is pearson; a classification has": {"metric": "pearson"},
        "lora_rank is 9": {"method": "lora", "lora_rank": 9},
        "does not exist": {"model": str(folder / "nowhere")},
    }
    for message, changes in cases.items():
        with pytest.raises(cj.UserError, match=message):
            finetune(dataclasses.replace(config, out=str(out), **changes))
    assert not list(out.glob("seed-*/result.json"))
    with pytest.raises(cj.UserError, match="seeds are"):
        dataclasses.replace(config, seeds=[1, 1])


def test_the_paper_counts_test_sequences_into_the_schedule(config):
    """Mouse enhancers in batches of 256: a schedule of 50 steps for a run of 40."""
    task = module.find_task(config.data)
    whole = task.train
    rows = lambda count: whole.take(np.resize(np.arange(120), count))  # noqa: E731
    task = dataclasses.replace(task, train=rows(968), test=rows(242))
    run = -(-round(968 * 0.9) // 256)
    ten = dataclasses.replace(config, epochs=10, batch_size=256)
    assert schedule_steps(ten, task, run) == 40
    assert schedule_steps(dataclasses.replace(ten, protocol="paper"), task, run) == 50


@pytest.mark.parametrize("method", ["lora", pytest.param("probe", marks=pytest.mark.slow)])
def test_a_model_with_its_own_vocabulary_stays_usable(golden, folder, tmp_path, method):
    """The tokenizer travels with it: a model like PlantCaduceus predicts after its fine-tuning."""
    stored = cj.CaduceusForMaskedLM.from_pretrained(golden / "ps_vocabulary8")
    small = dataclasses.replace(stored.config, d_model=8, n_layer=1, d_state=4)
    model = cj.CaduceusForMaskedLM(small, tokenizer=stored.tokenizer, rngs=nnx.Rngs(0))
    model.save_pretrained(tmp_path / "plant")
    data = LabelledConfig(train=str(folder / "train.csv"), test=str(folder / "test.csv"))
    out = tmp_path / method
    finetune(
        FinetuneConfig(
            out=str(out),
            model=str(tmp_path / "plant"),
            data=data,
            method=method,
            lora_rank=2,
            epochs=1,
            batch_size=32,
            seeds=[1],
        )
    )
    tuned = str(out / "seed-1" / "model")
    table = str(folder / "test.csv")
    assert main(["predict", tuned, table, "--out", str(tmp_path / "new.tsv")]) == 0
    assert cj.Tokenizer.from_pretrained(tuned).mask_id == 1
    assert (out / "seed-1" / "adapter").is_dir() == (method == "lora")


def test_several_labels_a_sequence(config, folder, tmp_path):
    texts = [t.split(",")[0] for t in (folder / "train.csv").read_text().splitlines()[1:]]
    rows = [f"{t},{t.count('G') > 5:d},{t.startswith('A'):d},{t.count('C') > 5:d}" for t in texts]
    (tmp_path / "columns.csv").write_text("\n".join(["sequence,g,a,c", *rows]) + "\n")
    names = [
        ";".join(n for n, v in zip("gac", r.split(",")[1:], strict=True) if v == "1") for r in rows
    ]
    rows = [f"{text},{name}" for text, name in zip(texts, names, strict=True)]
    (tmp_path / "names.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    found = {}
    for name, label in (("columns", ["a", "c", "g"]), ("names", "label")):
        table = str(tmp_path / f"{name}.csv")
        data = LabelledConfig(train=table, test=table, label=label, kind="multi_label")
        out = tmp_path / name
        changed = dataclasses.replace(config, out=str(out), data=data, epochs=1, seeds=[1])
        finetune(dataclasses.replace(changed, class_weights="balanced"))
        found[name] = read(out / "seed-1" / "result.json")
        assert read(out / "summary.json")["classes"] == ["a", "c", "g"]
        described = read(out / "seed-1" / "model" / "config.json")
        assert described["problem_type"] == "multi_label_classification"
    assert found["columns"]["test"] == found["names"]["test"]
    assert found["names"]["test"]["auroc"] > 0.5


def test_a_head_for_other_labels_is_not_used_silently(config, whole, folder, tmp_path, caplog):
    """The labels sort the other way: the stored head would be right about the wrong classes."""
    for part in ("train", "test"):
        text = (folder / f"{part}.csv").read_text()
        renamed = text.replace(",weak", ",a").replace(",strong", ",b")
        (tmp_path / f"{part}.csv").write_text(renamed)
    data = LabelledConfig(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    tuned = str(whole / "seed-1" / "model")
    frozen = dataclasses.replace(config.optimizer, lr=1e-7)
    changed = dataclasses.replace(
        config, out=str(tmp_path / "other"), model=tuned, data=data, seeds=[1], epochs=1
    )
    finetune(changed)
    assert "is replaced by a new one: it is for classification of strong, weak" in caplog.text
    kept = dataclasses.replace(changed, out=str(tmp_path / "same"), data=config.data)
    finetune(dataclasses.replace(kept, optimizer=frozen))
    before = read(whole / "seed-1" / "result.json")["test"]["accuracy"]
    assert read(tmp_path / "same" / "seed-1" / "result.json")["test"]["accuracy"] == before
