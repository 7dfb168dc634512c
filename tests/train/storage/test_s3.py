"""A run's folder in S3 itself, as a local server of moto plays it."""

import pathlib

import pytest

from caduceus_jax.model.run_checkpoint import write_manifest
from caduceus_jax.train.storage.remote import StorageFailed, local_copy
from caduceus_jax.train.storage.run_folder import RunFolder

pytest.importorskip("s3fs", reason="needs s3fs: pip install s3fs")
moto = pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[server]'")


@pytest.fixture
def store(tmp_path, monkeypatch):
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "XDG_CACHE_HOME": str(tmp_path / "one"),
    }.items():
        monkeypatch.setenv(name, value)
    found = fsspec.filesystem("s3", skip_instance_cache=True)
    found.mkdir("bucket")
    yield found
    server.stop()


def checkpoint(folder: pathlib.Path, step: int) -> None:
    place = folder / "checkpoints" / str(step)
    (place / "state").mkdir(parents=True)
    (place / "state" / "a").write_bytes(bytes(1000))
    write_manifest(place)


def test_a_run_is_written_to_a_bucket_and_read_on_another_machine(store, tmp_path, monkeypatch):
    store.pipe_file("bucket/g.fa", b">one\nACGT\n")
    assert local_copy("data.fasta", "s3://bucket/g.fa").read_bytes() == b">one\nACGT\n"
    with RunFolder("s3://bucket/run") as place:
        (place.path / "config.yaml").write_text("a: 1\n")
        for step in (1, 2):
            checkpoint(place.path, step)
            place.saved(step)
    steps = {name.split("/")[3] for name in store.find("bucket/run/checkpoints")}
    assert steps == {"1", "2"} and not store.exists("bucket/run/lease.json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    with RunFolder("s3://bucket/run") as place:
        assert (place.path / "checkpoints" / "2" / "state" / "a").stat().st_size == 1000
    with pytest.raises(StorageFailed, match="s3://none/g.fa, which cannot be used"):
        local_copy("data.fasta", "s3://none/g.fa")
