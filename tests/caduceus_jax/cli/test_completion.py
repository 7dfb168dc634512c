import shutil
import subprocess

import pytest

from caduceus_jax.cli import completion
from caduceus_jax.cli.commands import COMMANDS

# What bash does when the tab key is pressed after these words.
ASK = """
source "$1"; shift
function=$(complete -p caduceus-jax | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
$function caduceus-jax "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts():
    return {shell: completion.script(shell) for shell in ("bash", "zsh", "fish", "tcsh")}


@pytest.fixture(scope="module")
def press_tab(scripts, tmp_path_factory):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = tmp_path_factory.mktemp("completion") / "bash"
    script.write_text(scripts["bash"])

    def press(*words):
        command = [bash, "-c", ASK, "bash", str(script), "caduceus-jax", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return press


def test_the_tab_key_completes_commands(press_tab):
    assert press_tab("") == {name.partition(" ")[0] for name in COMMANDS}
    assert press_tab("sc") == {"score-variants"}
    assert press_tab("bench", "s") == {"scan", "step"}
    assert {"eqtl", "masked"} <= press_tab("evaluate", "")


def test_the_tab_key_completes_options_and_choices(press_tab):
    assert press_tab("bench", "scan", "--ch") == {"--channels", "--chunk-length"}
    assert press_tab("bench", "scan", "--dtype", "") == {"float32", "bfloat16"}
    assert press_tab("pretrain", "--optimizer.l") >= {"--optimizer.lr", "--optimizer.lr-min"}


def test_the_tab_key_completes_files(press_tab, tmp_path):
    (tmp_path / "model").mkdir()
    assert press_tab("convert", f"{tmp_path}/m") == {f"{tmp_path}/model"}


def test_every_shell_has_a_script(scripts):
    for script in scripts.values():
        assert "score-variants" in script
