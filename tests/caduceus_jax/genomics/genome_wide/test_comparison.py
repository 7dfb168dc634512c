"""Lookups and backgrounds by command: files, headers, shards, interruptions."""

import pytest

from caduceus_jax.cli.main import main
from caduceus_jax.genomics.scoring import journal
from tests.genomes import other, write_bed, write_vcf


@pytest.fixture
def words(tmp_path, desk, genome):
    chr1 = genome.fetch("chr1")
    records = [
        f"1\t{p + 1}\t.\t{chr1[p]}\t{other(chr1[p])},<DEL>\t.\t.\t." for p in range(200, 240)
    ]
    path = write_vcf(tmp_path / "in.vcf", *records)
    bed = write_bed(tmp_path / "a.bed", "chr1\t0\t220\tleft")
    options = ["--genome", str(genome.path), "--context-length", "31", "--batch-size", "2"]
    null = ["--null", "matched", "--null-size", "5", "--null-regions", str(bed)]
    return ["score-variants", str(desk / "lm"), str(path), *options, *null]


def test_a_vcf_has_them(tmp_path, desk, words, capsys):
    out = tmp_path / "out.vcf"
    assert main([*words, "--out", str(out), "--scores", str(desk / "a.zarr")]) == 0
    assert "scores are in" in capsys.readouterr().err
    text = out.read_text()
    assert (
        '##INFO=<ID=CADUCEUS_LLR_QUANTILE,Number=A,Type=Float,Description="Share of random variants'
        ' of the same kind whose CADUCEUS_LLR is lower">'
    ) in text
    line = next(line for line in text.splitlines() if line.startswith("##caduceus_jax"))
    assert f'Scores="{desk / "a.zarr"}"' in line and 'Null="matched",NullSize="5"' in line
    records = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert len(records) == 40
    for record in records:
        fields = dict(field.split("=") for field in record[7].split(";"))
        value, none = fields["CADUCEUS_LLR_QUANTILE"].split(",")
        assert 0 <= float(value) <= 1 and none == "."
        assert fields["CADUCEUS_STATUS"] == "ok,symbolic"


@pytest.mark.parametrize("stored", [True, False])
def test_shards_are_one_run(tmp_path, desk, words, monkeypatch, stored):
    more = ["--scores", str(desk / "a.zarr")] if stored else []
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert main([*words, *more, "--out", "a.tsv"]) == 0
    monkeypatch.chdir(tmp_path / "parts")
    for number in (2, 1, 3):
        assert main([*words, *more, "--out", "a.tsv", "--shard", f"{number}/3"]) == 0
    assert main(["merge", *(f"a.tsv.shard-{number}-of-3" for number in (1, 2, 3))]) == 0
    one, two = (tmp_path / folder / "a.tsv" for folder in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_text().splitlines()) == 81


def test_a_run_that_was_stopped_is_continued(tmp_path, words, monkeypatch, capsys):
    whole, out = tmp_path / "whole.tsv", tmp_path / "a.tsv"
    assert main([*words, "--out", str(whole)]) == 0
    append, count = journal.Journal.append, []

    def stopping(self, values):
        append(self, values)
        count.append(1)
        if len(count) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "append", stopping)
    assert main([*words, "--out", str(out)]) == 130
    assert main([*words, "--out", str(out)]) == 0
    assert "continuing from" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    # Another draw is another run.
    count.clear()
    assert main([*words, "--out", str(out), "--null-seed", "3"]) == 130
    assert main([*words, "--out", str(out)]) == 2
    assert "which differs in background" in capsys.readouterr().err
