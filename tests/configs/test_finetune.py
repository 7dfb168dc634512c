"""The shipped recipes of benchmarks are the published protocols."""

import numpy as np

from caduceus_jax.cli.arguments import read_config
from caduceus_jax.configs import resolve
from caduceus_jax.train.evaluation.config import EqtlEvaluation, EvaluateConfig
from caduceus_jax.train.evaluation.evaluate import _settings, _tasks
from caduceus_jax.train.evaluation.score_table import Column
from caduceus_jax.train.finetuning.config import FinetuneConfig
from caduceus_jax.train.tasks import find_task


def read(name, config=EvaluateConfig, *words):
    return read_config(config, ["--config", f"finetune/{name}", *words])


def test_every_task_has_the_paper_s_settings():
    for name, seeds, epochs, tasks in (
        ("genomic_benchmarks", 5, 10, 8),
        ("nucleotide_transformer", 10, 20, 18),
    ):
        config = read(name)
        tuning = config.tuning
        assert (tuning.protocol, tuning.epochs, len(tuning.seeds)) == ("paper", epochs, seeds)
        found = _tasks(config)
        assert len(found) == tasks
        for task, data, scores in found:
            settings = _settings(config, Column("m", "m"), task, data, "out")
            assert settings.optimizer.lr in (1e-3, 2e-3) and settings.epochs == epochs
            assert scores["Caduceus-PS"][0] > 0.3
    promoters = next(row for row in _tasks(read("genomic_benchmarks")) if "nontata" in row[0])
    config = read("genomic_benchmarks")
    settings = _settings(config, Column("m", "m"), promoters[0], promoters[1], "o")
    assert (settings.optimizer.lr, settings.batch_size) == (2e-3, 256)


def test_the_eqtl_recipe_reads_the_paper_s_windows():
    config = read("eqtl", EqtlEvaluation, "--model", "m")
    assert (config.protocol, config.seeds) == ("paper", [1, 2, 3, 4, 5])
    assert (config.context_length, config.window) == (131_072, 1_537)
    assert resolve("finetune/eqtl").name == "eqtl.yaml"


def test_the_shipped_splice_junctions_are_what_their_page_says():
    config = read_config(FinetuneConfig, ["--config", "finetune/splice"])
    task = find_task(config.data)
    assert (task.name, task.classes) == ("splice_junctions", ("acceptor", "donor", "neither"))
    parts = (task.train, task.validation, task.test)
    assert [len(part.sequences) for part in parts] == [2_252, 333, 601]
    seen = [set(part.sequences) for part in parts]
    assert not seen[0] & seen[2] and not seen[1] & seen[2]
    # Nearly every donor has GT, and every acceptor AG, at the intron's end of the junction.
    for part in parts:
        for label, place, bases in ((1, slice(30, 32), b"GT"), (0, slice(28, 30), b"AG")):
            rows = np.flatnonzero(part.labels == label)
            assert np.mean([part.sequences[i][place] == bases for i in rows]) > 0.95
