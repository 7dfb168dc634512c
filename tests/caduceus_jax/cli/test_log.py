import logging
import subprocess
import sys

import pytest

from caduceus_jax.cli import log


@pytest.fixture(autouse=True)
def shown():
    """Each test here decides on its own when the log is shown."""


def test_the_log_is_shown_bare_and_only_while_a_command_runs(capsys):
    child = logging.getLogger("caduceus_jax.genomics.x")
    with log.shown_log():
        child.info("read %d rows", 3)
        child.warning("one is odd")
        child.debug("not this")
    child.info("nor this")
    assert not logging.getLogger("caduceus_jax").handlers
    assert capsys.readouterr().err == "read 3 rows\nwarning: one is odd\n"


def test_nested_commands_show_it_once(capsys):
    with log.shown_log(), log.shown_log():
        logging.getLogger("caduceus_jax").info("once")
    assert capsys.readouterr().err == "once\n"


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(log, "is_first_process", lambda: False)
    with log.shown_log():
        logging.getLogger("caduceus_jax").warning("x")
    assert capsys.readouterr().err == ""


def test_a_library_that_configures_logging_does_not_double_it():
    code = """
import logging
from caduceus_jax.cli.log import shown_log
with shown_log():
    logging.info("configures the root logger where it has no handler")
    logging.getLogger("caduceus_jax.x").warning("ours")
    logging.getLogger("jax.y").warning("theirs")
    logging.getLogger("jax.y").info("not this")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "warning: ours\ntheirs\n")


def test_the_library_alone_shows_nothing():
    code = "import logging, caduceus_jax; logging.getLogger('caduceus_jax').info('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
