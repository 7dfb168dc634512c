import os
import resource
import subprocess
import sys

from tensorboardX.proto.event_pb2 import Event

from caduceus_jax.train.run.tensorboard import ScalarWriter


def events(path):
    """The events of a file: length, checksum, content, checksum."""
    content, found = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        found.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return found


def test_scalars_are_on_disk_at_once(tmp_path):
    writer = ScalarWriter(tmp_path / "new")
    writer.write(3, {"loss": 0.5, "lr": 1e-3})
    assert writer.path.parent == tmp_path / "new" and "tfevents" in writer.path.name
    _, loss, lr = events(writer.path)
    assert (loss.step, loss.summary.value[0].tag) == (3, "loss")
    assert loss.summary.value[0].simple_value == 0.5 and lr.summary.value[0].tag == "lr"
    writer.close()


def test_numbers_of_layers_become_a_histogram(tmp_path):
    writer = ScalarWriter(tmp_path)
    writer.write(1, {"grad_norm_layers": [1.0, 2.0, float("nan"), 4.0]})
    found = events(writer.path)[1].summary.value[0].histo
    assert (found.min, found.max, found.num, found.sum, found.sum_squares) == (1, 4, 3, 7, 21)
    assert sum(found.bucket) == 3 and len(found.bucket) == len(found.bucket_limit) == 30
    writer.close()


def test_a_continued_run_hides_what_it_writes_again(tmp_path):
    ScalarWriter(tmp_path).close()
    writer = ScalarWriter(tmp_path, purge_step=7)
    _, session = events(writer.path)
    assert session.step == 7 and session.session_log.status == 1
    assert len(list(tmp_path.iterdir())) == 2
    writer.close()


def test_a_full_disk_is_an_error_of_whoever_writes(tmp_path):
    """A file that may not grow stands for a disk that is full."""
    program = (
        "import sys, pathlib, signal, resource\n"
        "from caduceus_jax.train.run.tensorboard import ScalarWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = ScalarWriter(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "try:\n"
        "    for step in range(1000): writer.write(step, {'loss': 1.0})\n"
        "except OSError as error:\n"
        "    print('failed at', step, error.strerror)\n"
        "writer.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert "failed at" in done.stdout and "File too large" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (500, 500)
