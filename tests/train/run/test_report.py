import json
import math
import sys
import types

import pytest

import caduceus_jax as cj
from caduceus_jax.train.run.report import Report, check_wandb, read_metrics


def row(step, loss=1.0, **more):
    return {"loss": loss, "masked_loss": loss + 0.25, "tokens_per_second": 10.0, **more}


def test_metrics_are_lines_of_json_and_lines_on_the_screen(tmp_path, capsys):
    with Report(tmp_path, steps=20, first_step=0, speaks=True) as report:
        report.say("hello")
        report.write(10, row(10, loss=1.23456789012))
        report.write(20, row(20, loss=0.5, validation_masked_loss=0.75))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20]
    assert json.loads(lines[0])["loss"] == 1.234568
    assert read_metrics(tmp_path)[1]["validation_masked_loss"] == 0.75
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "hello"
    assert shown[1] == "step 10/20  loss 1.2346 (masked bases 1.4846)  10 tokens/s"
    expected = "step 20/20  loss 0.5000 (masked bases 0.7500)  held out 0.7500  10 tokens/s"
    assert shown[2] == expected
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_continued_run_drops_what_it_will_write_again(tmp_path):
    with Report(tmp_path, steps=30, first_step=0, speaks=True) as report:
        for step in (10, 20, 30):
            report.write(step, row(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    with Report(tmp_path, steps=30, first_step=20, speaks=True) as report:
        assert [r["step"] for r in report.rows] == [10, 20]
        report.write(30, row(30, loss=7.0))
    found = read_metrics(tmp_path)
    assert [r["step"] for r in found] == [10, 20, 30]
    assert found[-1]["loss"] == 7.0


def test_a_skipped_step_is_said_and_is_json_as_everybody_reads_it(tmp_path, capsys):
    with Report(tmp_path, steps=20, first_step=0, speaks=True) as report:
        bad = row(3, loss=math.nan, grad_norm=math.inf, skipped=1, examples=123_456_789)
        report.write(3, bad)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["loss"] is None and found["grad_norm"] is None
    assert found["examples"] == 123_456_789 and found["skipped"] == 1
    shown = capsys.readouterr().err
    assert "step 3/20  loss nan (masked bases nan)  gradient norm inf  skipped: no weight" in shown


def test_weights_and_biases_gets_the_same_and_its_run_continues(tmp_path, monkeypatch):
    begun, logged, finished = [], [], []
    run = types.SimpleNamespace(
        log=lambda metrics, step: logged.append((step, metrics)),
        finish=lambda: finished.append(True),
    )
    stub = types.ModuleType("wandb")
    stub.init = lambda **options: begun.append(options) or run
    monkeypatch.setitem(sys.modules, "wandb", stub)
    for first in (0, 10):
        options = {"steps": 20, "first_step": first, "wandb": "genomes", "settings": {"seed": 1}}
        with Report(tmp_path, speaks=True, **options) as report:
            report.write(first + 10, row(first + 10))
        Report(tmp_path, speaks=False, **options)
    assert [step for step, _ in logged] == [10, 20]
    assert logged[0][1] == row(10)
    assert finished == [True, True] and len(begun) == 2
    one, other = begun
    assert one == other
    assert one["project"] == "genomes" and one["config"] == {"seed": 1}
    assert one["id"] == (tmp_path / "wandb_id").read_text() and one["resume"] == "allow"


def test_weights_and_biases_is_asked_for_only_where_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(cj.UserError, match="pip install wandb"):
        check_wandb()


def test_the_time_of_steps_that_are_done_again_is_lost(tmp_path):
    with Report(tmp_path, steps=30, first_step=0, speaks=True) as report:
        for step in (10, 20):
            spent = {"seconds_step": 2.0 * step, "seconds_host": 1.0, "goodput": 0.5}
            report.write(step, row(step, **spent))
    spent = Report(tmp_path, steps=30, first_step=10, speaks=False).spent
    assert spent["step"] == 20 and spent["host"] == 1 and spent["lost"] == 20
    assert sum(spent.values()) == 41


def test_other_processes_are_silent(tmp_path, capsys):
    with Report(tmp_path, steps=20, first_step=0, speaks=False) as report:
        report.say("hello")
        report.advance(3)
        report.write(10, row(10))
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
