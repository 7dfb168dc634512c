import concurrent.futures
import threading
import time

import fsspec
import pytest

import caduceus_jax as cj
from caduceus_jax.train.config import PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.storage import remote
from caduceus_jax.train.storage.remote import (
    StorageFailed,
    check_address,
    is_remote,
    local_copy,
    one_at_a_time,
    within_time,
)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """An object store in memory, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_addresses_are_told_from_paths():
    assert is_remote("gs://bucket/run") and is_remote("memory://x")
    assert not any(map(is_remote, ("runs/a", "/a/b", "gs:", "a:b", "")))


def test_an_address_that_cannot_be_used_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(remote.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cj.UserError, match="out is gs://b/run, which needs gcsfs: pip install gcs"):
        PretrainConfig(out="gs://b/run")
    with pytest.raises(cj.UserError, match="data is s3://b/g.fa, which needs s3fs: pip install s3"):
        DataConfig(fasta="s3://b/g.fa")
    with pytest.raises(cj.UserError, match="nothing:// is not known: use gs:// or s3://"):
        check_address("out", "nothing://b/run")
    with pytest.raises(cj.UserError, match="gs:/b/run, which is not an address"):
        check_address("out", "gs:/b/run")
    check_address("out", "runs/mine")


def test_a_file_is_copied_once_and_again_when_it_has_changed(bucket):
    bucket.pipe_file("/b/genome.fa", b">one\nACGT\n")
    first = local_copy("data.fasta", "memory://b/genome.fa")
    assert first.name == "genome.fa" and first.read_bytes() == b">one\nACGT\n"
    assert local_copy("data.fasta", "memory://b/genome.fa") == first
    bucket.pipe_file("/b/genome.fa", b">one\nACGTA\n")
    assert local_copy("data.fasta", "memory://b/genome.fa").read_bytes() == b">one\nACGTA\n"
    assert local_copy("data.fasta", "somewhere/genome.fa").name == "genome.fa"


def test_a_folder_is_copied_whole(bucket):
    for name in ("index.json", "deep/bases.bin"):
        bucket.pipe_file(f"/b/hg38/{name}", name.encode())
    place = local_copy("data.fasta", "memory://b/hg38/")
    assert (place / "index.json").read_text() == "index.json"
    assert (place / "deep" / "bases.bin").read_text() == "deep/bases.bin"
    # Where only folders are wanted, a file is not copied.
    bucket.pipe_file("/b/genome.fa", b">one\nACGT\n")
    assert not local_copy("data.fasta", "memory://b/genome.fa", folders_only=True).exists()


def test_what_is_not_there_or_fails_is_one_sentence(bucket, monkeypatch):
    with pytest.raises(
        StorageFailed, match="data.fasta is memory://b/none.fa, which cannot be use"
    ):
        local_copy("data.fasta", "memory://b/none.fa")

    def refuse(path):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(type(bucket), "info", lambda self, path: refuse(path))
    with pytest.raises(StorageFailed, match=r"\(no route to host\): check the address") as error:
        local_copy("data.fasta", "memory://b/genome.fa")
    assert error.value.exit_status == 1


def test_a_store_that_does_not_answer_is_given_up(bucket, monkeypatch):
    monkeypatch.setattr(remote, "STALLED_SECONDS", 0.2)
    hung = threading.Event()
    monkeypatch.setattr(type(bucket), "info", lambda self, path: hung.wait(60))
    with pytest.raises(StorageFailed, match=r"\(nothing has come or gone for \d s\): check"):
        local_copy("data.fasta", "memory://b/genome.fa")
    hung.set()


def test_a_large_file_has_time_as_long_as_its_bytes_move(monkeypatch):
    monkeypatch.setattr(remote, "STALLED_SECONDS", 1.5)

    def slow(callback):
        callback.set_size(10)
        for _ in range(4):
            time.sleep(0.6)
            callback.relative_update(1)
        return callback.value

    assert within_time(slow, callback=remote._Progress()) == 4
    progress = remote._Progress()
    progress.set_size(10**12)
    assert progress.patience == 251.5


def test_processes_of_one_machine_copy_a_file_once(bucket):
    bucket.pipe_file("/b/genome.fa", b">one\nACGT\n")
    copied, get = [], type(bucket).get_file

    def counted(self, *words, **named):
        copied.append(words)
        time.sleep(0.1)
        return get(self, *words, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bucket), "get_file", counted)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            places = list(pool.map(local_copy, ["data"] * 4, ["memory://b/genome.fa"] * 4))
    assert len(copied) == 1 and len(set(places)) == 1
    with one_at_a_time(places[0]):  # free again
        assert places[0].read_bytes() == b">one\nACGT\n"
