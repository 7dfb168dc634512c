"""Shards of every command, merged: the bytes of one run."""

import pytest

from caduceus_jax.cli.main import main

COMMANDS = [
    "score-variants LM VCF --out out.vcf --context-length 21",
    "score-variants LM VCF --out out.parquet --context-length 21",
    "embed LM BED --out out.npz",
    "predict CLASSIFIER BED --out out.tsv",
    "likelihood LM BED --out out.tsv out.bw --track all --context-length 21",
    "mutagenesis LM BED --out out.bw --context-length 21",
    "attribute LM BED --out out.npz out.tsv",
]


def words(text, inputs):
    typed = [inputs.get(word, word) for word in text.split()]
    return [*typed, "--genome", inputs["GENOME"], "--batch-size", "2"]


def written(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if "shard" not in file.name}


@pytest.mark.parametrize("text", COMMANDS)
def test_merged_shards_are_one_run(tmp_path, inputs, monkeypatch, text):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert main(words(text, inputs)) == 0
    monkeypatch.chdir(tmp_path / "parts")
    for number in (3, 1, 2):
        assert main([*words(text, inputs), "--shard", f"{number}/3"]) == 0
    first = next(word for word in text.split() if word.startswith("out."))
    shards = sorted((tmp_path / "parts").iterdir())
    assert [file.name for file in shards] == [f"{first}.shard-{i}-of-3" for i in (1, 2, 3)]
    assert main(["merge", *(file.name for file in reversed(shards))]) == 0
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


def test_shards_that_do_not_belong_together_are_refused(tmp_path, inputs, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for options in (["--shard", "1/2"], ["--shard", "2/2", "--layer", "1", "--pooling", "center"]):
        assert main([*words("embed LM BED --out a.npz", inputs), *options]) == 0
    capsys.readouterr()
    assert main(["merge", "a.npz.shard-1-of-2"]) == 2
    assert "shard 2 of 2 is missing: name it, or compute it first" in capsys.readouterr().err
    assert main(["merge", "a.npz.shard-1-of-2", "a.npz.shard-2-of-2"]) == 2
    assert "a.npz.shard-2-of-2 is of another run than a.npz.shard-1" in capsys.readouterr().err
    assert main(["merge", inputs["BED"]]) == 2
    assert "is not a shard, which --shard writes as OUT.shard-I-of-N" in capsys.readouterr().err
    assert main([*words("embed LM - --out b.npz", inputs), "--shard", "1/2"]) == 2
    assert "shard needs inputs that every process can read: - is a pipe" in capsys.readouterr().err
