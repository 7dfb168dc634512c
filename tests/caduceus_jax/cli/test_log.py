import logging

from caduceus_jax.cli import log


def test_the_log_is_shown_bare_and_only_while_a_command_runs(capsys):
    child = logging.getLogger("caduceus_jax.genomics.x")
    with log.shown_log():
        child.info("read %d rows", 3)
        child.warning("one is odd")
        child.debug("not this")
    child.info("nor this")
    assert capsys.readouterr().err == "read 3 rows\nwarning: one is odd\n"


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setattr(log, "_is_first_process", lambda: False)
    with log.shown_log():
        logging.getLogger("caduceus_jax").warning("x")
    assert capsys.readouterr().err == ""
