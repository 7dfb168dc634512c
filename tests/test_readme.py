"""The README's examples run: Python here, the shell with --slow."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.models import language_model

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like a clone of the repository, with a small random model in runs/quickstart."""
    folder = tmp_path_factory.mktemp("clone")
    # A copy: indexes of genomes are made beside them.
    shutil.copytree(ROOT / "configs", folder / "configs")
    language_model(d_model=16, n_layer=1).save_pretrained(str(folder / "runs/quickstart"))
    return folder


@pytest.mark.parametrize("block", PYTHON)
def test_python_blocks_run(block, clone, monkeypatch, capsys, shapes_unchecked):
    monkeypatch.chdir(clone)
    assert len(block.splitlines()) <= 15
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_shell_block_runs(clone):
    (block,) = (block for block in SHELL if block.startswith("genome="))
    script = f'set -euo pipefail\ncaduceus-jax() {{ {sys.executable} -m caduceus_jax "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", script + block], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for path in re.findall(r"--out ([^\n#]+)", block):
        assert all((clone / name).exists() for name in path.split())


def test_it_is_short_and_has_the_two_commands_that_start_everything():
    lines = TEXT.splitlines()
    assert len(lines) < 130
    assert "pip install -e '.[test]' && pytest" in lines
    train = "pip install -e '.[train,genomics]' && caduceus-jax pretrain"
    assert f"{train} --config configs/quickstart.yaml" in lines


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target
