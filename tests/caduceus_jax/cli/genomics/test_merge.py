"""Shards of every command, merged: the bytes of one run."""

import dataclasses
import json
import os
import pathlib

import pytest

from caduceus_jax import load
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


def entries(path: pathlib.Path) -> list[int]:
    """Returns where each entry of a shard ends."""
    data = path.read_bytes()
    ends = [data.index(b"\n") + 1]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 8 + int.from_bytes(data[ends[-1] :][:4], "little"))
    return ends


@pytest.mark.parametrize("out", [pytest.param("a.tsv", marks=pytest.mark.slow), "a.zarr"])
def test_shards_that_lack_results_are_refused(tmp_path, inputs, monkeypatch, capsys, out):
    """The next shard's results would take the place of those that are missing."""
    monkeypatch.chdir(tmp_path)
    text = f"likelihood LM BED --out {out}"
    for number in (1, 2):
        assert main([*words(text, inputs), "--shard", f"{number}/2"]) == 0
    shards = [tmp_path / f"{out}.shard-{number}-of-2" for number in (1, 2)]
    data, ends = shards[0].read_bytes(), entries(shards[0])
    assert len(ends) > 3
    damaged = {
        "unfinished": data[: ends[-2]],
        "without its first": data[: ends[0]] + data[ends[1] :],
        "cut short": data[:-1],
        "changed": data[:-1] + bytes([data[-1] ^ 1]),
    }
    for name, content in damaged.items():
        shards[0].write_bytes(content)
        if out == "a.tsv":
            (tmp_path / out).write_text("of yesterday")
        assert main(["merge", *map(str, shards)]) == 2, name
        told = capsys.readouterr().err
        assert "the shards do not have all results of the run" in told and "kept in" not in told
        if out == "a.tsv":
            assert (tmp_path / out).read_text() == "of yesterday"
        assert not (tmp_path / f"{out}.journal").exists()
    shards[0].write_bytes(data)
    assert main(["merge", *map(str, shards)]) == 0


def test_a_run_is_recorded_with_the_length_that_the_model_sees(tmp_path, inputs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = load(inputs["CLASSIFIER"]).model
    model.task = dataclasses.replace(model.task, max_length=21)
    model.save_pretrained("trained")
    lines = {
        1023: "likelihood LM 1:1-9 --out a.tsv",
        1024: "likelihood LM 1:1-9 --context-length 1024 --out a.bw",
        21: "mutagenesis trained 1:1-9 --out b.tsv",
        19: "mutagenesis trained 1:1-9 --context-length 19 --out c.tsv",
    }
    for length, text in lines.items():
        assert main([*words(text, inputs), "--shard", "1/1"]) == 0
        (shard,) = tmp_path.glob(f"{text.split()[-1]}.shard-1-of-1")
        run = json.loads(shard.read_bytes().partition(b"\n")[0])["run"]
        assert run["options"]["context_length"] == length
        assert main(["merge", str(shard)]) == 0
        typed = run["command"]["arguments"]["options"]["context_length"]
        assert typed == (length if "--context-length" in text else None)
    store = [*words("likelihood LM 1:1-9 --out a.zarr", inputs)]
    assert main(store) == 0
    assert main([*store, "--context-length", "1023"]) == 0  # is there
    assert main([*store, "--context-length", "21"]) == 2


def test_a_shard_in_a_pipe_is_refused_at_once(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.npz.shard-1-of-2")
    assert main(["merge", str(tmp_path / "a.npz.shard-1-of-2")]) == 2
    assert "is not a file, and shards are read several times" in capsys.readouterr().err


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
