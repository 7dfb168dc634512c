import io
import re
import subprocess
import sys
import types

import pytest

from caduceus_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(count=3, **more):
    return list(progress.track(range(count), total=count, what="embedding", unit="reads", **more))


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    assert run() == [0, 1, 2]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "embedding: 3/3 reads, elapsed 0:00:00\n")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    clock = iter(range(0, 400_000, 100))
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    run()
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 1/3 reads, elapsed 0:01:40, remaining 0:03:20",
        "embedding: 2/3 reads, elapsed 0:03:20, remaining 0:01:40",
        "embedding: 3/3 reads, elapsed 0:05:00",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert run() == [0, 1, 2]
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", sys.stderr.getvalue())
    assert "3/3 reads elapsed 0:00:00 remaining" in shown


def test_one_text_in_its_place_in_a_notebook(capsys, monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []
    handle = types.SimpleNamespace(update=lambda bundle, raw: shown.append(bundle["text/plain"]))

    def fake(bundle, raw, display_id):
        assert raw and display_id
        shown.append(bundle["text/plain"])
        return handle

    monkeypatch.setattr(display, "display", fake)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_UPDATES", -1.0)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    assert run() == [0, 1, 2]
    assert [text.split(",")[0] for text in shown] == [f"embedding: {i}/3 reads" for i in (1, 2, 3)]
    assert capsys.readouterr().err == ""  # which a notebook shows in red


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_first_process", lambda: False)
    assert run() == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_this_is_the_first_process_and_no_notebook():
    assert progress.is_first_process() and not progress.in_notebook()


def test_asking_for_the_first_process_starts_no_device():
    """Of several processes the first may ask while the others are not there yet."""
    program = (
        "import jax\n"
        "from jax._src import distributed, xla_bridge\n"
        "from caduceus_jax import progress\n"
        "distributed.global_state.client = object()\n"
        "for process, first in ((0, True), (1, False)):\n"
        "    distributed.global_state.process_id = process\n"
        "    assert progress.is_first_process() is first\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "distributed.global_state.client = None\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
