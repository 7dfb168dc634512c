"""Run by test_processes.py, once for each of two processes: what they share, save and leave with.

two_processes.py HOST:PORT PROCESS FOLDER CASE
"""

import os
import pathlib
import signal
import sys
import time

import jax

from caduceus_jax.errors import UserError
from caduceus_jax.train import processes


@processes.end_together
def main(coordinator: str, process: int, folder: pathlib.Path, case: str) -> None:
    """One of two processes with a device each."""
    processes.start(coordinator, 2, process)
    assert (processes.count(), processes.index()) == (2, process)
    assert processes.all_gather("who", process) == [0, 1]
    assert processes.broadcast_from_first("first", lambda: f"{process} did it") == "0 did it"
    processes.check_same({"lr": 1, "seed": process if case == "different" else 0})
    if case == "refused":
        processes.broadcast_from_first("refused", refuse)
    while case == "one fails":  # as steps of training, until the other one ends this process
        if process == 1:
            raise OSError("no such genome")
        processes.all_gather("a step", process)
    if case.startswith("store"):
        save_in_a_store(folder, fails=case == "store fails")
    save_and_stop(folder, process)


def refuse() -> None:
    """What a user did wrong."""
    raise UserError("refused by process 0")


def save_and_stop(folder: pathlib.Path, process: int) -> None:
    """Saves by the first process's clock; one is asked to stop, both stop after the same step."""
    from caduceus_jax.train.config import PretrainConfig
    from caduceus_jax.train.run.checkpoint import Checkpoints
    from caduceus_jax.train.run.due import Timetable
    from caduceus_jax.train.run.interruption import EXIT_STATUS, Interruption
    from caduceus_jax.train.sharding import abstract, init_sharded, make_mesh
    from tests.train.states import at, check_equal, init

    config = PretrainConfig(
        steps=10**6, checkpoint_every=10**6, eval_every=10**6, checkpoint_minutes=1e-9, log_every=2
    )
    timetable = Timetable(config)
    timetable._saved += 1e9 * process  # process 1 alone would not save
    assert timetable.at(2).save and not timetable.at(3).save
    mesh = make_mesh()
    with Interruption() as interruption:
        for step in range(1, 10**6):
            processes.all_gather("a step of training", step)
            time.sleep(0.02)
            if step == 5 and process == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            if stop := interruption.after(step):
                break
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(init_sharded(lambda: at(step), mesh), {"step": step}, {})
        with Checkpoints(folder, keep=1) as checkpoints:
            state, place = checkpoints.restore(abstract(init, mesh))
            assert place == {"step": step} == {"step": checkpoints.latest}
        check_equal(jax.device_get(state), at(step))
    processes.all_gather("the end", "done")
    raise SystemExit(EXIT_STATUS[stop])


def save_in_a_store(folder: pathlib.Path, *, fails: bool) -> None:
    """Saves and reads where the processes share no folder, only a store that may fail."""
    from caduceus_jax.train.run.checkpoint import Checkpoints
    from caduceus_jax.train.sharding import abstract, init_sharded, make_mesh
    from caduceus_jax.train.storage.run_folder import RunFolder
    from tests.train.states import at, check_equal, init

    mesh, first = make_mesh(), processes.index() == 0
    with RunFolder(f"file://{folder}/run") as place:
        if first:
            (place.path / "config.yaml").write_text("seed: 1\n")
        if fails and first:
            (folder / "run" / "checkpoints").write_text("a file where a folder should be")
        kept = {"keep": 1, "saved": place.saved, "one_writer": True}
        with Checkpoints(place.path / "checkpoints", **kept) as checkpoints:
            checkpoints.save(init_sharded(lambda: at(3), mesh), {"step": 3}, {})
            while fails:  # as a run that has more steps to do
                processes.all_gather("a step of training", 3)
                checkpoints.raise_failure()
                time.sleep(0.02)
            checkpoints.wait()
            state, position = checkpoints.restore(abstract(init, mesh))
            assert position == {"step": 3}
            check_equal(jax.device_get(state), at(3))
    assert (place.path / "checkpoints").exists() == first
    if first:
        assert (folder / "run" / "checkpoints" / "3" / "manifest.json").is_file()
        assert (folder / "run" / "config.yaml").is_file()
    raise SystemExit(0)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    try:
        main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4])
    except UserError as error:  # as the command line does
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
