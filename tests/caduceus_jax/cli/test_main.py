"""The front door: what it prints, and its exit status."""

import subprocess
import sys

import pytest

from caduceus_jax import __version__
from caduceus_jax.cli import convert, main


def test_overview(run):
    status, out, _ = run("--help")
    assert status == 0
    for name, command in main.COMMANDS.items():
        assert f"  {name} " in out and command.summary in out
    assert run()[0] == 2
    assert run("--version") == (0, f"caduceus-jax {__version__}\n", "")


def test_commands_of_two_words_are_listed_by_their_first(run):
    status, out, _ = run("bench", "--help")
    assert status == 0
    commands = [line.split()[:2] for line in out.splitlines() if line.startswith("  ")]
    assert commands == [["bench", name] for name in ("scan", "model", "step", "data")]
    assert run("bench") == (2, out, "")
    expected = "caduceus-jax bench scna: is not a command; did you mean bench scan?\n"
    assert run("bench", "scna") == (2, "", expected)
    assert run("bench", "model", "--help")[1].startswith("usage: caduceus-jax bench model")


def test_help_verb_is_the_manual_page(run):
    page = run("bench", "model", "--help")
    assert run("help", "bench", "model") == run("bench", "model", "-h") == page
    # Whatever else is on the line.
    assert run("bench", "model", "--batch", "x", "-h") == page
    assert run("help", "bench") == run("bench", "-h")
    assert run("help") == run("--help")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_manual_page(run, name):
    status, out, _ = run(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: caduceus-jax {name}")
    # Every option says what it is for.
    lines = [line.strip() for line in out.splitlines()]
    bare = [line for line in lines if line.startswith("--") and len(line.split()) == 1]
    following = [lines[lines.index(line) + 1] for line in bare]
    assert all(following) and "None" not in out.split()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embd"], "caduceus-jax embd: is not a command; did you mean embed?"),
        (["score_variant"], "is not a command; did you mean score-variants?"),
        (["zzz"], "caduceus-jax zzz: is not a command; there are pretrain, finetune,"),
        (["info", "--modle", "x"], "there is no option --modle; did you mean --model?"),
        (["convert", "x"], "--out is missing; see caduceus-jax convert --help"),
        (["bench", "scan", "--batch", "two"], "--batch is two, but it takes a whole number"),
        (["bench", "scan", "--batch", "0"], "sizes and repeats are at least 1"),
        (
            ["info", "no/such/model"],
            "does not exist, and is not a hub id such as owner/name",
        ),
    ],
)
def test_bad_usage_is_one_sentence_and_status_2(run, words, message):
    status, out, err = run(*words)
    assert status == 2 and out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_other_failures_are_one_line_and_status_1(run, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(convert.checkpoint, "open_model", broken)
    words = ["convert", "x", "--out", str(tmp_path / "out")]
    expected = "caduceus-jax convert: RuntimeError: the disk is gone (--debug shows where)\n"
    assert run(*words) == (1, "", expected)
    status, _, err = run(*words, "--debug")
    assert status == 1 and "Traceback" in err and "in broken" in err


def test_an_interrupted_command_has_status_130(run, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert.checkpoint, "open_model", interrupted)
    assert run("convert", "x", "--out", str(tmp_path / "out"))[0] == 130


def test_a_missing_extra_is_named(run):
    # In a process of its own: modules imported anew here would be strangers to the other tests.
    code = "import sys, flax.nnx; sys.modules['optax'] = None; "
    code += "from caduceus_jax.cli.main import main; "
    code += "sys.exit(main(['pretrain']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "caduceus-jax pretrain: needs optax: pip install 'caduceus-jax[train]'\n"


def test_python_m_is_the_same_door(run):
    words = [sys.executable, "-m", "caduceus_jax", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"caduceus-jax {__version__}\n"


def test_a_reader_that_leaves_early_is_no_error(run):
    command = f"{sys.executable} -m caduceus_jax pretrain --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: caduceus-jax pretrain") and done.stderr == ""


def test_the_manual_page_of_pretrain_fits_on_three_screens(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = run("pretrain", "--help")[1]
    assert page.count("\n") <= 150
    everything = run("pretrain", "--help-all")[1]
    for name in ("hf-json", "dt-init-floor", "n-residuals-per-layer", "initializer-range"):
        assert name not in everything
    assert "--optimizer.beta1" in everything and "--optimizer.beta1" not in page


def test_pretrain_refuses_contradictions(run):
    status, _, err = run("pretrain", "--model.rcps", "true", "--data.rc_mode", "augment")
    assert status == 2 and "model.rcps reads both strands by construction" in err


def test_a_process_starts_over_with_large_pages(monkeypatch, tmp_path):
    """Where the system gives them on request, and the C library reads its settings at start."""
    enabled = tmp_path / "enabled"
    enabled.write_text("always [madvise] never\n")
    monkeypatch.setattr(main.pathlib, "Path", lambda _: enabled)
    monkeypatch.setattr(main.os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(main.sys, "argv", ["caduceus-jax", "embd"])
    monkeypatch.setattr(main.sys, "orig_argv", ["python", "/bin/caduceus-jax", "embd"])
    started = []
    monkeypatch.setattr(main.os, "execv", lambda *words: started.append(words))
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")  # as it was when the test is over
    assert main.main() == 2  # the command's name is wrong
    assert started == [(sys.executable, [sys.executable, "/bin/caduceus-jax", "embd"])]
    assert main.os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    # Once only; and neither for a manual page nor as a function.
    monkeypatch.setattr(main.os, "execv", None)
    assert main.main() == 2
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(main.sys, "argv", ["caduceus-jax", "--version"])
    assert main.main() == 0
    assert main.main(["embd"]) == 2
    # Another program called the function; the system gives none; another or older C library.
    monkeypatch.setattr(main.sys, "argv", ["caduceus-jax", "emdeb"])
    assert main.main() == 2
    monkeypatch.setattr(main.sys, "argv", ["caduceus-jax", "embd"])
    for version in ("glibc 2.31", "musl 1.2", None):
        monkeypatch.setattr(main.os, "confstr", lambda _, version=version: version)
        assert main.main() == 2
    monkeypatch.setattr(main.os, "confstr", lambda _: "glibc 2.36")
    enabled.write_text("always madvise [never]\n")
    assert main.main() == 2
