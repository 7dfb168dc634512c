import json
import math
import sys
import types

import matplotlib.image
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.train.run.report import Report, check_wandb, plot_losses, read_metrics, summary

BASELINES = {"order_0_entropy": 1.3, "markov_3": 1.2, "markov_5": 1.1}


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
    assert shown[1] == "step 10/20  loss 1.2346 (hidden bases 1.4846)  10 tokens/s"
    expected = "step 20/20  loss 0.5000 (hidden bases 0.7500)  held out 0.7500  10 tokens/s"
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
    assert "step 3/20  loss nan (hidden bases nan)  gradient norm inf  skipped: no weight" in shown


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


@pytest.mark.parametrize("rows", [[], [{"step": 5, **row(5, validation_masked_loss=1.15)}]])
def test_the_curve_is_a_picture_of_a_legible_size(tmp_path, rows):
    plot_losses(rows, BASELINES, tmp_path / "loss.png")
    picture = matplotlib.image.imread(tmp_path / "loss.png")
    assert picture.shape[:2] == (660, 960)
    # The order-0 line is red.
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.2) & (picture[..., 2] < 0.2)
    assert red.any(axis=0).mean() > 0.5


def test_skipped_steps_are_marked_and_no_part_of_the_curve(tmp_path):
    rows = [{"step": step, **row(step, loss=0.9)} for step in range(1, 40)]
    pictures = []
    for skipped in ({}, {"skipped": 1, "masked_loss": None}, {"skipped": 1, "masked_loss": 1.19}):
        rows[19] |= skipped
        plot_losses(rows, BASELINES, tmp_path / "loss.png")
        pictures.append(matplotlib.image.imread(tmp_path / "loss.png"))
    _, without, spike = pictures
    # The marks are purple, on the axis below step 20 of 39 and in the legend.
    purple = [np.abs(picture[..., :3] - (0.58, 0.40, 0.74)).max(-1) < 0.05 for picture in pictures]
    assert [marks.any() for marks in purple] == [False, True, True]
    assert purple[1][:540, 505:525].any()
    np.testing.assert_array_equal(without, spike)


def test_the_summary_puts_the_model_beside_what_it_has_to_beat():
    rows = [{"step": 5, **row(5, validation_masked_loss=1.05)}, {"step": 6, **row(6)}]
    lines = summary(BASELINES, rows, "9 held-out bases")
    assert lines[0] == "cross-entropy of hidden bases in 9 held-out bases, nats/base:"
    table = {line[2:37].strip(): float(line[37:]) for line in lines[1:]}
    assert table == {
        "a guess among four bases": round(math.log(4), 4),
        "order-0 entropy of that sequence": 1.3,
        "order-3 Markov model": 1.2,
        "order-5 Markov model": 1.1,
        "this model at step 5": 1.05,
    }
