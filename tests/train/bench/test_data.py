import json

import pytest

from caduceus_jax.cli.main import main
from caduceus_jax.train.bench import data
from tests.genomes import prepared


def test_the_data_is_timed_and_written_down(tmp_path, monkeypatch, capsys):
    """Of a genome made for it; without processes, which take seconds to start."""
    ways = data._ways
    monkeypatch.setattr(data, "_SIZES", {128: 4, 1024: 2})
    monkeypatch.setattr(
        data, "_ways", lambda cores: {k: v for k, v in ways(cores).items() if not v.workers}
    )
    words = ["bench", "data", "--megabases", "1", "--seconds", "0.05", "--cores", "3"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "data.json").read_text())
    assert results["finished"]
    assert results["prepared"][0]["bases"] == 999_960
    cases = [(row["length"], row["windows"], row["how"]) for row in results["cases"]]
    assert cases == [(n, k, how) for n, k in ((128, 4), (1024, 2)) for how in list(ways(3))[:2]]
    for row in results["cases"]:
        assert 0 < row["min_tokens_per_s"] <= row["tokens_per_s"] <= row["max_tokens_per_s"]
        assert row["tokens_per_core_s"] > 0
    row = results["cases"][-1]
    shown = f"{1e-6 * row['tokens_per_s']:.1f} ("
    (line,) = [
        line
        for line in (tmp_path / "data.md").read_text().splitlines()
        if line.startswith("| 2 x 1,024 | 3 threads |")
    ]
    assert shown in line
    said = capsys.readouterr().out
    assert "2 windows of 1,024, 3 threads: " in said
    assert "prepared 999,960 bases" in said


def test_the_three_ways_are_those_of_a_training():
    ways = data._ways(5)
    assert [(way.threads, way.workers) for way in ways.values()] == [(1, 0), (5, 0), (1, 5)]
    assert list(ways) == ["one thread", "5 threads", "5 processes"]
    assert {rows * length for length, rows in data._SIZES.items()} == {2**20}


@pytest.mark.parametrize(
    "words, message",
    [
        (["--cores", "-1"], "are at least 1"),
        (["--seconds", "0"], "seconds above 0"),
        (["--genome", "nowhere.fa"], "nowhere.fa does not exist"),
        (["--genome", "x.fa", "--megabases", "3"], "--megabases is not read with --genome"),
    ],
)
def test_what_cannot_be_timed_is_refused(tmp_path, capsys, words, message):
    assert main(["bench", "data", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_genome_of_n_is_refused(tmp_path, capsys):
    store = prepared(tmp_path, a="N" * 2000)
    words = ["--genome", str(store.path), "--out", str(tmp_path / "out")]
    assert main(["bench", "data", *words]) == 2
    assert "has no sequence" in capsys.readouterr().err
