import os
import shutil

import pytest

from caduceus_jax import UserError
from caduceus_jax.train.data import sources
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.data.sources import (
    check_data_position,
    make_data_position,
    open_stores,
    record_stores,
)
from tests.genomes import fasta, prepared


@pytest.fixture
def run(tmp_path):
    """A run that began with a FASTA file and a prepared folder: opens what it is given."""
    path = fasta(tmp_path / "g.fa", a="ACGT" * 10)
    store = prepared(tmp_path, b="CC")
    folder = tmp_path / "run" / "data"

    def open_(*names):
        return open_stores(DataConfig(fasta=list(names) or [str(path), str(store.path)]), folder)

    record_stores(open_(), folder)
    open_.fasta, open_.store, open_.folder = path, store, folder
    return open_


def test_a_fasta_file_is_prepared_once(run, capsys):
    first = run()
    assert [store.name for store in first] == ["g.fa", run.store.name]
    assert first[0].path == run.folder / "0"
    assert first[0]["a"].tobytes() == b"ACGT" * 10
    assert first[1].path == run.store.path
    before = (run.folder / "0" / "index.json").stat().st_mtime_ns
    # Of another age, and still the same file: its digest says so.
    os.utime(run.fasta, ns=(0, 0))
    assert run()[0].sha256 == first[0].sha256
    # The file may go, or be elsewhere: what was made of it is all that is needed.
    moved = run.fasta.rename(run.fasta.with_name("moved.fa"))
    run()
    run(str(moved), str(run.store.path))
    assert (run.folder / "0" / "index.json").stat().st_mtime_ns == before
    assert "reading g.fa" not in capsys.readouterr().err


def test_what_changed_since_the_run_began_is_refused(run, tmp_path):
    fasta(run.fasta, a="ACGA" * 10)
    with pytest.raises(UserError, match="g.fa has changed since this run began.*put the old file"):
        run()
    fasta(run.fasta, a="ACGT" * 10)
    run()
    other = prepared(tmp_path, b="CG")
    with pytest.raises(UserError, match=f"{other.path} has changed since this run began"):
        run(str(run.fasta), str(other.path))
    with pytest.raises(UserError, match="began with 2 genomes, and data.fasta names 1 now"):
        run(str(run.fasta))
    # Bytes that somebody changed in place, whatever the index says.
    (run.store.path / "bases.bin").write_bytes(b"CT")
    with pytest.raises(UserError, match="bases.bin is not what was written there"):
        run()


def test_a_damaged_store_of_the_run_is_made_again(run):
    (run.folder / "0" / "bases.bin").write_bytes(b"")
    assert run()[0]["a"].tobytes() == b"ACGT" * 10


def test_an_attempt_that_never_began_leaves_no_trace(tmp_path):
    path, folder = fasta(tmp_path / "g.fa", a="ACGT"), tmp_path / "data"
    config = DataConfig(fasta=str(path))
    open_stores(config, folder)
    fasta(path, a="ACGA")
    assert open_stores(config, folder)[0]["a"].tobytes() == b"ACGA"
    path.unlink()
    with pytest.raises(UserError, match="g.fa does not exist"):
        open_stores(config, folder)


def test_genomes_that_cannot_be_used_are_refused(tmp_path):
    path = fasta(tmp_path / "g.fa", a="ACGT")
    with pytest.raises(UserError, match="no genome to train on: name one with --data.fasta"):
        open_stores(DataConfig(), tmp_path / "data")
    again = shutil.copy(path, tmp_path / "again.fa")
    with pytest.raises(UserError, match="again.fa is the same genome as .*g.fa: name it once"):
        open_stores(DataConfig(fasta=[str(path), str(again)]), tmp_path / "data")
    with pytest.raises(UserError, match="holds no prepared genome"):
        open_stores(DataConfig(fasta=str(tmp_path)), tmp_path / "data")


def test_a_place_is_one_in_its_data_alone(tmp_path):
    stores = [prepared(tmp_path, a="ACGT"), prepared(tmp_path, a="CCC")]
    place = make_data_position(5, stores, 9)
    assert place["step"] == 5 and place["windows"] == 9
    assert place["sources"][0] == {"name": stores[0].name, "sha256": stores[0].sha256}
    assert check_data_position(place, stores, 9) == 5
    with pytest.raises(UserError, match="made with 9 windows of 2 genomes, and there are 8 of 2"):
        check_data_position(place, stores, 8)
    with pytest.raises(UserError, match="and there are 9 of 1 now"):
        check_data_position(place, stores[:1], 9)
    with pytest.raises(UserError, match=f"{stores[1].name} has changed since this run began"):
        check_data_position(place, stores[::-1], 9)


def test_where_no_folder_is_shared_every_machine_prepares_its_genomes(tmp_path, monkeypatch):
    """Here this process is not the first; process 0 has prepared them elsewhere."""
    monkeypatch.setattr(sources.processes, "index", lambda: 1)
    monkeypatch.setattr(sources.processes, "broadcast_from_first", lambda *_: None)
    config = DataConfig(fasta=f"file://{fasta(tmp_path / 'g.fa', a='ACGT' * 10)}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError):
        open_stores(config, tmp_path / "shared")
    (store,) = open_stores(config, tmp_path / "own", shared=False)
    assert store.path == tmp_path / "own" / "0" and store["a"].tobytes() == b"ACGT" * 10
