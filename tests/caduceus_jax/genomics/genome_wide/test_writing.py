"""Stores that a command writes: right, continued, divided, refused."""

import pathlib

import numpy as np
import pytest

from caduceus_jax import CaduceusForMaskedLM, UserError
from caduceus_jax.cli.main import main
from caduceus_jax.genomics.genome_wide import writing
from caduceus_jax.genomics.genome_wide.store import ScoreStore
from caduceus_jax.genomics.likelihood import likelihood
from caduceus_jax.genomics.options import Masking
from tests.genomes import drawn, fasta, write_bed
from tests.models import language_model

LOGP = ["logp_A", "logp_C", "logp_G", "logp_T"]
OPTIONS = Masking(context_length=31, masks_per_pass=3)


@pytest.fixture(scope="module")
def model() -> CaduceusForMaskedLM:
    return language_model(d_model=16, n_layer=1, initializer_range=1.0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, model) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    model.save_pretrained(str(folder / "lm"))
    genome = fasta(folder / "a.fa", **drawn({"chr1": 190, "b": 90}, unknown=30))
    return {"LM": str(folder / "lm"), "GENOME": str(genome), "FOLDER": str(folder)}


def run(inputs, out, *more, regions="all"):
    words = ["likelihood", inputs["LM"], regions, "--genome", inputs["GENOME"], "--out", str(out)]
    options = ["--context-length", "31", "--masks-per-pass", "3", "--batch-size", "2"]
    return main([*words, *options, *more])


def written(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, inputs) -> pathlib.Path:
    out = tmp_path_factory.mktemp("whole") / "a.zarr"
    assert run(inputs, out) == 0
    assert [path.name for path in out.parent.iterdir()] == ["a.zarr"]
    return out


def test_a_store_has_what_the_verb_returns(whole, inputs, model):
    """Within half of float16's spacing: 2^-11 of the value, or 2^-25 where it is tiny."""
    store = ScoreStore(whole)
    frame = likelihood(model, "all", inputs["GENOME"], options=OPTIONS, batch_size=2)
    found = np.concatenate([store.fetch("chr1"), store.fetch("b")])
    expected = frame.select(LOGP).to_numpy()
    assert np.isnan(found).all(axis=1).nonzero()[0].tolist() == [30, 31]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    bound = np.maximum(np.abs(expected[known]) * 2**-11, 2**-25)
    assert (np.abs(found[known] - expected[known]) <= bound + 2e-6).all()
    assert store.run["options"] == {**store.options, "masks_per_pass": 3, "context_length": 31}
    assert {"model", "genome", "version", "jax"} <= store.run.keys()


def test_regions_alone(tmp_path, inputs, whole):
    bed = write_bed(tmp_path / "a.bed", ("b", 60, 70), ("chr1", 20, 40))
    assert run(inputs, tmp_path / "b.zarr", regions=str(bed)) == 0
    store = ScoreStore(tmp_path / "b.zarr")
    there = ~np.isnan(store.fetch("b")[:, 0])
    assert there.nonzero()[0].tolist() == list(range(60, 70))
    assert (~np.isnan(store.fetch("chr1")[:, 0])).sum() == 18


def test_a_run_that_was_stopped_is_continued(tmp_path, inputs, whole, monkeypatch, capsys):
    """Stopped after every number of blocks; then while the store is put in its place."""
    real = writing._placed
    out = tmp_path / "a.zarr"

    def stopping(after):
        def placed(parts, merged):
            for number, found in enumerate(real(parts, merged)):
                if number == after:
                    raise KeyboardInterrupt
                yield found

        return placed

    for after in (1, 3, 4):
        monkeypatch.setattr(writing, "_placed", stopping(after))
        assert run(inputs, out) == 130
        assert [path.name for path in tmp_path.iterdir()] == ["a.zarr.journal"]
    monkeypatch.setattr(writing, "_placed", real)
    assert run(inputs, out) == 0
    assert "continuing from" in capsys.readouterr().err
    assert written(out) == written(whole)
    assert run(inputs, out) == 0
    assert "a.zarr is complete: nothing is left to compute" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_shards_are_one_run(tmp_path, inputs, whole):
    for number in (2, 4, 1, 3):
        assert run(inputs, tmp_path / "a.zarr", "--shard", f"{number}/4") == 0
    shards = sorted(map(str, tmp_path.glob("a.zarr.shard-*")))
    assert len(shards) == 4
    assert main(["merge", *shards]) == 0
    assert written(tmp_path / "a.zarr") == written(whole)
    # Values of half the size do not become a table.
    assert main(["merge", *shards, "--out", str(tmp_path / "a.tsv")]) == 2


def test_another_run_is_refused(tmp_path, inputs, whole, capsys):
    assert run(inputs, whole, "--edge", "shift") == 2
    assert (
        f"{whole} has the scores of another run, which differs in options: name another output, or "
        "pass --restart, which replaces it"
    ) in capsys.readouterr().err
    out = tmp_path / "a.zarr"
    assert run(inputs, out, regions="b:1-9") == 0
    assert run(inputs, out, "--restart") == 0
    assert written(out) == written(whole)


def test_what_is_in_the_way(tmp_path, inputs, capsys):
    (tmp_path / "a.zarr").mkdir()
    assert run(inputs, tmp_path / "a.zarr") == 2
    assert "it is there already and not a store of scores" in capsys.readouterr().err
    assert run(inputs, tmp_path / "no/a.zarr") == 2
    assert f"{tmp_path / 'no'} is not a directory" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"b.zarr is a store of scores, which is written alone"):
        writing.wants_store([pathlib.Path("a.tsv"), pathlib.Path("b.zarr")])
    assert not writing.wants_store([pathlib.Path("a.tsv")])


def test_a_full_disk_leaves_what_was_there(tmp_path, inputs, monkeypatch, capsys):
    out = tmp_path / "a.zarr"
    assert run(inputs, out, regions="b:1-9") == 0
    before = written(out)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.ArrayWriter, "_write", full)
    assert run(inputs, out, "--restart") == 1
    assert f"{out} cannot be written: No space left on device" in capsys.readouterr().err
    assert written(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "a.zarr.journal"]
