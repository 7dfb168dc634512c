"""`python -m caduceus_jax` is the command."""

import subprocess
import sys

from caduceus_jax.version import __version__


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "caduceus_jax", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == f"caduceus-jax {__version__}\n"
