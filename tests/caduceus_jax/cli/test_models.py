"""`caduceus-jax models`: the list, the file and the description of one model."""

import csv

import pytest

from caduceus_jax import UserError
from caduceus_jax.cli.models import models
from caduceus_jax.models import RELEASED


def test_the_list_is_tab_separated_where_it_is_not_a_terminal(capsys, tmp_path):
    models()
    printed = capsys.readouterr().out
    models(out=tmp_path / "models.tsv")
    assert (tmp_path / "models.tsv").read_text() == printed
    read = list(csv.DictReader(printed.splitlines(), delimiter="\t"))
    assert [row["name"] for row in read] == [model.name for model in RELEASED]
    first = read[0]
    assert first["hub id"] == "kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16"
    assert (first["window"], first["parameters"], first["MB"]) == ("131072", "7725312", "30.9")
    assert (first["pretrained on"], first["kind"]) == ("human", "PS, equivariant")


def test_a_terminal_gets_a_table(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    models()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "pretrained", "on", "kind", "window", "parameters", "MB"]
    assert lines[1].split()[-3:] == ["131,072", "7,725,312", "30.9"]


def test_one_model_is_described(capsys):
    models("PlantCaduceus_l28")
    said = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    said = {title: text.strip() for title, text in said.items()}
    assert said["size"] == "112,107,264 parameters, 768 x 28"
    assert said["download"].startswith("448.4 MB, pytorch_model.bin (4 bytes per parameter;")
    assert said["in Python"] == "cj.load('plantcaduceus-l28')"
    assert "128 million" in said["remark"] and "10.1073/pnas" in said["cite"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("caduceus-ps-131", "did you mean caduceus-ps-131k"),
        ("evo2", "caduceus-jax models lists them"),
    ],
)
def test_an_unknown_name_is_refused(name, hint):
    with pytest.raises(UserError, match=hint):
        models(name)


def test_one_model_is_not_written_to_a_file(tmp_path):
    with pytest.raises(UserError, match="leave out the name"):
        models("caduceus-ps-1k", out=tmp_path / "x.tsv")
