"""What is recorded of a run's settings, and which may differ when it continues."""

import dataclasses

import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig, plain
from caduceus_jax.train.recorded import check_same_run, read_config, save_config


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.yaml"


def continued(path, config, **changed):
    check_same_run(dataclasses.replace(config, **changed), read_config(path), path)


def test_settings_are_read_back_as_they_were_written(path):
    config = PretrainConfig(steps=7, batch_size=3)
    save_config(config, path)
    found = read_config(path)
    assert (found["steps"], found["batch_size"]) == (7, 3)
    assert set(found) <= set(plain(config)) and "processes" not in found


def test_what_changes_numbers_by_rounding_alone_may_differ(path):
    config = PretrainConfig(steps=7)
    save_config(config, path)
    continued(path, config, scan="chunked", microbatches=2, out="elsewhere", max_skipped=3)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 5}, r"batch_size \(there \d+, now 5\)"),
        ({"optimizer": OptimizerConfig(lr=0.5)}, r"optimizer\.lr \(there .*, now 0\.5\)"),
    ],
)
def test_another_run_is_named_by_what_differs(path, changed, named):
    config = PretrainConfig(steps=7)
    save_config(config, path)
    with pytest.raises(UserError, match=f"holds another run, with other {named}: choose another"):
        continued(path, config, **changed)


def test_a_schedule_that_does_not_say_how_it_goes_on_is_not_made_longer(path):
    config = PretrainConfig(steps=7)
    save_config(config, path)
    with pytest.raises(UserError, match="steps was 7 when this run began, and is 9 now"):
        continued(path, config, steps=9)
    stable = dataclasses.replace(config, optimizer=OptimizerConfig(schedule="wsd"))
    save_config(stable, path)
    continued(path, stable, steps=9)


def test_a_file_that_is_not_settings(path):
    path.write_text("- one\n")
    with pytest.raises(UserError, match="is not as it was written: remove it"):
        read_config(path)
