"""A run that is interrupted and started again writes what an undisturbed one does, and no more."""

import importlib.util
import pathlib

import pytest

from caduceus_jax.cli.main import INTERRUPTED, main
from caduceus_jax.inference import blocks
from tests.genomes import fasta

SMALL = ["--context-length", "21", "--batch-size", "4"]


# Words of the commands, and how many batches they run in.
COMMANDS = {
    "score-variants LM VCF --out out.vcf": 8,
    "score-variants LM VCF --mode pll --window 3 --out out.vcf.gz": 49,
    "score-variants LM VCF --mode embedding --window 3 --out out.parquet": 15,
    "embed LM BED --out out.parquet": 8,
    "embed LM BED --pooling none --out out.npz": 8,
    "embed LM BED --out out.h5": 8,
    "predict CLASSIFIER BED --out out.tsv": 8,
    "likelihood LM BED --out out.tsv out.bw": 68,
    "mutagenesis LM BED --out out.parquet": 68,
}


def command(text: str, inputs: dict[str, str], folder: pathlib.Path) -> list[str]:
    words = [inputs.get(word, word) for word in text.split()]
    words = [str(folder / word) if word.startswith("out.") else word for word in words]
    return [*words, "--genome", inputs["GENOME"], *SMALL]


def counted(monkeypatch, stop_after: int = 10**9) -> list[int]:
    """Counts the rows of batches that are computed, and stops the run after some batches."""
    seen, run = [], blocks.run_batches

    def counting(*arguments, **options):
        for batch, values in run(*arguments, **options):
            if len(seen) == stop_after:
                raise KeyboardInterrupt
            seen.append(len(batch.rows))
            yield batch, values

    monkeypatch.setattr(blocks, "run_batches", counting)
    return seen


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("text", COMMANDS)
def test_the_same_command_continues(tmp_path, inputs, monkeypatch, capsys, text):
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    with monkeypatch.context() as patch:
        whole = counted(patch)
        assert main(command(text, inputs, tmp_path / "whole")) == 0
    words, batches = command(text, inputs, tmp_path / "stopped"), len(whole)
    assert batches == COMMANDS[text]
    done = []
    for stop in (1, 2, batches - 4):
        with monkeypatch.context() as patch:
            seen = counted(patch, stop)
            capsys.readouterr()
            assert main(words) == INTERRUPTED
            said = capsys.readouterr().err
            assert "the same command continues from it\n" in said
            assert ("continuing from" in said) == bool(done)
        done += seen
        assert [path.suffix for path in (tmp_path / "stopped").iterdir()] == [".journal"]
    with monkeypatch.context() as patch:
        done += counted(patch)
        seen = counted(patch)
        assert main(words) == 0
    assert done + seen == whole
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_restart_begins_anew(tmp_path, inputs, monkeypatch):
    words = command("embed LM BED --out out.npz", inputs, tmp_path)
    with monkeypatch.context() as patch:
        counted(patch, 5)
        assert main(words) == INTERRUPTED
    seen = counted(monkeypatch)
    assert main([*words, "--restart"]) == 0
    assert sum(seen) == 30


def test_nothing_computed_leaves_nothing(tmp_path, inputs, monkeypatch, capsys):
    counted(monkeypatch, 0)
    assert main(command("embed LM BED --out out.npz", inputs, tmp_path)) == INTERRUPTED
    assert list(tmp_path.iterdir()) == []
    assert "continues" not in capsys.readouterr().err


def test_other_options_and_inputs_are_another_run(tmp_path, inputs, monkeypatch, capsys):
    words = command("score-variants LM VCF --out out.vcf", inputs, tmp_path)
    with monkeypatch.context() as patch:
        counted(patch, 2)
        assert main(words) == INTERRUPTED
    other = fasta(tmp_path / "other.fa", **{"1": "ACGT" * 100, "2": "ACGT"})
    words[words.index("--genome") + 1] = str(other)
    capsys.readouterr()
    assert main([*words, "--edge", "shift", "--max-ref-mismatch", "1"]) == 2
    said = capsys.readouterr().err
    assert (
        "out.vcf.journal is the journal of another run, which differs in options, genome: " in said
    )
    assert "or pass --restart, which discards the journal" in said


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_runs_are_continued_to_the_same_bytes(tmp_path, inputs, capsys, kills):
    path = pathlib.Path(__file__).parents[3] / "stress" / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = command("score-variants LM VCF --out out.vcf", inputs, tmp_path)
    assert script.main(kills, [*words[:-1], "1"])
    assert "the same bytes" in capsys.readouterr().out
