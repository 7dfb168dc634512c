import signal

import pytest

from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.run import due
from caduceus_jax.train.run.due import Due, Timetable

SETTINGS = {"steps": 40, "log_every": 2, "eval_every": 7, "checkpoint_every": 10}


def steps(timetable, what, last=30):
    return [step for step in range(1, last + 1) if getattr(timetable.at(step), what)]


def test_everything_is_due_at_its_multiples():
    timetable = Timetable(PretrainConfig(**SETTINGS, keep_every=15))
    assert steps(timetable, "save") == [10, 15, 20, 30]
    assert steps(timetable, "evaluate") == [7, 14, 21, 28]
    assert steps(timetable, "log", 8) == [2, 4, 6, 7, 8]
    assert timetable.at(1) == Due(False, False, False, None, False)


def test_a_run_ends_with_a_line_a_validation_and_a_checkpoint():
    timetable = Timetable(PretrainConfig(**SETTINGS))
    assert timetable.at(40) == Due(True, True, True, None, True)
    assert timetable.at(40).wait and not timetable.at(39).wait


def test_a_signal_saves_and_stops():
    found = Timetable(PretrainConfig(**SETTINGS)).at(3, stop=signal.SIGTERM)
    assert found == Due(False, False, True, signal.SIGTERM, True)


def test_saving_is_due_by_minutes_where_metrics_are_written(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(due.time, "monotonic", lambda: now[0])
    timetable = Timetable(PretrainConfig(**SETTINGS, checkpoint_minutes=2))
    now[0] = 119
    assert not timetable.at(32).save
    now[0] = 120
    assert not timetable.at(33).save and timetable.at(34).save
    now[0] = 239
    assert not timetable.at(36).save
    with pytest.raises(ValueError, match="checkpoint_minutes is 0"):
        PretrainConfig(checkpoint_minutes=0)
