import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import pytest

from caduceus_jax.errors import UserError
from caduceus_jax.model.run_checkpoint import DamagedCheckpoint
from caduceus_jax.train.run import checkpoint as module
from caduceus_jax.train.run.checkpoint import Checkpoints
from caduceus_jax.train.sharding import abstract, make_mesh
from tests.stress import corruption
from tests.train.states import at, check_equal, init

CONFIG = {"seed": 1}


def place(step):
    return {"step": step, "windows": 9}


def save(folder, *steps, **options):
    with Checkpoints(folder, **{"keep": 9, **options}) as checkpoints:
        for step in steps:
            checkpoints.save(at(step), place(step), CONFIG)


def there(folder):
    return sorted(path.name for path in folder.iterdir())


def restored(folder, **options):
    with Checkpoints(folder, keep=9, **options) as checkpoints:
        return checkpoints.restore(abstract(init, make_mesh()))


def test_state_and_place_come_back_on_any_mesh(tmp_path):
    folder = tmp_path / "new" / "folder"
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(at(3), place(3), CONFIG)
    for devices in (4, 2, 1):
        mesh = make_mesh(jax.devices()[:devices])
        with Checkpoints(folder, keep=2) as checkpoints:
            assert checkpoints.latest == 3
            state, found = checkpoints.restore(abstract(init, mesh))
        assert found == place(3)
        check_equal(state, at(3))
        assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(state))


def test_what_made_a_checkpoint_is_in_it(tmp_path):
    save(tmp_path, 3)
    run = json.loads((tmp_path / "3" / "run.json").read_text())
    assert run["step"] == 3 and run["config"] == CONFIG
    assert run["versions"]["jax"] == jax.__version__
    packages = {"jax", "flax", "optax", "orbax-checkpoint", "caduceus-jax"}
    assert set(run["versions"]) == packages


def test_the_newest_and_some_in_between_are_kept_and_a_step_is_saved_once(tmp_path):
    save(tmp_path / "newest", 1, 2, 2, 3, keep=2)
    assert there(tmp_path / "newest") == ["2", "3"]
    save(tmp_path / "every", 2, 3, 4, 5, 6, 7, keep=1, keep_every=3)
    assert there(tmp_path / "every") == ["3", "6", "7"]


def test_a_damaged_checkpoint_is_moved_aside_with_one_warning(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    save(folder, 1, 2, 3)
    (folder / "3" / "manifest.json").unlink()
    next((folder / "2" / "state" / "d").iterdir()).unlink()
    state, found = restored(folder)
    check_equal(state, at(1))
    assert found == place(1)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "3 (manifest.json is missing, so it was not finished), 2 (state/d/" in warning
    assert warning.endswith("is missing); continuing from step 1")
    aside = tmp_path / "damaged_checkpoints"
    assert there(aside) == ["2", "3"] and there(folder) == ["1"]
    # The step can be saved again, and be damaged again.
    save(folder, 2)
    check_equal(restored(folder)[0], at(2))
    (folder / "2" / "run.json").unlink()
    check_equal(restored(folder)[0], at(1))
    assert there(aside) == ["2", "2-2", "3"]


def test_damage_is_refused_where_there_is_no_way_on(tmp_path):
    folder = tmp_path / "checkpoints"
    save(folder, 1, 2)
    (folder / "2" / "run.json").write_text("{}")
    with pytest.raises(DamagedCheckpoint, match=r"2 \(run.json has 2 bytes instead of") as strict:
        Checkpoints(folder, keep=2, strict=True)
    assert strict.value.exit_status == 3
    (folder / "1" / "run.json").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"1 \(run.json is missing\); bring one back"):
        Checkpoints(folder, keep=2)
    assert there(tmp_path) == ["checkpoints"] and there(folder) == ["1", "2"]


def test_what_was_never_finished_is_cleared_away(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2.tmp")
    check_equal(restored(tmp_path)[0], at(1))
    assert there(tmp_path) == ["1"]


def test_a_checkpoint_of_another_model_is_refused_at_once(tmp_path):
    save(tmp_path, 1)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        begun = time.monotonic()
        with pytest.raises(UserError) as error:
            checkpoints.restore(abstract(lambda: init(columns=5), make_mesh()))
        assert time.monotonic() - begun < 5
    assert "of another model, with other params/w (there (2, 3), here (2, 5)), opt_state/" in str(
        error.value
    )


def test_an_error_while_writing_is_not_lost(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(pathlib.Path, "rename", full)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path, 1)


def test_every_sort_of_damage_is_noticed(tmp_path):
    assert corruption.main(8, tmp_path).startswith("8 mutations of 11 kinds of files")


def test_a_kill_while_saving_loses_no_finished_checkpoint(tmp_path):
    words = [sys.executable, "-m", "tests.stress.kill_during_save", "2", str(tmp_path)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)
    assert " kills, 2 of them while" in said.stdout, said.stderr


def test_stacks_of_orbax_are_not_shown_beside_the_sentence(tmp_path):
    """The error is raised too, and becomes one sentence."""
    record = logging.LogRecord("absl", logging.ERROR, "/x/orbax/future.py", 1, "failed", (), None)
    assert module._not_orbax(record)
    record.exc_info = (ValueError, ValueError("full"), None)
    assert not module._not_orbax(record)
    record.pathname = "/x/absl/app.py"
    assert module._not_orbax(record)
