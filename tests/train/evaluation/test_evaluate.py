import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import OptimizerConfig
from caduceus_jax.train.evaluation import evaluate as module
from caduceus_jax.train.evaluation.config import EvaluateConfig
from caduceus_jax.train.evaluation.evaluate import _settings, _tasks, evaluate
from caduceus_jax.train.evaluation.score_table import Column
from caduceus_jax.train.finetuning.config import FinetuneConfig


def table(path, count, seed):
    rng = np.random.default_rng(seed)
    rows = ["sequence,label"]
    for label in rng.integers(2, size=count):
        rows.append(f"{''.join(rng.choice(list(('AT', 'CG')[label]), 16))},{label}")
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def content(tmp_path):
    task = tmp_path / "content"
    task.mkdir()
    for seed, part in enumerate(("train", "valid", "test")):
        table(task / f"{part}.csv", (64, 16, 24)[seed], seed)
    return EvaluateConfig(
        tasks=[str(task)],
        models=["scratch"],
        out=str(tmp_path / "report"),
        tuning=FinetuneConfig(
            architecture=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
            optimizer=OptimizerConfig(lr=3e-2, weight_decay=0.0),
            epochs=2,
            batch_size=16,
            seeds=[1],
        ),
    )


@pytest.fixture
def titles(monkeypatch):
    """The titles of every panel that is drawn."""
    drawn, draw = [], module.draw_task

    def spy(*args):
        figure = draw(*args)
        drawn.extend(axes.get_title() for axes in figure.axes)
        return figure

    monkeypatch.setattr(module, "draw_task", spy)
    return drawn


def test_a_report_holds_scores_of_models_and_baselines_and_pictures(content, titles, capsys):
    evaluate(content)
    folder = pathlib.Path(content.out)
    (row,) = json.loads((folder / "results.json").read_text())
    assert row["task"] == "content"
    assert row["cells"]["scratch"]["test"]["accuracy"]["mean"] > 0.9
    assert row["linear"]["4-mer counts, linear"]["accuracy"] == 1.0
    markdown = (folder / "report.md").read_text()
    assert re.search(
        r"\| content \| accuracy \| 64 / 24 \| \d\.\d{3} ± 0.000 \| 1.000 \|", markdown
    )
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing else is needed to look at it
    assert titles == [
        "scratch: validation accuracy",
        "ROC, test",
        "confusion, test",
        "embeddings of 24 test sequences",
    ]
    with np.load(folder / "scratch" / "content" / "projection.npz") as projection:
        assert projection["points"].shape == (24, 2)
    assert "| content | accuracy |" in capsys.readouterr().out
    before = (folder / "scratch" / "content" / "seed-1" / "result.json").stat().st_mtime_ns
    evaluate(content)
    after = (folder / "scratch" / "content" / "seed-1" / "result.json").stat().st_mtime_ns
    assert before == after


def test_a_probe_has_no_learning_curve_to_show(content, titles):
    tuning = dataclasses.replace(content.tuning, method="probe")
    evaluate(dataclasses.replace(content, tuning=tuning))
    assert titles == ["scratch: ROC, test", "confusion, test"]
    page = (pathlib.Path(content.out) / "report.html").read_text()
    assert "with the penalty of the best validation score" in page and "epochs" not in page


def test_the_paper_s_learning_rates_and_batches(tmp_path):
    config = EvaluateConfig(
        suite="nucleotide-transformer", tuning=FinetuneConfig(protocol="paper"), model="m"
    )
    found = {name: (data, scores) for name, data, scores in _tasks(config)}
    assert len(found) == 18
    data, scores = found["enhancers_types"]
    assert data.task == "nucleotide_transformer/enhancers_types"
    assert scores["Caduceus-PS"] == (0.416, None)
    settings = _settings(config, Column("m", "m"), "enhancers_types", data, "out")
    assert (settings.optimizer.lr, settings.batch_size) == (2e-3, config.tuning.batch_size)
    settings = _settings(config, Column("m", "m"), "H3", found["H3"][0], "out")
    assert (settings.optimizer.lr, settings.batch_size) == (1e-3, 128)


def test_what_cannot_be_evaluated_is_named(tmp_path):
    cases = {
        "suite is glue; it is one of genomic-benchmarks, nucleotide-transformer": {"suite": "glue"},
        "suite is eqtl, which is a command of its own: evaluate eqtl": {"suite": "eqtl"},
        "nothing to evaluate on": {},
        "empty has no train table, such as train.csv": {"tasks": [str(tmp_path / "empty")]},
        "models has nonsense; each is name=path": {"models": ["nonsense"], "tasks": ["x"]},
        "two of the models have the same name": {"models": ["a=b", "a=c"], "tasks": ["x"]},
        "genomic_benchmarks has no task H3": {"suite": "genomic-benchmarks", "tasks": ["H3"]},
    }
    (tmp_path / "empty").mkdir()
    for message, settings in cases.items():
        config = EvaluateConfig(out=str(tmp_path / "r"), **settings)
        with pytest.raises(cj.UserError, match=message):
            evaluate(config)
    assert not pathlib.Path(tmp_path / "r").exists()
