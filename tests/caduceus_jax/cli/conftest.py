import pytest

from caduceus_jax.cli.main import main


@pytest.fixture
def run(capsys):
    """Runs a command; returns its exit status, standard output and standard error."""

    def run(*words):
        status = main(list(map(str, words)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
