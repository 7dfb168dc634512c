"""Runs in an object store: one in memory stands for a bucket, another cache for another machine."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time

import fsspec
import numpy as np
import pytest

import caduceus_jax as cj
from caduceus_jax.model.run_checkpoint import write_manifest
from caduceus_jax.train.cluster.lease import InUse
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.pretrain import pretrain
from caduceus_jax.train.run.interruption import Interruption
from caduceus_jax.train.storage import run_folder as module
from caduceus_jax.train.storage.remote import StorageFailed
from caduceus_jax.train.storage.run_folder import RunFolder

OUT = "memory://bucket/run"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_a_path_is_taken_as_it_is(tmp_path):
    with RunFolder(str(tmp_path / "run")) as place:
        assert place.path == tmp_path / "run"
        place.saved(3)
    assert not list(tmp_path.iterdir())


def test_a_run_continues_on_another_machine(bucket, tmp_path, monkeypatch, capsys):
    text = "".join(np.random.default_rng(0).choice(list("ACGT"), 1500))
    bucket.pipe_file("/bucket/genome.fa", f">one\n{text}\n".encode())
    config = PretrainConfig(
        out=OUT,
        model=cj.CaduceusConfig(d_model=8, n_layer=1, d_state=4, rcps=True),
        data=DataConfig(fasta="memory://bucket/genome.fa"),
        optimizer=OptimizerConfig(lr=1e-2),
        steps=4,
        batch_size=4,
        max_length=16,
        log_every=1,
        eval_every=4,
        checkpoint_every=1,
        keep=2,
    )
    after = Interruption.after

    def stop(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return after(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "after", stop)
        with pytest.raises(SystemExit) as exit_:
            pretrain(config)
    assert exit_.value.code == 75
    assert f"saved step 3 in {OUT}" in capsys.readouterr().err
    steps = {path.split("/")[4] for path in bucket.find("/bucket/run/checkpoints")}
    assert steps == {"2", "3"}
    assert not bucket.exists("/bucket/run/lease.json")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    pretrain(config)
    shown = capsys.readouterr()
    assert "continues at step 3 of 4" in shown.err
    assert f"curve: {OUT}/loss.png" in shown.out
    rows = bucket.cat_file("/bucket/run/metrics.jsonl").decode().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]
    for name in ("config.yaml", "loss.png", "model/model.safetensors", "data/sources.json"):
        assert bucket.exists(f"/bucket/run/{name}"), name
    with pytest.raises(cj.UserError, match="holds another run, with other seed"):
        pretrain(dataclasses.replace(config, seed=1))


def test_one_run_writes_to_a_store(bucket):
    with RunFolder(OUT), pytest.raises(InUse, match=f"{OUT} is being written by process"):
        RunFolder(OUT).__enter__()
    # Of a process that is gone, or has given no sign for long, it is taken over.
    for holder in (
        {"host": module.socket.gethostname(), "pid": 2**22 + 1, "time": time.time()},
        {"host": "elsewhere", "pid": 1, "time": time.time() - 100},
    ):
        bucket.pipe_file("/bucket/run/lease.json", json.dumps(holder | {"token": "x"}).encode())
        with RunFolder(OUT) as place:
            taken = json.loads(bucket.cat_file("/bucket/run/lease.json"))
            assert taken["pid"] == os.getpid()
            bucket.pipe_file("/bucket/run/lease.json", json.dumps(holder).encode())
            with pytest.raises(InUse, match="another run has taken over"):
                place.saved(1)


def test_a_damaged_checkpoint_in_the_store_is_left_for_an_older_one(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "verify", lambda folder: _verify(folder))
    bucket.pipe_file("/bucket/run/config.yaml", b"{}")
    for step, text in ((1, b"good"), (2, b"bad"), (10, b"unfinished")):
        bucket.pipe_file(f"/bucket/run/checkpoints/{step}/state/a", text)
        if step < 10:
            bucket.pipe_file(f"/bucket/run/checkpoints/{step}/manifest.json", b"{}")
    with RunFolder(OUT) as place:
        assert [path.name for path in (place.path / "checkpoints").iterdir()] == ["1"]
        assert (place.path / "checkpoints" / "1" / "state" / "a").read_bytes() == b"good"


def _verify(folder: pathlib.Path) -> str | None:
    return "wrong bytes" if (folder / "state" / "a").read_bytes() == b"bad" else None


def test_a_store_that_fails_is_one_sentence(bucket, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("403 Forbidden")

    with monkeypatch.context() as patch:
        patch.setattr(type(bucket), "pipe_file", refuse)
        with pytest.raises(StorageFailed, match=r"out is memory://.* \(403 Forbidden\): check"):
            RunFolder(OUT).__enter__()
    # At the end, what failed before is not tried again.
    tried = []
    with pytest.raises(StorageFailed, match="403 Forbidden"), RunFolder(OUT) as place:
        (place.path / "config.yaml").write_text("seed: 1\n")
        monkeypatch.setattr(type(bucket), "put_file", lambda *_, **__: tried.append(1) or refuse())
        place.saved(1)
    assert tried == [1]


def checkpoint(folder, step, text):
    """A complete checkpoint of one array."""
    place = folder / "checkpoints" / str(step)
    (place / "state").mkdir(parents=True)
    (place / "state" / "a").write_text(text)
    write_manifest(place)


def test_the_store_decides_what_belongs_to_a_run(bucket):
    """A run that was killed before its checkpoint had come there goes back to the one before."""
    with RunFolder(OUT) as place:
        (place.path / "config.yaml").write_text("seed: 1\n")
        (place.path / "metrics.jsonl").write_text("1\n")
        checkpoint(place.path, 1, "one")
        place.saved(1)
    checkpoint(place.path, 2, "never sent")
    (place.path / "metrics.jsonl").write_text("1\n2\n")
    (place.path / "wandb_id").write_text("of another run")
    with RunFolder(OUT) as place:
        assert [path.name for path in (place.path / "checkpoints").iterdir()] == ["1"]
        assert (place.path / "metrics.jsonl").read_text() == "1\n"
        assert not (place.path / "wandb_id").exists()
    # A checkpoint of that step that another machine has written takes the place of the one here.
    shutil.rmtree(place.path / "checkpoints" / "1")
    checkpoint(place.path, 1, "another")
    with RunFolder(OUT) as place:
        assert (place.path / "checkpoints" / "1" / "state" / "a").read_text() == "one"


def test_what_an_interrupted_upload_left_is_replaced(bucket, monkeypatch):
    bucket.pipe_file("/bucket/run/checkpoints/1/state/other", b"left")
    order, put = [], type(bucket).put_file

    def noted(self, local, there, **named):
        order.append(there.removeprefix("/bucket/run/"))
        put(self, local, there, **named)

    monkeypatch.setattr(type(bucket), "put_file", noted)
    with RunFolder(OUT) as place:
        (place.path / "config.yaml").write_text("seed: 1\n")
        checkpoint(place.path, 1, "one")
        place.saved(1)
    # The metrics of its steps come before a checkpoint, and its manifest last.
    assert order == ["config.yaml", "checkpoints/1/state/a", "checkpoints/1/manifest.json"]
    assert not bucket.exists("/bucket/run/checkpoints/1/state/other")


def test_other_processes_read_only_the_files_that_they_need(bucket, monkeypatch):
    for name in ("config.yaml", "tokenizer/tokenizer.json", "metrics.jsonl", "data/sources.json"):
        bucket.pipe_file(f"/bucket/run/{name}", name.encode())
    monkeypatch.setattr(module.processes, "index", lambda: 1)
    monkeypatch.setattr(module.processes, "broadcast_from_first", lambda *_, **__: None)
    with RunFolder(OUT) as place:
        found = {str(p.relative_to(place.path)) for p in place.path.rglob("*") if p.is_file()}
        assert found == {"config.yaml", "tokenizer/tokenizer.json", "data/sources.json"}
    bucket.rm_file("/bucket/run/data/sources.json")
    with RunFolder(OUT) as place:
        assert not (place.path / "data" / "sources.json").exists()
    assert not bucket.exists("/bucket/run/lease.json")
